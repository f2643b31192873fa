"""Voynov and Babenko's objective on a frozen generator: find directions that a reconstructor can tell apart."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lpdirs.checkpoints import stream
from lpdirs.discovery.directions import DirectionMatrix, Directions
from lpdirs.discovery.reconstructor import make_reconstructor
from lpdirs.generative.frozen import faster
from lpdirs.precision import autocast, check_precision, compiled


@dataclass(frozen=True)
class DiscoverySettings:
    """The defaults are the paper's."""

    n_directions: int = 32
    basis: str = "unit"
    reconstructor: str = "lenet"
    batch: int = 128
    lr_directions: float = 1e-4
    lr_reconstructor: float = 1e-4
    shift_scale: float = 6.0
    min_shift: float = 0.5
    shift_weight: float = 0.25
    freeze: bool = False  # A stays as it starts: only R is trained, to see how well given directions can be told apart
    precision: str = "fp32"  # or "bf16", by autocast
    compile: str = "off"  # or "default", or "reduce-overhead" (CUDA graphs)
    seed: int = 0


def draw_shifts(n: int, s: DiscoverySettings, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """k uniform over the directions, eps uniform in [-shift_scale, shift_scale] with |eps| >= min_shift; each (n,)."""
    k = torch.randint(s.n_directions, (n,), generator=rng)
    eps = s.shift_scale * (2 * torch.rand(n, generator=rng) - 1)
    return k, torch.where(eps < 0, -1.0, 1.0) * eps.abs().clamp(min=s.min_shift)


class Discovery:
    """Trains A and R together; the loss is cross-entropy(k) + shift_weight * mean |eps error|.

    A begins at `start` where it is given (with as many directions as the settings say), else at random.
    """

    def __init__(self, generator: nn.Module, settings: DiscoverySettings, device: str = "cpu", start: Directions | None = None):
        s = self.settings = settings
        check_precision(s.precision)
        self.generator, self.device = faster(generator, device, s.compile), device
        with torch.random.fork_rng():
            torch.manual_seed(s.seed)
            self.matrix = DirectionMatrix(s.n_directions, generator.latent_dim, s.basis, start).to(device)
            self.reconstructor = make_reconstructor(s.reconstructor, s.n_directions).to(device)
        self._reconstruct = compiled(self.reconstructor, s.compile)
        groups = [{"params": self.reconstructor.parameters(), "lr": s.lr_reconstructor}]
        if s.freeze:
            self.matrix.requires_grad_(False)
        else:
            groups.insert(0, {"params": self.matrix.parameters(), "lr": s.lr_directions})
        self.optimiser = torch.optim.Adam(groups, fused=True)

    def pairs(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """n fresh pairs: G(z), G(z + eps * a_k), k, eps. Only the shifted image carries a graph."""
        k, eps = (value.to(self.device) for value in draw_shifts(n, self.settings, rng))
        z = torch.randn(n, self.generator.latent_dim, generator=rng).to(self.device)
        with torch.no_grad():
            plain = self.generator(z)
        return plain, self.generator(z + self.matrix(k, eps)), k, eps

    def step(self, index: int) -> dict[str, float]:
        s = self.settings
        with autocast(self.device, s.precision):
            plain, shifted, k, eps = self.pairs(s.batch, stream(s.seed, 4, index))
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

    def directions(self, **metadata) -> Directions:
        return self.matrix.directions(**metadata)

    def state_dict(self) -> dict:
        return {name: getattr(self, name).state_dict() for name in self._parts}

    def load_state_dict(self, state: dict) -> None:
        for name in self._parts:
            getattr(self, name).load_state_dict(state[name])

    _parts = ("matrix", "reconstructor", "optimiser")
