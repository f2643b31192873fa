"""as_generator: any torch module that draws images as a generator, tried once before it is believed."""

import hashlib
import io
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from pydantic import InstanceOf
from torch import Tensor, nn

from lpdirs.base.checked import Count, Numbers, checked
from lpdirs.base.errors import UserError, first_line
from lpdirs.measures.display import Display
from lpdirs.measures.measures import Measures
from lpdirs.models.described import OF_TORCH, described
from lpdirs.models.generators import NORMAL, Generator, copied, fingerprint_of_weights
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
