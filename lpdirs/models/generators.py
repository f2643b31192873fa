"""A generator is anything that maps z (B, d) to slices (B, 1, S, S): any torch module is wrapped to be one, and drawn from."""

import copy
import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lpdirs.base.errors import UserError


@dataclass(frozen=True)
class GeneratorInfo:
    """What is known of a generator beside its weights: `window` is the values that -1 and 1 stand for, `pixel_mm` a pixel's side."""

    name: str = "own"
    fingerprint: str = ""
    window: tuple[float, float] | None = None
    pixel_mm: float | None = None


class _Wrapped(nn.Module):
    """What as_generator makes of a module; how its output is to be read is found out once, by a trial."""

    def __init__(self, module: nn.Module, latent_shape: tuple[int, ...], value_range: tuple[float, float], bound: dict):
        super().__init__()
        self.module, self.latent_dim, self.latent_shape = module, math.prod(latent_shape), latent_shape
        self.value_range, self.bound = value_range, bound
        self.first, self.grey = False, False

    def bound_for(self, z: Tensor) -> dict:
        """The further inputs of the module, for a batch like z."""
        return {k: v.to(z.device).expand(z.shape[0], *v.shape[1:]) if isinstance(v, Tensor) else v for k, v in self.bound.items()}

    def forward(self, z: Tensor) -> Tensor:
        x = self.module(z.reshape(z.shape[0], *self.latent_shape), **self.bound_for(z))
        x = x[0] if self.first else x
        x = x.mean(1, keepdim=True) if self.grey else x
        low, high = self.value_range
        return x if (low, high) == (-1, 1) else (x - low) * (2 / (high - low)) - 1


def as_generator(
    module: nn.Module,
    latent_dim: int,
    latent_shape: tuple[int, ...] | None = None,
    value_range: tuple[float, float] = (-1, 1),
    name: str = "own",
    **bound: object,
) -> nn.Module:
    """Any torch module that maps z to images as a generator of slices (B, 1, S, S) in [-1, 1], on the module's device.

    It holds a frozen copy in eval mode: the module itself stays as it is. `latent_shape` is the shape of one z where it is not
    (latent_dim,), such as (8, 4, 4) for a spatial latent of 128. `value_range` is that of the module's images. Further inputs of
    the module are `bound` by name; tensors among them have a first dimension of 1, which is expanded to the batch. Of several
    outputs the first is taken; colour is averaged to grey. UserError, in one line, when a trial gives anything else.
    """
    whole = lambda n: isinstance(n, int | np.integer) and not isinstance(n, bool) and n >= 1
    shape = (latent_dim,) if latent_shape is None else latent_shape
    if not whole(latent_dim) or not isinstance(shape, tuple | list) or not all(map(whole, shape)):
        raise UserError(f"latent_dim must be a whole number, and latent_shape some of them, not {latent_dim!r} and {latent_shape!r}")
    shape = tuple(int(n) for n in shape)
    if math.prod(shape) != latent_dim:
        raise UserError(f"latent_shape {shape} holds {math.prod(shape)} numbers, and latent_dim is {latent_dim}")
    if not isinstance(module, nn.Module):
        raise UserError(f"as_generator takes a torch module, not {type(module).__name__}: put the function into a module's forward")
    try:
        low, high = map(float, value_range)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not low < high or not math.isfinite(high - low):
        raise UserError(f"value_range must be (lowest, highest), not {value_range}")
    try:
        copied = copy.deepcopy(module)
    except Exception as error:  # a user's own module may hold anything
        raise UserError(
            f"the module cannot be copied ({_first_line(error)}): remove old weight_norm or spectral_norm, and detach tensors that it holds"
        ) from error
    try:
        wrapped = _Wrapped(copied, shape, (low, high), bound).eval().requires_grad_(False)
    except RuntimeError as error:
        raise UserError(f"the module cannot be frozen ({_first_line(error)}): give it before it is traced") from error
    weight = next((p for p in copied.parameters() if p.is_floating_point()), torch.zeros(1))
    trial = torch.zeros(2, *shape, device=device_of(wrapped), dtype=weight.dtype)
    try:
        with torch.no_grad():
            x = copied(trial, **wrapped.bound_for(trial))
    except Exception as error:
        raise UserError(
            f"the module does not take z of shape {tuple(trial.shape)} ({_first_line(error)}): "
            f"give its own latent_dim or latent_shape, and its further inputs by name"
        ) from error
    wrapped.first = isinstance(x, tuple | list)
    x = x[0] if wrapped.first else x
    shape_given = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
    if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[0] != 2 or x.shape[1] not in (1, 3) or x.shape[2] != x.shape[3]:
        raise UserError(f"a generator must map z (B, {latent_dim}) to images (B, 1 or 3, S, S); z {tuple(trial.shape)} gave {shape_given}")
    wrapped.grey = x.shape[1] == 3
    print_of = hashlib.sha256(f"{type(module).__qualname__} {shape} {(low, high)} {fingerprint_of_weights(copied)}".encode())
    for key, value in sorted(bound.items()):
        print_of.update(f"{key} {value.tolist() if isinstance(value, Tensor) else value!r}".encode())
    wrapped.info = GeneratorInfo(str(name), print_of.hexdigest()[:16])  # type: ignore[assignment]
    return wrapped


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def latent_dim_of(generator: nn.Module) -> int:
    """d; UserError for a module that is not wrapped yet."""
    latent_dim = getattr(generator, "latent_dim", None)
    if not isinstance(latent_dim, int):
        raise UserError(f"{type(generator).__name__} is not a generator yet: wrap it with lp.as_generator(module, latent_dim)")
    return latent_dim


def device_of(generator: nn.Module) -> torch.device:
    """Where the generator's weights are."""
    tensor = next(generator.parameters(), next(generator.buffers(), None))
    return tensor.device if tensor is not None else torch.device("cpu")


def info_of(generator: nn.Module) -> GeneratorInfo:
    """What is known of a generator; for a module that was neither wrapped nor loaded, its fingerprint."""
    info = getattr(generator, "info", None)
    return info if isinstance(info, GeneratorInfo) else GeneratorInfo(fingerprint=fingerprint_of_weights(generator))


def fingerprint_of_weights(module: nn.Module) -> str:
    """A short hash of a module's state, "" where it holds none."""
    digest, state = hashlib.sha256(), module.state_dict()
    for name, value in sorted(state.items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16] if state else ""


def draw_z(generator: nn.Module, n: int, seed: int | torch.Generator = 0) -> Tensor:
    """n random z (n, d) of the generator's prior, standard normal, on the CPU; the same for the same seed."""
    rng = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(int(seed))
    return torch.randn(n, latent_dim_of(generator), generator=rng)


@torch.no_grad()
def generate(generator: nn.Module, z: Tensor, batch: int = 128) -> Tensor:
    """Slices (N, 1, S, S) in [-1, 1] for z (N, d), on the CPU."""
    latent_dim_of(generator)
    device = device_of(generator)
    return torch.cat([generator(part.to(device)).cpu() for part in z.split(batch)])


def typical_z(generator: nn.Module, seed: int = 0, n: int = 256) -> Tensor:
    """Of n random z the one (d,) whose slice is nearest to the mean slice, as a starting point for strips."""
    z = draw_z(generator, n, seed)
    x = generate(generator, z)
    return z[(x - x.mean(0)).square().mean((1, 2, 3)).argmin()]
