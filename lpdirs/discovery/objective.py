"""Voynov and Babenko's objective on a frozen generator: find directions that a reconstructor can tell apart."""

import hashlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from lpdirs.base.checked import Settings, setting
from lpdirs.base.checkpoints import NOT_MATHEMATICS, Task, stream, train
from lpdirs.base.code import fingerprint_of_code
from lpdirs.base.compute import PRECISION_HELP, autocast, compiled, precision_for
from lpdirs.base.errors import UserError, optional
from lpdirs.base.progress import Progress
from lpdirs.discovery.directions import Directions, DirectionsInfo
from lpdirs.discovery.registry import Found, method
from lpdirs.models.generators import Generator
from lpdirs.models.wrapping import faster


class DiscoverySettings(Settings):
    """The defaults are the phantom profile's; the paper's are in notebooks/profiles/paper.yaml."""

    n_directions: int = setting(32, "K, the number of directions", ge=2, le=4096)
    basis: Literal["unit", "orthonormal"] = setting("unit", "unit (any K), or orthonormal (K at most latent_dim)")
    reconstructor: Literal["lenet", "resnet18", "resnet18-224"] = setting(
        "lenet", "lenet, resnet18 (as released) or resnet18-224 (resized to 224 px, as in a revision before)"
    )
    batch: int = setting(32, "pairs a step", "direction_batch", ge=2, le=2**20)
    shifts_per_z: int = setting(1, "pairs that share a z and its plain image, drawn once; 1: each its own, as in the paper", ge=1, le=2**20)
    steps: int = setting(500, "optimiser steps of A and R", "direction_steps", ge=1, le=10**8)
    lr_directions: float = setting(3e-3, "learning rate of Adam, for A", ge=0, le=10)
    lr_reconstructor: float = setting(2e-3, "learning rate of Adam, for R", gt=0, le=10)
    shift_scale: float = setting(6.0, "largest |shift|", gt=0, le=10**6)
    min_shift: float = setting(0.5, "smallest |shift|", ge=0, le=10**6)
    shift_weight: float = setting(0.25, "of the error in the shift, beside the cross-entropy of k", ge=0, le=10**6)
    start_sd: float | None = setting(
        None, "SD of A's entries at the start, to whose size the learning rate is relative; null: length 1 (0.1: the original code)",
        gt=0, le=10**6,
    )  # fmt: skip
    freeze: bool = Field(False, description="A stays as it starts: only R is trained, to see how well given directions can be told apart")
    precision: Literal["auto", "fp32", "bf16"] = setting("auto", PRECISION_HELP)
    compile: Literal["off", "default"] = setting("off", "off, or default (torch.compile, for GPUs)")
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _shifts(self) -> Self:
        if self.min_shift >= self.shift_scale:
            raise ValueError(f"min_shift must be less than shift_scale, not {self.min_shift:g} and {self.shift_scale:g}")
        return self


class DirectionMatrix(nn.Module):
    """The trainable A: `basis` "unit" (unit-length, any K) or "orthonormal" (K <= d, matrix exponential).

    No bias, so that A(-shift) = -A(shift) exactly. The start is random, as in the paper, or a set of k `start` directions, of which
    "orthonormal" takes the nearest orthonormal ones in their order (QR).

    With `start_sd` the start is the original code's: entries of that SD, whose length stays as it is behind the division by it, so that
    Adam turns short columns faster; and for "orthonormal" the exponential of B - B^T with entries of B of SD 1, trained as B.
    """

    def __init__(self, k: int, latent_dim: int, basis: str = "unit", start: Directions | None = None, start_sd: float | None = None):
        super().__init__()
        if basis == "orthonormal" and k > latent_dim:
            raise UserError(
                f"{k} orthonormal directions do not fit in {latent_dim} latent dimensions: "
                f"set n_directions to at most {latent_dim}, or basis to 'unit'"
            )
        self.linear = nn.Linear(k, latent_dim, bias=False)  # columns of its weight (d, K) are the directions
        with torch.no_grad():
            columns = torch.randn(latent_dim, k) if start is None else start.matrix.T
            if columns.shape != (latent_dim, k):
                raise UserError(f"the start holds {columns.shape[1]} directions of {columns.shape[0]} dimensions, not {k} of {latent_dim}")
            length = columns.norm(dim=0) if start_sd is None or start is not None else 1 / start_sd
            self.linear.weight.copy_(columns / length)
        if basis == "orthonormal" and start_sd is not None and start is None:
            parametrize.register_parametrization(self.linear, "weight", SkewExponential(k), unsafe=True)
        elif basis == "orthonormal":
            parametrizations.orthogonal(self.linear, orthogonal_map="matrix_exp")
        else:
            parametrize.register_parametrization(self.linear, "weight", UnitColumns())

    def forward(self, k: Tensor, shift: Tensor) -> Tensor:
        """shift * a_k (B, d) for k (B,) and shift (B,)."""
        return shift[:, None] * self.linear.weight.T[k]

    def directions(self, info: DirectionsInfo | None = None) -> Directions:
        """A as it stands."""
        with torch.no_grad():
            return Directions(self.linear.weight.T.clone().cpu(), info or DirectionsInfo())


class SkewExponential(nn.Module):
    """The first k columns of exp(B - B^T), of a B (d, d) whose entries begin with SD 1."""

    def __init__(self, k: int):
        super().__init__()
        self.k = k

    def forward(self, half: Tensor) -> Tensor:
        return torch.linalg.matrix_exp(half - half.T)[:, : self.k]

    def right_inverse(self, weight: Tensor) -> Tensor:
        return torch.randn(len(weight), len(weight))


class UnitColumns(nn.Module):
    """Columns divided by their length."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight / weight.norm(dim=0, keepdim=True)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


def draw_shifts(n: int, s: DiscoverySettings, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """k uniform over the directions, shift uniform in [-shift_scale, shift_scale] with |shift| >= min_shift; each (n,)."""
    k = torch.randint(s.n_directions, (n,), generator=rng)
    shift = s.shift_scale * (2 * torch.rand(n, generator=rng) - 1)
    return k, torch.where(shift < 0, -1.0, 1.0) * shift.abs().clamp(min=s.min_shift)


class Discovery(Task):
    """Trains A and R together; the loss is cross-entropy(k) + shift_weight * mean |error of the shift|.

    On the generator's device. A begins at `start` where it is given (with as many directions as the settings say), else at random.
    """

    parts = ("matrix", "reconstructor", "optimiser")

    def __init__(self, generator: Generator, settings: DiscoverySettings, start: Directions | None = None):
        s, device = settings, generator.device
        self.settings, self.device, self.original = settings, device, generator
        self.precision, self.why = precision_for(device, s.precision)
        self.generator = faster(generator, s.compile, "fp32")
        if s.precision == "auto" and self.precision == "bf16" and not self._draws_in("bf16"):
            self.precision, self.why = "fp32", f"{generator.info.name} cannot draw in bf16"
        self._in_steps = faster(generator, s.compile, "bf16") if self.precision == "bf16" else self.generator
        with torch.random.fork_rng():
            torch.manual_seed(s.seed)
            self.matrix = DirectionMatrix(s.n_directions, generator.latent_dim, s.basis, start, s.start_sd).to(device)
            self.reconstructor = make_reconstructor(s.reconstructor, s.n_directions, generator.info.channels).to(device)
        self._curves = start if start is not None and start.bends and s.freeze else None
        self._begun_at = None if start is None else hashlib.sha256(start.matrix.float().cpu().numpy().tobytes()).hexdigest()[:16]
        self._reconstruct = compiled(self.reconstructor, s.compile)
        groups = [{"params": self.reconstructor.parameters(), "lr": s.lr_reconstructor}]
        if s.freeze:
            self.matrix.requires_grad_(False)
        else:
            groups.insert(0, {"params": self.matrix.parameters(), "lr": s.lr_directions})
        self.optimiser = torch.optim.Adam(groups, fused=True)

    def _draws_in(self, precision: str) -> bool:
        """Whether the generator draws at all in a number format: a user's own module may do anything."""
        try:
            with torch.no_grad(), autocast(self.device, precision):
                return bool(self.generator(self.generator.draw(2).to(self.device)).isfinite().all())
        except Exception:
            return False

    def pairs(self, n: int, rng: torch.Generator, of_one_z: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """n fresh pairs, so many `of_one_z`: G(z), G(z + shift * a_k), k, shift. Only the shifted image carries a graph."""
        generator = self._in_steps if torch.is_autocast_enabled(self.device.type) else self.generator
        k, shift = (value.to(self.device) for value in draw_shifts(n, self.settings, rng))
        z = self.generator.draw(-(-n // of_one_z), rng).to(self.device)
        with torch.no_grad():
            plain = generator(z)
        if of_one_z > 1:
            plain, z = (x.repeat_interleave(of_one_z, 0)[:n] for x in (plain, z))
        moved = z + self.matrix(k, shift) if self._curves is None else self._curves.shift(z, k, shift)
        return plain, generator(moved), k, shift

    def step(self, index: int) -> dict[str, float]:
        s = self.settings
        with autocast(self.device, self.precision):
            plain, shifted, k, shift = self.pairs(s.batch, stream(s.seed, 4, index), s.shifts_per_z)
            logits, guess = self._reconstruct(plain, shifted)
        loss_k, loss_eps = F.cross_entropy(logits.float(), k), (guess.float() - shift).abs().mean()
        loss = loss_k + s.shift_weight * loss_eps
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        right = (logits.argmax(1) == k).float().mean()
        values = torch.stack([x.detach() for x in (loss, loss_k, loss_eps, right)]).tolist()
        return dict(zip(("loss", "loss_k", "loss_eps", "accuracy"), values, strict=True))

    @torch.no_grad()
    def accuracy(self, n: int = 1024, batch: int = 128) -> float:
        """Share of k that the co-trained R predicts right on n fresh pairs (the paper's RCA)."""
        self.reconstructor.eval()
        right = 0
        for i in range(0, n, batch):
            plain, shifted, k, _ = self.pairs(min(batch, n - i), stream(self.settings.seed, 5, i))
            right += int((self.reconstructor(plain, shifted)[0].argmax(1) == k).sum())
        self.reconstructor.train()
        return right / n

    def identity(self) -> dict:
        """What a checkpoint is of: all settings but how long it goes on, the generator, the start and the code that searches."""
        code = fingerprint_of_code("import lpdirs.discovery.objective, lpdirs.base.checkpoints", without=NOT_MATHEMATICS)
        about = {"precision": self.precision, "begun_at": self._begun_at, "generator": self.original.info.fingerprint, "code": code}
        return self.settings.by_flat_name("steps") | about

    def directions(self, **known: object) -> Directions:
        """A as it stands, with its generator and settings; `known` is what else there is to say in its DirectionsInfo."""
        s, generator = self.settings, self.original
        info: dict[str, object] = {"method": "reconstructor", "basis": s.basis, "reconstructor": s.reconstructor, "seed": s.seed}
        info |= {"generator": generator.info.name, "generator_fingerprint": generator.info.fingerprint, "prior": generator.prior.name}
        info |= {"shift_scale": s.shift_scale, "settings": s.model_dump() | {"precision": self.precision}}
        found = self.matrix.directions(DirectionsInfo(**(info | known)))
        return found if self._curves is None else replace(found, bends=self._curves.bends)


@method(
    "reconstructor", "the paper's method", "A and R trained together (Voynov and Babenko 2020), the paper's", gradients=True,
    needs=("settings", "folder"),
)  # fmt: skip
def reconstructor(
    generator: Generator, k: int, seed: int, settings: DiscoverySettings | None = None, folder: str | Path | None = None
) -> Found:
    """K directions by a search with `settings` (n_directions and seed are replaced), resumed from `folder` where one is given."""
    search = Discovery(generator, (settings or DiscoverySettings()).but(n_directions=k, seed=seed))
    with tempfile.TemporaryDirectory() as temporary:
        train(search, search.settings.steps, Path(folder or temporary), search.identity(), report=Progress("searching directions"))
    found = search.directions()
    return Found(found.matrix, notes={"info": found.info})


LEAST = 32  # px that LeNet's three convolutions need; smaller images are enlarged


class LeNet(nn.Module):
    """LeNet-like R with BatchNorm and mean pooling: 74.6 k parameters at K = 32, 80.4 k at K = 100."""

    def __init__(self, k: int, width: int = 2, channels: int = 1):
        super().__init__()
        c1, c2, c3, hidden = 3 * width, 8 * width, 60 * width, 42 * width
        self.features = nn.Sequential(
            *(nn.Conv2d(2 * channels, c1, 5), nn.BatchNorm2d(c1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(c1, c2, 5), nn.BatchNorm2d(c2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(c2, c3, 5), nn.BatchNorm2d(c3), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )
        head = lambda n: nn.Sequential(nn.Linear(c3, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, n))
        self.which, self.how_far = head(k), head(1)

    def forward(self, x: Tensor, shifted: Tensor) -> tuple[Tensor, Tensor]:
        """Both (B, C, S, S) in [-1, 1]; logits of k (B, K) and eps (B,)."""
        pair = torch.cat([x, shifted], 1)
        if pair.shape[-1] < LEAST:
            pair = F.interpolate(pair, (LEAST, LEAST), mode="bilinear", align_corners=False)
        h = self.features(pair)
        return self.which(h), self.how_far(h).squeeze(1)


class ResNet18(nn.Module):
    """torchvision's ResNet-18 on the two slices' channels: as they are, which is what the original code does as released, or enlarged to
    `upsample` px and normalised, as in a revision before."""

    def __init__(self, k: int, upsample: int = 0, channels: int = 1):
        super().__init__()
        resnet18 = optional("torchvision.models", "features").resnet18  # here, since it takes seconds to import and LeNet does without

        self.upsample = upsample
        self.features = resnet18(weights=None)
        self.features.conv1 = nn.Conv2d(2 * channels, 64, 7, 2, 3, bias=False)
        nn.init.kaiming_normal_(self.features.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.features.fc = nn.Identity()
        self.which, self.how_far = nn.Linear(512, k), nn.Linear(512, 1)

    def forward(self, x: Tensor, shifted: Tensor) -> tuple[Tensor, Tensor]:
        """Both (B, C, S, S) in [-1, 1]; logits of k (B, K) and eps (B,)."""
        pair = torch.cat([x, shifted], 1)
        if self.upsample:
            pair = ((pair + 1) / 2 - 0.456) / 0.224
            pair = F.interpolate(pair, (self.upsample, self.upsample), mode="bicubic", align_corners=False)
        h = self.features(pair)
        return self.which(h), self.how_far(h).squeeze(1)


def make_reconstructor(kind: str, k: int, channels: int = 1) -> nn.Module:
    """R for k directions of images with `channels`.

    `kind` is "lenet", "resnet18" (as the original code was released) or "resnet18-224" (resized to 224 px, as in a revision before).
    """
    if kind == "lenet":
        return LeNet(k, channels=channels)
    if kind in ("resnet18", "resnet18-224"):
        # channels last: a step takes 5 to 10 percent less on CPUs too
        return ResNet18(k, 224 if kind == "resnet18-224" else 0, channels).to(memory_format=torch.channels_last)
    raise UserError(f"reconstructor must be 'lenet', 'resnet18' or 'resnet18-224', not {kind!r}")
