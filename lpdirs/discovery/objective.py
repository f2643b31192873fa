"""Voynov and Babenko's objective on a frozen generator: find directions that a reconstructor can tell apart."""

import hashlib
from dataclasses import replace
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from lpdirs.base.checkpoints import NOT_MATHEMATICS, stream
from lpdirs.base.code import fingerprint_of_code
from lpdirs.base.compute import autocast, compiled
from lpdirs.base.settings import Settings, setting
from lpdirs.discovery.directions import DirectionMatrix, Directions, DirectionsInfo
from lpdirs.discovery.reconstructor import make_reconstructor
from lpdirs.models.frozen import faster
from lpdirs.models.generators import channels_of, device_of, draw_z, info_of, latent_dim_of, prior_of


class DiscoverySettings(Settings):
    """The defaults are the phantom profile's; the paper's are in notebooks/profiles/paper.yaml."""

    n_directions: int = setting(32, "K, the number of directions", ge=2, le=4096)
    basis: Literal["unit", "orthonormal"] = setting("unit", "unit (any K), or orthonormal (K at most latent_dim)")
    reconstructor: Literal["lenet", "resnet18", "resnet18-224"] = setting(
        "lenet", "lenet, resnet18 (as released) or resnet18-224 (resized to 224 px, as in a revision before)"
    )
    batch: int = setting(32, "pairs a step", "direction_batch", ge=2)
    shifts_per_z: int = setting(1, "pairs that share a z and its plain image, drawn once; 1: each its own, as in the paper", ge=1)
    steps: int = setting(500, "optimiser steps of A and R", "direction_steps", ge=1)
    lr_directions: float = setting(3e-3, "learning rate of Adam, for A", ge=0, le=10)
    lr_reconstructor: float = setting(2e-3, "learning rate of Adam, for R", gt=0, le=10)
    shift_scale: float = setting(6.0, "largest |shift|", gt=0)
    min_shift: float = setting(0.5, "smallest |shift|", ge=0)
    shift_weight: float = setting(0.25, "of the error in the shift, beside the cross-entropy of k", ge=0)
    start_sd: float | None = setting(
        None, "SD of A's entries at the start, to whose size the learning rate is relative; null: length 1 (0.1: the original code)", gt=0
    )
    freeze: bool = Field(False, description="A stays as it starts: only R is trained, to see how well given directions can be told apart")
    precision: Literal["fp32", "bf16"] = setting("fp32", "fp32, or bf16 by autocast (for GPUs)")
    compile: Literal["off", "default"] = setting("off", "off, or default (torch.compile, for GPUs)")
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _shifts(self) -> Self:
        if self.min_shift >= self.shift_scale:
            raise ValueError(f"min_shift must be less than shift_scale, not {self.min_shift:g} and {self.shift_scale:g}")
        return self


def draw_shifts(n: int, s: DiscoverySettings, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """k uniform over the directions, eps uniform in [-shift_scale, shift_scale] with |eps| >= min_shift; each (n,)."""
    k = torch.randint(s.n_directions, (n,), generator=rng)
    eps = s.shift_scale * (2 * torch.rand(n, generator=rng) - 1)
    return k, torch.where(eps < 0, -1.0, 1.0) * eps.abs().clamp(min=s.min_shift)


class Discovery:
    """Trains A and R together; the loss is cross-entropy(k) + shift_weight * mean |eps error|.

    On the generator's device. A begins at `start` where it is given (with as many directions as the settings say), else at random.
    """

    def __init__(self, generator: nn.Module, settings: DiscoverySettings, start: Directions | None = None):
        s, device, latent_dim = settings, device_of(generator), latent_dim_of(generator)
        self.settings, self.device, self._original = settings, device, generator
        self.generator = faster(generator, device, s.compile)
        with torch.random.fork_rng():
            torch.manual_seed(s.seed)
            self.matrix = DirectionMatrix(s.n_directions, latent_dim, s.basis, start, s.start_sd).to(device)
            self.reconstructor = make_reconstructor(s.reconstructor, s.n_directions, channels_of(generator)).to(device)
        self._curves = start if start is not None and start.bends and s.freeze else None
        self._begun_at = None if start is None else hashlib.sha256(start.matrix.float().cpu().numpy().tobytes()).hexdigest()[:16]
        self._reconstruct = compiled(self.reconstructor, s.compile)
        groups = [{"params": self.reconstructor.parameters(), "lr": s.lr_reconstructor}]
        if s.freeze:
            self.matrix.requires_grad_(False)
        else:
            groups.insert(0, {"params": self.matrix.parameters(), "lr": s.lr_directions})
        self.optimiser = torch.optim.Adam(groups, fused=True)

    def pairs(self, n: int, rng: torch.Generator, of_one_z: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """n fresh pairs, so many `of_one_z`: G(z), G(z + eps * a_k), k, eps. Only the shifted image carries a graph."""
        k, eps = (value.to(self.device) for value in draw_shifts(n, self.settings, rng))
        z = draw_z(self.generator, -(-n // of_one_z), rng).to(self.device)
        with torch.no_grad():
            plain = self.generator(z)
        if of_one_z > 1:
            plain, z = (x.repeat_interleave(of_one_z, 0)[:n] for x in (plain, z))
        moved = z + self.matrix(k, eps) if self._curves is None else self._curves.shift(z, k, eps)
        return plain, self.generator(moved), k, eps

    def step(self, index: int) -> dict[str, float]:
        s = self.settings
        with autocast(self.device, s.precision):
            plain, shifted, k, eps = self.pairs(s.batch, stream(s.seed, 4, index), s.shifts_per_z)
            logits, eps_hat = self._reconstruct(plain, shifted)
        loss_k, loss_eps = F.cross_entropy(logits.float(), k), (eps_hat.float() - eps).abs().mean()
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
        """What a checkpoint is of: all settings but how long it goes on, what A began at, the generator, and the code that trains."""
        code = fingerprint_of_code("import lpdirs.discovery.objective, lpdirs.base.checkpoints", without=NOT_MATHEMATICS)
        about = {"begun_at": self._begun_at, "generator": info_of(self._original).fingerprint, "code": code}
        return self.settings.by_flat_name("steps") | about

    def directions(self, **known: object) -> Directions:
        """A as it stands, with its generator and settings; `known` is what else there is to say in its DirectionsInfo."""
        s, of_generator = self.settings, info_of(self._original)
        info = {
            "method": "reconstructor",
            "seed": s.seed,
            "generator": of_generator.name,
            "generator_fingerprint": of_generator.fingerprint,
            "prior": prior_of(self._original).name,
        }
        found = self.matrix.directions(DirectionsInfo(**(info | {"shift_scale": s.shift_scale, "settings": s.model_dump()} | known)))
        return found if self._curves is None else replace(found, bends=self._curves.bends)

    def state_dict(self) -> dict:
        return {name: getattr(self, name).state_dict() for name in self._parts}

    def load_state_dict(self, state: dict) -> None:
        for name in self._parts:
            getattr(self, name).load_state_dict(state[name])

    _parts = ("matrix", "reconstructor", "optimiser")
