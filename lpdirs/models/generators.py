"""A generator: one frozen value that maps z (B, d) to images (B, C, S, S), with what is known of it. C is 1, or 3 of colour."""

import copy
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lpdirs.base.checked import brief
from lpdirs.base.errors import UserError
from lpdirs.measures.measures import Display, Measures, ct, moments
from lpdirs.models.priors import Prior

NORMAL = Prior.normal()
AS_TRAINED = nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd  # layers that do something else in training
SAME = 1e-3  # of value_range: numbers that differ by less are the same
BEYOND = 0.02  # of value_range: images that go further out leave it


@dataclass(frozen=True)
class GeneratorInfo:
    """What is known of a generator beside its weights.

    `window` is the values that -1 and 1 stand for (HU), `pixel_mm` a pixel's side. Of a wrapped module also what its trial found:
    `lowest` and `highest` of its own images, which are to lie in `value_range`, and `layers`, how many of them see z first.
    """

    name: str = "own"
    fingerprint: str = ""
    window: tuple[float, float] | None = None
    pixel_mm: float | None = None
    size: int | None = None
    channels: int = 1
    differentiable: bool = True
    value_range: tuple[float, float] = (-1.0, 1.0)
    lowest: float = -1.0
    highest: float = 1.0
    dtype: str = "float32"
    colour: str = ""  # "", kept or averaged
    layers: int = 1

    @property
    def in_range(self) -> bool:
        """Whether value_range is about that of the images."""
        low, high = self.value_range
        width = high - low
        return self.lowest >= low - BEYOND * width and self.highest <= high + BEYOND * width

    @property
    def doubt(self) -> str:
        """What may be wrong with value_range, as a sentence; "" where nothing is."""
        low, high = self.value_range
        if not self.in_range:
            return f". Its images leave value_range ({low:g}, {high:g}): give the range that they have"
        if low < 0 <= self.lowest + SAME:
            return f". Its images hold nothing below 0, and value_range is ({low:g}, {high:g}): if it is theirs from 0 on, give value_range"
        if self.highest - self.lowest < 0.1 * (high - low):
            return f". Its images fill little of value_range ({low:g}, {high:g}): is that theirs?"
        return ""


def tensor_of(values: Any, name: str = "z") -> Tensor:
    """What a caller gives as numbers (a tensor, an array, lists), float32; UserError for anything else."""
    try:
        return torch.as_tensor(values, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{name} must be a tensor or an array of numbers, (N, latent_dim), not {brief(values)}") from error


@dataclass(frozen=True, eq=False)
class Generator:
    """`module` maps z (B, latent_dim), in units of the prior, to images (B, C, S, S) in [-1, 1]; it is in eval mode and frozen.

    `lp.as_generator` makes one of any torch module, `lp.load` opens one. `measures` and `display` are with what its images are measured
    and how they are shown where nothing else is given (default: `moments`; HU where the window is known, else plain grey). `noise` is
    "fix" for a module that draws noise of its own, which is then the same for every z.
    """

    module: nn.Module
    latent_dim: int
    prior: Prior = NORMAL
    info: GeneratorInfo = field(default_factory=GeneratorInfo)
    measures: Measures = None  # type: ignore[assignment]  # filled in below
    display: Display = None  # type: ignore[assignment]
    noise: str = "none"
    one_by_one: bool = False  # with fixed noise, where torch cannot draw a batch at once (vmap)

    def __post_init__(self) -> None:
        if any(part.training and isinstance(part, AS_TRAINED) for part in self.module.modules()):
            name = type(self.module).__name__
            raise UserError(f"{name} is in training mode, in which an image depends on the others of its batch: call its eval() first")
        if self.measures is None:
            object.__setattr__(self, "measures", moments(self.info.channels))
        if self.display is None:
            object.__setattr__(self, "display", ct(self.info.window) if self.info.window else Display())

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        tensor = next(self.module.parameters(), next(self.module.buffers(), None))
        return tensor.device if tensor is not None else torch.device("cpu")

    @property
    def unit(self) -> float:
        """What z is counted in: the standard deviation of a coordinate of the prior's latents."""
        return self.prior.unit(self.latent_dim)

    def __call__(self, z: Tensor) -> Tensor:
        """Images (B, C, S, S) in [-1, 1] for z (B, d), on the generator's device, with a graph where z carries one."""
        z = torch.as_tensor(z, device=self.device)
        if self.noise == "none":
            return self.module(z)
        with _seeded(z.device):  # the same noise for every z, wherever it stands in a batch
            one = lambda row: self.module(row[None])[0]
            if not self.one_by_one:
                return torch.func.vmap(one, randomness="same")(z)
            rows = []
            for row in z:
                torch.manual_seed(0)
                rows.append(one(row))
            return torch.stack(rows)

    @cached_property
    def quick(self) -> "Generator":
        """The same, that draws the same images in less time: a third for the project's VAE at 128 px, 0.7 for its GAN."""
        from lpdirs.models.wrapping import faster

        return faster(self)

    @torch.no_grad()
    def images(self, z: Any, batch: int | None = None) -> Tensor:
        """Images (N, C, S, S) in [-1, 1] for z (N, d), float32, on the CPU; UserError for z of another width, or where one gives values
        that are not finite. `batch` at once: by default 16 on a CPU, whose caches hold no more, and 128 elsewhere."""
        z = tensor_of(z)
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise UserError(f"z must be (N, {self.latent_dim}) for {self.info.name}, not {tuple(z.shape)}")
        batch = batch or (16 if self.device.type == "cpu" else 128)
        x = torch.cat([self.quick(part).float().cpu() for part in z.split(batch)])
        bad = int((~x.flatten(1).isfinite().all(1)).sum())
        if bad:
            raise UserError(f"the generator's images are not finite for {bad} of {len(z)} z: it cannot draw from every z that it is given")
        return x

    def draw(self, n: int, seed: int | torch.Generator = 0) -> Tensor:
        """n random z (n, d) of the prior, in its unit, on the CPU; the same for the same seed."""
        rng = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(int(seed))
        return self.prior.draw(n, self.latent_dim, rng) / self.unit

    def z_of(self, codes: Any) -> Tensor:
        """z (N, d) for latent codes (N, ...) as the user's own module takes them, an encoder's say, torch or NumPy: divided by `unit`."""
        z = tensor_of(codes, "codes").detach().cpu()
        if z.ndim < 2 or z[0].numel() != self.latent_dim:
            raise UserError(f"codes must be (N, {self.latent_dim}) for {self.info.name}, not {tuple(z.shape)}")
        return z.flatten(1) / self.unit

    def typicality(self, z: Tensor) -> np.ndarray:
        """For z (N, d) the share of the prior that lies further out, (N,): 0.5 is average, 0.001 is where hardly any sample is."""
        return self.prior.typicality(z * self.unit)

    def typical(self, seed: int = 0, n: int = 256) -> Tensor:
        """Of n random z the one (d,) whose image is nearest to their mean, among the sharper half, as a starting point for strips.

        Of all images the nearest to a mean is, in a VAE, the most blurred.
        """
        z = self.draw(n, seed)
        x = self.images(z)
        sharp = x.diff(dim=-1).abs().flatten(1).mean(1) + x.diff(dim=-2).abs().flatten(1).mean(1)
        away = (x - x.mean(0)).square().flatten(1).mean(1)
        return z[torch.where(sharp >= sharp.median(), away, torch.inf).argmin()]

    def to(self, device: str | torch.device) -> "Generator":
        """The same on another device; this one stays where it is."""
        if torch.device(device) == self.device:
            return self
        return replace(self, module=copied(self.module).to(device))

    def but(self, **changes: Any) -> "Generator":
        """The same with other measures, display, or whatever else is named."""
        return replace(self, **changes)

    def __str__(self) -> str:
        info, gradients = self.info, "differentiable"
        if not info.differentiable:
            gradients = "without gradients, which reconstructor, jacobian, local-basis, hessian, latentclr and disco need"
        colour = {"averaged": " in colour, averaged to grey", "kept": " in colour"}.get(info.colour, "")
        noise = "noise, held fixed" if self.noise == "fix" else "no noise"
        layers = "1 layer" if info.layers == 1 else f"{info.layers} layers"
        size = f"{info.size} px" if info.size else "unknown size"
        return (
            f"{info.name}: z ({self.latent_dim}, {self.prior.name}) to images of {size}{colour}, {info.lowest:.3g} to "
            f"{info.highest:.3g}, {info.dtype}; {gradients}; {noise}; z enters at {layers}{info.doubt}"
        )


@contextmanager
def _seeded(device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        yield


def fingerprint_of_weights(module: nn.Module) -> str:
    """A short hash of a module's state, "" where it holds none: weights, buffers, and tensors and numbers that are plain attributes."""
    digest, known = hashlib.sha256(), False
    for name, value in sorted(module.state_dict().items()):
        known = _take_in(digest, name, value) or known
    for name, part in module.named_modules():
        for key, value in sorted(vars(part).items()):
            if not key.startswith("_") and key != "training":
                known = _take_in(digest, f"{name}.{key}", value) or known
    return digest.hexdigest()[:16] if known else ""


def _take_in(digest: Any, name: str, value: Any) -> bool:
    """Add a value to a digest; whether it is a tensor, or holds one (quantised layers keep theirs in tuples)."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.dequantize() if value.is_quantized else value.to_dense() if value.layout != torch.strided else value
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.resolve_conj().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return True
    if isinstance(value, np.ndarray) and value.dtype != object:
        return _take_in(digest, name, torch.from_numpy(np.ascontiguousarray(value))) if value.dtype.kind in "biufc" else False
    if isinstance(value, tuple | list) and len(value) < 1000:
        return any([_take_in(digest, f"{name}.{i}", part) for i, part in enumerate(value)])
    if isinstance(value, bool | int | float | str):
        digest.update(f"{name} {value!r}".encode())
    return False


def copied(module: nn.Module) -> nn.Module:
    """A copy of a module; of tensors that it keeps from its last call, such as old spectral_norm's weights, their values, and functions
    of the user's as they are."""
    held: dict[int, Any] = {}
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                held[id(value)] = value.detach().clone()
            elif isinstance(value, Callable) and not isinstance(value, nn.Module | type):  # type: ignore[arg-type]
                held[id(value)] = value
    return copy.deepcopy(module, held)
