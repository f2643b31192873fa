"""A generator is anything that maps z (B, d) to images (B, C, S, S): what is known of it, and drawing from it. C is 1, or 3 of colour."""

import copy
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lpdirs.base.errors import UserError
from lpdirs.models.priors import Prior

NORMAL = Prior.normal()
AS_TRAINED = nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd  # layers that do something else in training


@dataclass(frozen=True)
class GeneratorInfo:
    """What is known of a generator beside its weights: `window` is the values that -1 and 1 stand for, `pixel_mm` a pixel's side."""

    name: str = "own"
    fingerprint: str = ""
    window: tuple[float, float] | None = None
    pixel_mm: float | None = None


def latent_dim_of(generator: nn.Module) -> int:
    """d; UserError for a module that is not wrapped yet."""
    latent_dim = getattr(generator, "latent_dim", None)
    if not isinstance(latent_dim, int):
        raise UserError(f"{type(generator).__name__} is not a generator yet: wrap it with lp.as_generator(module, latent_dim)")
    return latent_dim


def check_ready(generator: nn.Module) -> None:
    """UserError for a module that is not wrapped yet, or in training mode, in which an image depends on the others of its batch."""
    latent_dim_of(generator)
    if any(part.training and isinstance(part, AS_TRAINED) for part in generator.modules()):
        name = type(generator).__name__
        raise UserError(f"{name} is in training mode, in which an image depends on the others of its batch: call its eval() first")


def device_of(generator: nn.Module) -> torch.device:
    """Where the generator's weights are."""
    tensor = next(generator.parameters(), next(generator.buffers(), None))
    return tensor.device if tensor is not None else torch.device("cpu")


def info_of(generator: nn.Module) -> GeneratorInfo:
    """What is known of a generator; for a module that was neither wrapped nor loaded, its fingerprint."""
    info = getattr(generator, "info", None)
    return info if isinstance(info, GeneratorInfo) else GeneratorInfo(fingerprint=fingerprint_of_weights(generator))


def window_of(generator: nn.Module) -> tuple[float, float] | None:
    """The values that -1 and 1 stand for, where it is known; without a look at the weights, which takes 0.15 s at the paper's width."""
    info = getattr(generator, "info", None)
    return info.window if isinstance(info, GeneratorInfo) else None


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
    """A copy of a module; of tensors that it keeps from its last call, such as old spectral_norm's weights, their values. What is measured
    with, and how it is shown, is not copied."""
    held = [value for part in module.modules() for value in vars(part).values() if isinstance(value, Tensor) and not value.is_leaf]
    memo = {id(value): value.detach().clone() for value in held}
    for name in ("measures", "display", "project"):
        if (own := getattr(module, name, None)) is not None:
            memo[id(own)] = own
    return copy.deepcopy(module, memo)


def draw_z(generator: nn.Module, n: int, seed: int | torch.Generator = 0) -> Tensor:
    """n random z (n, d) of the generator's prior, in its unit, on the CPU; the same for the same seed."""
    rng = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(int(seed))
    d, prior = latent_dim_of(generator), prior_of(generator)
    return prior.draw(n, d, rng) / prior.unit(d)


def prior_of(generator: nn.Module) -> Prior:
    """What its z is drawn from: N(0, I) unless it was wrapped with another."""
    prior = getattr(generator, "prior", None)
    return prior if isinstance(prior, Prior) else NORMAL


def typicality(z: Tensor, generator: nn.Module | None = None) -> np.ndarray:
    """For z (N, d) the share of the prior that lies further out, (N,): 0.5 is average, 0.001 is where hardly any sample is.

    Of the generator's own prior, or of N(0, I) where none is given.
    """
    prior = NORMAL if generator is None else prior_of(generator)
    return prior.typicality(z * prior.unit(z.shape[1]))


def channels_of(generator: nn.Module) -> int:
    """Channels of its images: 1, or 3 where it was wrapped to keep colour."""
    return int(getattr(generator, "channels", 1))


@torch.no_grad()
def generate(generator: nn.Module, z: Tensor, batch: int = 128) -> Tensor:
    """Slices (N, C, S, S) in [-1, 1] for z (N, d), on the CPU; UserError where a z gives values that are not finite."""
    check_ready(generator)
    device = device_of(generator)
    x = torch.cat([generator(part.to(device)).cpu() for part in z.split(batch)])
    bad = int((~x.flatten(1).isfinite().all(1)).sum())
    if bad:
        raise UserError(f"the generator's images are not finite for {bad} of {len(z)} z: it cannot draw from every z that it is given")
    return x


def typical_z(generator: nn.Module, seed: int = 0, n: int = 256) -> Tensor:
    """Of n random z the one (d,) whose image is nearest to their mean, among the sharper half, as a starting point for strips.

    Of all images the nearest to a mean is, in a VAE, the most blurred.
    """
    z = draw_z(generator, n, seed)
    x = generate(generator, z)
    sharp = x.diff(dim=-1).abs().flatten(1).mean(1) + x.diff(dim=-2).abs().flatten(1).mean(1)
    away = (x - x.mean(0)).square().flatten(1).mean(1)
    return z[torch.where(sharp >= sharp.median(), away, torch.inf).argmin()]
