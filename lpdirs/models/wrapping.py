"""as_generator: any torch module that draws images as a generator, tried once before it is believed."""

import functools
import hashlib
import inspect
import io
import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from pydantic import InstanceOf
from torch import Tensor, fx, nn
from torch.nn.functional import fold
from torch.nn.utils.fusion import fuse_conv_bn_weights

from lpdirs.base.checked import Count, Numbers, checked
from lpdirs.base.compute import compiled
from lpdirs.base.errors import UserError, first_line
from lpdirs.measures.measures import Display, Measures
from lpdirs.models.generators import NORMAL, SAME, Generator, copied, fingerprint_of_weights
from lpdirs.models.priors import Prior
from lpdirs.models.trial import try_out


class Wrapped(nn.Module):
    """A user's module as it is called here: z (B, d) in units of the prior to images (B, C, S, S) in [-1, 1]."""

    def __init__(self, module: nn.Module, latent_shape: tuple[int, ...], unit: float, value_range: tuple[float, float], inputs: dict):
        super().__init__()
        self.module, self.latent_shape, self.unit, self.value_range, self.inputs = module, latent_shape, unit, value_range, inputs
        self.output: str | int | None = None
        self.project: Callable[[Any], Tensor] | None = None
        self.grey = True
        self.dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)

    def inputs_for(self, n: int, device: torch.device) -> dict:
        """The further inputs of the module, for a batch of n; those of one row, or of none, are expanded to it."""

        def place(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            value = value.to(device)
            return value.expand(n, *value.shape[1:]) if value.ndim and len(value) == 1 else value

        return {name: place(value) for name, value in self.inputs.items()}

    def own_images(self, z: Tensor) -> Tensor:
        """The module's own images (B, C, S, S), float32."""
        z = (z * self.unit).reshape(len(z), *self.latent_shape).to(self.dtype)
        x = picked(self.module(z, **self.inputs_for(len(z), z.device)), self.output, self.project)
        if isinstance(x, Tensor) and x.is_complex():
            raise UserError("the module's images are complex: give their magnitude or their real part with project=")
        return x.float()

    def forward(self, z: Tensor) -> Tensor:
        x = self.own_images(z)
        x = x.mean(1, keepdim=True) if self.grey and x.shape[1] > 1 else x
        low, high = self.value_range
        return x if (low, high) == (-1, 1) else (x - low) * (2 / (high - low)) - 1


def picked(given: Any, output: str | int | None, project: Callable[[Any], Tensor] | None) -> Any:
    """The images in what a module returned: a tensor, or `output` (key, attribute or index) of what holds several, through `project`."""
    if output is not None:
        held: Any = given
        try:
            given = held[output] if isinstance(given, Mapping | list | tuple) else getattr(given, str(output))
        except (LookupError, AttributeError, TypeError) as error:
            raise UserError(f"the module returns a {type(held).__name__} that has no output {output!r}") from error
    elif not isinstance(given, Tensor) and project is None:
        if isinstance(given, np.ndarray):
            raise UserError("the module returns a NumPy array: return a tensor, torch.from_numpy(...)")
        parts = _parts(given)
        images = {key: part for key, part in parts.items() if isinstance(part, Tensor) and part.ndim == 4 and part.shape[1] in (1, 3)}
        if len(images) != 1:
            several = f"several image tensors ({', '.join(map(str, images))})" if images else "no image tensor"
            raise UserError(f"the module returns {several} in a {type(given).__name__}: say which part is the image with output=")
        given = next(iter(images.values()))
    if project is None:
        return given
    try:
        return project(given)
    except Exception as error:  # a user's own function may raise anything
        raise UserError(f"project= failed on what the module returns ({first_line(error)})") from error


def _parts(given: Any) -> dict:
    if isinstance(given, Mapping):
        return dict(given)
    if isinstance(given, list | tuple):
        return dict(enumerate(given))
    names = [part.name for part in fields(given)] if is_dataclass(given) else list(getattr(given, "__dict__", {}))
    return {name: getattr(given, name) for name in names}


@checked
def as_generator(
    module: Any,
    latent_dim: Count,
    latent_shape: tuple[Count, ...] | None = None,
    value_range: Numbers = (-1, 1),
    name: str = "own",
    *,
    prior: InstanceOf[Prior] = NORMAL,
    noise: Literal["refuse", "fix"] = "refuse",
    output: str | int | None = None,
    project: Any = None,
    channels: Literal["grey", "keep"] = "grey",
    measures: InstanceOf[Measures] | None = None,
    display: InstanceOf[Display] | None = None,
    inputs: dict[str, Any] | None = None,
) -> Generator:
    """Any torch module that maps z to images as a generator of images (B, 1, S, S) in [-1, 1], on the module's device.

    It holds a frozen copy in eval mode: the module itself stays as it is. `latent_shape` is the shape of one z where it is not
    (latent_dim,), such as (8, 4, 4) for a spatial latent of 128. `value_range` is that of the module's images; colour is averaged
    to grey unless `channels="keep"`. `prior`: what its latents are drawn from (z is counted in its unit). `noise="fix"` is for a module
    that draws noise of its own, which is then the same for every z. `output` is the key, attribute or index of the images where a module
    returns several things; `project` a function from what it returns to images (B, 1 or 3, S, S), such as the middle slice of a volume.
    With `measures` and `display` its images are measured and shown wherever no others are given. `inputs` are further inputs of the
    module, by name; tensors with a first dimension of 1 are expanded to the batch.

    The module is tried on a few z, and what was found is printed in a line, `str(generator)`. UserError, in one line, where it does not
    take such z, draws noise, or its images are not finite, depend on the others in a batch, or have another shape.
    """
    shape = latent_shape or (latent_dim,)
    if math.prod(shape) != latent_dim:
        raise UserError(f"latent_shape {shape} holds {math.prod(shape)} numbers, and latent_dim is {latent_dim}")
    if not isinstance(module, nn.Module):
        raise UserError(f"as_generator takes a torch module, not {type(module).__name__}: put the function into a module's forward")
    if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
        raise UserError("the module's weights are on the meta device, without values: load them first")
    if len(value_range) != 2 or not value_range[0] < value_range[1]:
        raise UserError(f"value_range must be (lowest, highest), not {value_range}")
    prior.check(latent_dim)
    try:
        own = _copied(module)
        given = {key: v.detach() if isinstance(v, Tensor) else v for key, v in (inputs or {}).items()}
    except Exception as error:  # a user's own module may hold anything
        raise UserError(
            f"the module cannot be copied ({first_line(error)}): remove old weight_norm or spectral_norm, detach tensors that it "
            f"holds, and open a session of another library at the first call"
        ) from error
    try:
        wrapped = Wrapped(own, shape, prior.unit(latent_dim), (value_range[0], value_range[1]), given).eval().requires_grad_(False)
    except RuntimeError as error:
        raise UserError(f"the module cannot be frozen ({first_line(error)}): give it before it is traced") from error
    wrapped.output, wrapped.project, wrapped.grey = output, project, channels == "grey"
    generator = try_out(wrapped, latent_dim, prior, name, noise)
    marks: list[object] = [type(module).__qualname__, shape, value_range, fingerprint_of_weights(own), described(given), described(project)]
    marks += [prior.about, generator.noise, output, generator.info.channels]
    for part_name, part in own.named_modules():
        held = {key: value for key, value in vars(part).items() if key not in OF_TORCH and not isinstance(value, Tensor)}
        written = "" if type(part).__module__.startswith("torch") else described(type(part).forward)
        marks.append(f"{part_name} {type(part).__qualname__} {written} {described(held)}")
    info = replace(generator.info, fingerprint=hashlib.sha256(repr(marks).encode()).hexdigest()[:16])
    generator = Generator(wrapped, latent_dim, prior, info, measures, display, generator.noise, generator.one_by_one)  # type: ignore[arg-type]
    print(generator)
    return generator


def _copied(module: nn.Module) -> nn.Module:
    """A copy of one's own; of a scripted module by way of its file, since copies in memory hold no weights that can be frozen."""
    if not isinstance(module, torch.jit.ScriptModule):
        return copied(module)
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(module, file)
        file.seek(0)
        return torch.jit.load(file)


OF_TORCH = frozenset(vars(nn.Module())) | {"training"}  # what every module has; weights and buffers are taken in by themselves
PLAIN = (bool, int, float, complex, str, bytes, type(None))


def described(value: Any, depth: int = 6) -> str:
    """Numbers and text as they are, arrays by their hash, functions by their code and what it refers to, all else by its type."""
    if depth < 0:
        return "..."
    inner = functools.partial(described, depth=depth - 1)
    if isinstance(value, PLAIN):
        return repr(value)
    if isinstance(value, Tensor | np.ndarray):
        try:
            array = value.detach().cpu().contiguous().numpy() if isinstance(value, Tensor) else value
        except (TypeError, RuntimeError):  # sparse, quantised or of a type that numpy has not
            return f"{type(value).__name__} {tuple(value.shape)}"
        return f"{array.dtype} {array.shape} {hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{inner(key)}: {inner(value[key])}" for key in sorted(value, key=repr)) + "}"
    if isinstance(value, set | frozenset):
        return f"set[{', '.join(map(inner, sorted(value, key=repr)))}]"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}[{', '.join(map(inner, value))}]"
    if isinstance(value, functools.partial):
        return f"partial {inner(value.func)} {inner(value.args)} {inner(value.keywords)}"
    code = getattr(value, "__code__", None)
    if code is None or isinstance(value, nn.Module):  # a module's weights stand among those of what it is a part of
        return getattr(value, "__qualname__", type(value).__qualname__)
    outside = {name: value.__globals__[name] for name in code.co_names if name in value.__globals__}
    held = {name: v for name, v in outside.items() if isinstance(v, (*PLAIN, list, tuple, dict, Tensor, np.ndarray))}
    closed = inspect.getclosurevars(value).nonlocals if inspect.isfunction(value) else {}
    consts = [const for const in code.co_consts if not hasattr(const, "co_code")]
    own = (_written(value, code), code.co_names, consts, value.__defaults__, value.__kwdefaults__, held, closed)
    return f"function {hashlib.sha256(inner(own).encode()).hexdigest()[:16]}"


def _written(function: Any, code: Any) -> str:
    """Its source, which other versions of Python leave as it is; the bytecode of what has no name, since a line may hold several."""
    try:
        return code.co_code.hex() if code.co_name == "<lambda>" else inspect.getsource(function)
    except (OSError, TypeError):
        return code.co_code.hex()


def faster(generator: Generator, compile: str = "off", steps_in: str = "") -> Generator:
    """The same with BatchNorm folded into convolutions, channels last; compiled unless `compile` is "off". For steps of a search in a
    number format, `steps_in`, large layers are matrix products, and of bf16 the weights are held in it, which autocast would convert
    anew for every step.

    It is tried before it is believed: where it draws other images, or none, the generator is returned as it is. So is one that draws
    noise of its own, of which tracing would make a constant.
    """
    if generator.noise != "none":
        return generator
    module = copied(generator.module)
    if isinstance(module, Wrapped):
        module.module = fold_batchnorm(module.module)
    else:
        module = fold_batchnorm(module)
    if all(p.ndim != 5 for p in module.parameters()):  # weights of volumes, and StyleGAN2's, have another layout
        module = module.to(memory_format=torch.channels_last)
    if steps_in:
        by_products(module)
    fast = generator.but(module=module)
    z = generator.draw(3, 0).to(generator.device)
    try:
        with torch.enable_grad():
            drawn = fast(z.requires_grad_(generator.info.differentiable))
            if generator.info.differentiable:
                torch.autograd.grad(drawn.sum(), z)
        same = torch.allclose(drawn.detach(), generator(z).detach(), atol=2 * SAME)
    except Exception:  # a user's own module may do anything in another layout
        return generator
    if not same:
        return generator
    for layer in module.modules() if steps_in == "bf16" else ():
        if type(layer) in CAST and layer.weight.dtype is torch.float32:  # autocast leaves others as they are
            layer.to(torch.bfloat16)
    return generator.but(module=compiled(module, compile))


class Product(nn.Module):
    """A transposed convolution of 4 x 4 that doubles the side, as a matrix product: for a few small images the library takes longer to
    put large weights in another order than to multiply by them."""

    def __init__(self, layer: nn.ConvTranspose2d):
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach().flatten(1).contiguous(), False)  # (in, out 4 4)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach(), False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, 2 H, 2 W)."""
        rows = x.permute(0, 2, 3, 1).flatten(0, 2) @ self.weight
        parts = rows.unflatten(0, (len(x), -1)).transpose(1, 2)
        y = fold(parts, (2 * x.shape[2], 2 * x.shape[3]), 4, padding=1, stride=2)
        return y if self.bias is None else y + self.bias.to(y.dtype)[:, None, None]


CAST = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, Product)  # whose weights autocast converts
DOUBLES = {"kernel_size": (4, 4), "stride": (2, 2), "padding": (1, 1), "output_padding": (0, 0), "dilation": (1, 1), "groups": 1}
LARGE = 2**24  # weights of a layer from which a processor multiplies sooner than it convolves


def by_products(module: nn.Module) -> None:
    """Put a Product in the place of each large transposed convolution on a processor."""
    for name, layer in list(module.named_modules()):
        if type(layer) is nn.ConvTranspose2d and layer.weight.numel() >= LARGE and layer.weight.device.type == "cpu":
            if all(getattr(layer, key) == value for key, value in DOUBLES.items()):
                module.set_submodule(name, Product(layer))


def fold_batchnorm(module: nn.Module) -> nn.Module:
    """A frozen module in eval mode with every BatchNorm that follows a convolution folded into its weights; equal up to rounding.

    One whose code cannot be traced is returned as it is.
    """
    try:
        traced = fx.symbolic_trace(module)
    except Exception:  # a user's own module may do anything in its forward
        return module
    parts = dict(traced.named_modules())
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or not isinstance(parts[node.target], nn.BatchNorm2d | nn.BatchNorm1d):
            continue
        before, norm = node.args[0], parts[node.target]
        layer = parts.get(getattr(before, "target", None)) if getattr(before, "op", "") == "call_module" else None
        if not isinstance(layer, nn.modules.conv._ConvNd) or len(before.users) > 1 or calls[before.target] > 1 or norm.running_mean is None:
            continue
        weight, bias = fuse_conv_bn_weights(
            layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias, transpose=layer.transposed
        )
        layer.weight, layer.bias = nn.Parameter(weight.detach(), False), nn.Parameter(bias.detach(), False)
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced
