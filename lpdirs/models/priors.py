"""What z is drawn from: samples, the unit in which shifts are counted, and how typical a z is."""

import copy
import hashlib
from collections.abc import Callable
from numbers import Real

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from lpdirs.base.errors import UserError, first_line

MANY = 4096  # samples from which the unit and distances are known


def _standard(n: int, d: int, rng: torch.Generator) -> Tensor:
    return torch.randn(n, d, generator=rng)


class Prior:
    """One of `normal` (the default everywhere), `uniform`, `sphere`, `from_samples` and `mapped`, or one's own: `Prior(name, draw)`, where
    draw(n, d, rng) gives latents (n, d) that the torch.Generator `rng` alone decides.

    `unit` is the standard deviation of a coordinate, averaged over coordinates: z is counted in it, so that a shift of 1 is as far in any
    latent space as in N(0, I).
    """

    def __init__(self, name: str, draw: Callable[[int, int, torch.Generator], Tensor], about: str = ""):
        if name == "normal" and draw is not _standard:
            raise UserError('"normal" is N(0, I): give a prior of your own another name; Prior.normal(sd) is N(0, sd^2 I)')
        self.name, self._draw, self.about = name, draw, about or name
        self._known: dict[int, tuple[float, Tensor, Tensor, np.ndarray]] = {}

    def draw(self, n: int, d: int, rng: torch.Generator) -> Tensor:
        """n latents (n, d) as the module takes them, float32, on the CPU."""
        return self._draw(n, d, rng)

    def check(self, d: int) -> None:
        """UserError unless it draws finite latents (n, d), the same ones from the same seed."""
        one, again = (self._draw(3, d, torch.Generator().manual_seed(0)) for _ in range(2))
        if not isinstance(one, Tensor) or not one.is_floating_point() or one.shape != (3, d) or not one.isfinite().all():
            given = f"{one.dtype} {tuple(one.shape)}" if isinstance(one, Tensor) else type(one).__name__
            raise UserError(f"the prior {self.name} must draw finite latents as a tensor (3, {d}) of floating-point numbers, not {given}")
        if not torch.equal(one, again):
            raise UserError(
                f"the prior {self.name} draws other latents from the same seed: use its third argument, torch.randn(..., generator=rng)"
            )

    def unit(self, d: int) -> float:
        """The standard deviation of a coordinate."""
        return 1.0 if self.name == "normal" else self._measure(d)[0]

    def middle(self, d: int) -> tuple[Tensor, Tensor]:
        """Mean and SD of each coordinate (d,), in the unit."""
        if self.name == "normal":
            return torch.zeros(d), torch.ones(d)
        unit, mean, scale, _ = self._measure(d)
        return mean / unit, scale / unit

    def typicality(self, z: Tensor) -> np.ndarray:
        """For latents (N, d) as the module takes them, the share of the prior that lies further from its middle, (N,)."""
        if self.name == "normal":
            return stats.chi2.sf(z.double().square().sum(1).numpy(), z.shape[1])
        _, mean, scale, distances = self._measure(z.shape[1])
        own = ((z - mean) / scale).double().square().sum(1).numpy()
        return 1 - np.searchsorted(distances, own, side="left") / len(distances)

    def _measure(self, d: int) -> tuple[float, Tensor, Tensor, np.ndarray]:
        if d not in self._known:
            z = self.draw(MANY, d, torch.Generator().manual_seed(0))
            mean, scale = z.mean(0), z.std(0).clamp(min=1e-6 * float(z.std()) + 1e-12)
            distances = np.sort(((z - mean) / scale).double().square().sum(1).numpy())
            self._known[d] = float(scale.mean()), mean, scale, distances
        return self._known[d]

    @classmethod
    def normal(cls, sd: float = 1.0) -> "Prior":
        """N(0, sd^2 I)."""
        if not _is_positive(sd):
            raise UserError(f"the sd of a normal prior must be a number above 0, not {sd!r}")
        return cls("normal", _standard) if sd == 1 else cls(f"normal {sd:g}", lambda n, d, rng: sd * _standard(n, d, rng))

    @classmethod
    def uniform(cls, low: float = -1.0, high: float = 1.0) -> "Prior":
        """Each coordinate from `low` to `high`."""
        if not all(isinstance(end, int | float) for end in (low, high)) or not low < high:
            raise UserError(f"a uniform prior goes from low to high, not from {low} to {high}")
        return cls("uniform", lambda n, d, rng: low + (high - low) * torch.rand(n, d, generator=rng), f"uniform {low} {high}")

    @classmethod
    def sphere(cls, radius: float | None = None) -> "Prior":
        """Evenly on a sphere about 0; of radius sqrt(d) where none is given."""
        if radius is not None and not _is_positive(radius):
            raise UserError(f"the radius of a sphere must be a number above 0, not {radius!r}")

        def draw(n: int, d: int, rng: torch.Generator) -> Tensor:
            z = torch.randn(n, d, generator=rng)
            return z / z.norm(dim=1, keepdim=True) * (radius or d**0.5)

        return cls("sphere", draw, f"sphere {radius}")

    @classmethod
    def from_samples(cls, samples: Tensor) -> "Prior":
        """One of the latents in `samples` (N, ...), each with as many numbers as the generator takes, at random: of encoded images, say."""
        if not isinstance(samples, Tensor) or samples.ndim < 2 or len(samples) < 2 or not samples.isfinite().all():
            raise UserError("a prior from samples needs a tensor of at least two latents (N, ...), all of them finite")
        rows = samples.detach().flatten(1).float().cpu()

        def draw(n: int, d: int, rng: torch.Generator) -> Tensor:
            if rows.shape[1] != d:
                raise UserError(f"the prior's samples are of {rows.shape[1]} numbers, and the generator takes {d}")
            return rows[torch.randint(len(rows), (n,), generator=rng)]

        return cls("samples", draw, f"samples {hashlib.sha256(rows.numpy().tobytes()).hexdigest()[:16]}")

    @classmethod
    def mapped(cls, network: nn.Module, z_dim: int, of: "Prior | None" = None, inputs: tuple = ()) -> "Prior":
        """What `network` makes of z (N, z_dim) of another prior, by default normal: StyleGAN's W. `inputs` are what else it takes, such as
        a class label, (1, ...) each or None. Where a latent is several of them (W+), each is the same one."""
        if not isinstance(network, nn.Module):
            raise UserError(f"the mapping network must be a torch module, not {type(network).__name__}")
        try:
            own = copy.deepcopy(network).eval().requires_grad_(False)
        except Exception as error:  # a user's own module may hold anything
            raise UserError(f"the mapping network cannot be copied ({first_line(error)})") from error
        inner = of or cls.normal()
        like = next((p for p in own.parameters() if p.is_floating_point()), torch.zeros(1))

        def mapped(z: Tensor) -> Tensor:
            further = [v.to(like.device).expand(len(z), *v.shape[1:]) if isinstance(v, Tensor) and v.ndim else v for v in inputs]
            given = own(z.to(like), *further)
            return given[0] if isinstance(given, tuple | list) else given

        @torch.no_grad()
        def draw(n: int, d: int, rng: torch.Generator) -> Tensor:
            rows = torch.cat([mapped(part).flatten(1).float().cpu() for part in inner.draw(n, z_dim, rng).split(256)])
            if d % rows.shape[1]:
                raise UserError(f"the prior gives latents of {rows.shape[1]} numbers, and the generator takes {d}")
            return rows.repeat(1, d // rows.shape[1])

        weights = [v.detach().cpu().float().numpy().tobytes() for v in own.state_dict().values() if v.is_floating_point()]
        weights += [v.detach().cpu().float().numpy().tobytes() for v in inputs if isinstance(v, Tensor)]
        try:
            with torch.no_grad():
                mapped(inner.draw(2, z_dim, torch.Generator().manual_seed(0)))
        except Exception as error:  # a user's own module may do anything
            raise UserError(
                f"the mapping network does not take z of shape (N, {z_dim}){' and its inputs' if inputs else ' alone'} "
                f"({first_line(error, 120)}): give what else it takes in inputs=(...)"
            ) from error
        return cls("mapped", draw, f"mapped {inner.about} {z_dim} {hashlib.sha256(b''.join(weights)).hexdigest()[:16]}")


def _is_positive(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < float("inf")
