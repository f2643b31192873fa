"""as_generator: any torch module that draws images as a generator, tried once before it is believed."""

import hashlib
import io
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lpdirs.base.errors import UserError
from lpdirs.models.described import OF_TORCH, described
from lpdirs.models.generators import NORMAL, GeneratorInfo, copied, fingerprint_of_weights
from lpdirs.models.priors import Prior
from lpdirs.models.trial import Report, first_line, try_out


class Wrapped(nn.Module):
    """What as_generator makes of a module; how it is to be called and its output to be read is found out once, by a trial."""

    def __init__(self, module: nn.Module, shape: tuple[int, ...], value_range: tuple[float, float], bound: dict, prior: Prior):
        super().__init__()
        self.module, self.latent_dim, self.latent_shape = module, math.prod(shape), shape
        self.value_range, self.bound, self.prior = value_range, bound, prior
        self.unit = prior.unit(self.latent_dim)
        self.output: str | int | None = None
        self.project: Callable[[Any], Tensor] | None = None
        self.noise, self.one_by_one, self.channels = "none", False, 1
        self.measures: Any = None
        self.display: Any = None
        self._report: Report | None = None
        self.dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)

    def report(self) -> Report:
        """What was found when it was wrapped."""
        assert self._report is not None
        return self._report

    def bound_for(self, n: int, device: torch.device) -> dict:
        """The further inputs of the module, for a batch of n."""
        place = lambda v: v.to(device).expand(n, *v.shape[1:]) if v.ndim and len(v) == 1 else v.to(device)
        return {k: place(v) if isinstance(v, Tensor) else v for k, v in self.bound.items()}

    def images(self, z: Tensor) -> Tensor:
        """The module's own images (B, C, S, S), float32, for z (B, d) in units of the prior."""
        z = (z * self.unit).reshape(len(z), *self.latent_shape).to(self.dtype)
        one = lambda row: picked(self.module(row[None], **self.bound_for(1, z.device)), self.output, self.project)[0]
        if self.noise == "none":
            return picked(self.module(z, **self.bound_for(len(z), z.device)), self.output, self.project).float()
        with _seeded(z.device):  # the same noise for every z, wherever it stands in a batch
            if not self.one_by_one:
                return torch.func.vmap(one, randomness="same")(z).float()
            rows = []
            for row in z:
                torch.manual_seed(0)
                rows.append(one(row))
            return torch.stack(rows).float()

    def forward(self, z: Tensor) -> Tensor:
        x = self.images(z)
        x = x.mean(1, keepdim=True) if x.shape[1] > self.channels else x
        low, high = self.value_range
        return x if (low, high) == (-1, 1) else (x - low) * (2 / (high - low)) - 1


@contextmanager
def _seeded(device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        yield


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
    names = [field.name for field in fields(given)] if is_dataclass(given) else list(getattr(given, "__dict__", {}))
    return {name: getattr(given, name) for name in names}


def as_generator(
    module: nn.Module,
    latent_dim: int,
    latent_shape: tuple[int, ...] | None = None,
    value_range: tuple[float, float] = (-1, 1),
    name: str = "own",
    **options: Any,
) -> nn.Module:
    """Any torch module that maps z to images as a generator of images (B, 1, S, S) in [-1, 1], on the module's device.

    It holds a frozen copy in eval mode: the module itself stays as it is. `latent_shape` is the shape of one z where it is not
    (latent_dim,), such as (8, 4, 4) for a spatial latent of 128. `value_range` is that of the module's images; colour is averaged
    to grey unless `channels="keep"`. Options: `prior`, what its latents are drawn from (`Prior`; default normal; z is counted in its unit);
    `noise="fix"` for a module that draws noise of its own, which is then the same for every z; `output`, the key, attribute or index of
    the images where a module returns several things; `project`, a function from what it returns to images (B, 1 or 3, S, S), such as
    the middle slice of a volume; `measures` (`Measures`) and `display` (`Display`), with which its images are then measured and shown
    wherever none are given. All others are further inputs of the module, by name; tensors with a first dimension of 1 are
    expanded to the batch.

    The module is tried on a few z; what was found is printed in a line and kept (`generator.report()`). UserError, in one line, where
    it does not take such z, draws noise, or its images are not finite, depend on the others in a batch, or have another shape.
    """
    prior, noise = options.pop("prior", None) or NORMAL, options.pop("noise", "refuse")
    output, project, channels = options.pop("output", None), options.pop("project", None), options.pop("channels", "grey")
    measures, display = options.pop("measures", None), options.pop("display", None)
    if channels not in ("grey", "keep"):
        raise UserError(f"channels must be 'grey' or 'keep', not {channels!r}")
    for given, method, what in ((measures, "first", "Measures(function, units)"), (display, "to_grey", "Display")):
        if given is not None and not hasattr(given, method):
            raise UserError(f"{what} is wanted, not {type(given).__name__}")
    shape, value_range = _checked(module, latent_dim, latent_shape, value_range, prior, noise)
    try:
        own = _copied(module)
        options = {name: v.detach() if isinstance(v, Tensor) else v for name, v in options.items()}
    except Exception as error:  # a user's own module may hold anything
        raise UserError(
            f"the module cannot be copied ({first_line(error)}): remove old weight_norm or spectral_norm, detach tensors that it "
            f"holds, and open a session of another library at the first call"
        ) from error
    try:
        wrapped = Wrapped(own, shape, value_range, options, prior).eval().requires_grad_(False)
    except RuntimeError as error:
        raise UserError(f"the module cannot be frozen ({first_line(error)}): give it before it is traced") from error
    wrapped.output, wrapped.project, wrapped.measures, wrapped.display = output, project, measures, display
    wrapped._report = try_out(wrapped, str(name), noise, keep=channels == "keep")
    print_of = hashlib.sha256(f"{type(module).__qualname__} {shape} {value_range} {fingerprint_of_weights(own)}".encode())
    for key, value in sorted(options.items()):
        print_of.update(f"{key} {described(value)}".encode())
    if project is not None:
        print_of.update(described(project).encode())
    for part_name, part in own.named_modules():
        held = {key: value for key, value in vars(part).items() if key not in OF_TORCH and not isinstance(value, Tensor)}
        written = "" if type(part).__module__.startswith("torch") else described(type(part).forward)
        print_of.update(f"{part_name} {type(part).__qualname__} {written} {described(held)}".encode())
    for what, value, usual in (
        ("prior", prior.about, "normal"),
        ("noise", wrapped.noise, "none"),
        ("output", output, None),
        ("channels", wrapped.channels, 1),
    ):
        if value != usual:
            print_of.update(f"{what} {value}".encode())
    wrapped.info = GeneratorInfo(str(name), print_of.hexdigest()[:16])  # type: ignore[assignment]
    print(wrapped.report())
    return wrapped


def _copied(module: nn.Module) -> nn.Module:
    """A copy of one's own; of a scripted module by way of its file, since copies in memory hold no weights that can be frozen."""
    if not isinstance(module, torch.jit.ScriptModule):
        return copied(module)
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(module, file)
        file.seek(0)
        return torch.jit.load(file)


def _checked(
    module: nn.Module, latent_dim: int, latent_shape: Any, value_range: Any, prior: Any, noise: str
) -> tuple[tuple[int, ...], tuple[float, float]]:
    """The latent's shape and the range, where all that was given makes sense."""
    whole = lambda n: isinstance(n, int | np.integer) and not isinstance(n, bool) and n >= 1
    shape = (latent_dim,) if latent_shape is None else latent_shape
    if not whole(latent_dim) or not isinstance(shape, tuple | list) or not all(map(whole, shape)):
        raise UserError(f"latent_dim must be a whole number, and latent_shape some of them, not {latent_dim!r} and {latent_shape!r}")
    shape = tuple(int(n) for n in shape)
    if math.prod(shape) != latent_dim:
        raise UserError(f"latent_shape {shape} holds {math.prod(shape)} numbers, and latent_dim is {latent_dim}")
    if not isinstance(module, nn.Module):
        raise UserError(f"as_generator takes a torch module, not {type(module).__name__}: put the function into a module's forward")
    if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
        raise UserError("the module's weights are on the meta device, without values: load them first")
    if not isinstance(prior, Prior):
        raise UserError(f"prior must be a Prior, such as Prior.uniform(-1, 1) or Prior.mapped(network, 512), not {type(prior).__name__}")
    prior.check(int(latent_dim))
    if noise not in ("refuse", "fix"):
        given = repr(noise) if isinstance(noise, str) else type(noise).__name__
        raise UserError(f"noise must be 'refuse' or 'fix', not {given}: a further input of that name is given in a forward of your own")
    try:
        low, high = map(float, value_range)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not low < high or not math.isfinite(high - low):
        raise UserError(f"value_range must be (lowest, highest), not {value_range}")
    return shape, (low, high)
