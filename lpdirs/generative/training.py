"""Training the GAN and the VAE: one class each, a step at a time, for `lpdirs.checkpoints.train` to drive."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lpdirs.checkpoints import stream
from lpdirs.data.store import Loader, Slices
from lpdirs.errors import UserError
from lpdirs.generative.dcgan import Discriminator, Generator
from lpdirs.generative.vae import LOSSES, VAE, kl_per_dimension
from lpdirs.precision import autocast, check_precision, compiled


@dataclass(frozen=True)
class GANSettings:
    """The defaults are the paper's."""

    size: int = 128
    latent_dim: int = 32
    width: int = 128
    batch: int = 128
    lr: float = 2e-4
    beta1: float = 0.5
    noise: float = 0.0  # SD of the instance noise at the first step, falling linearly to 0 at `noise_steps`; the paper has none
    noise_steps: int = 0
    spectral_norm: bool = False  # on the discriminator
    ema: float = 0.0  # decay of the moving average of G's weights; 0: off, the paper's
    augment: bool = True
    precision: str = "fp32"  # or "bf16", by autocast
    compile: str = "off"  # or "default", or "reduce-overhead" (CUDA graphs)
    seed: int = 0


@dataclass(frozen=True)
class VAESettings:
    """The defaults are the paper's."""

    size: int = 128
    latent_dim: int = 32
    width: int = 64
    batch: int = 128
    lr: float = 1e-4
    loss: str = "paper"  # or "calibrated"
    kl_weight: float = 0.01
    augment: bool = True
    precision: str = "fp32"
    compile: str = "off"
    seed: int = 0


class GANTraining:
    """DCGAN with binary cross-entropy; labels of real slices are drawn from U[0.9, 1), as in the paper."""

    def __init__(self, slices: Slices, settings: GANSettings, device: str = "cpu"):
        s = self.settings = settings
        check_precision(s.precision)
        self.loader, self.device = Loader(slices, s.batch, s.seed, s.augment, device), device
        with torch.random.fork_rng():
            torch.manual_seed(s.seed)
            # channels last pays on GPUs; on CPUs a step takes 15 percent longer with it (measured at paper size)
            layout = torch.channels_last if torch.device(device).type == "cuda" else torch.contiguous_format
            self.generator = Generator(s.size, s.latent_dim, s.width).to(device, memory_format=layout)
            self.discriminator = Discriminator(s.size, s.width, s.spectral_norm).to(device, memory_format=layout)
        self._generate, self._discriminate = compiled(self.generator, s.compile), compiled(self.discriminator, s.compile)
        self.moving = self._frozen() if s.ema else None
        betas = (s.beta1, 0.999)
        self.optimiser_g = torch.optim.Adam(self.generator.parameters(), s.lr, betas, fused=True)
        self.optimiser_d = torch.optim.Adam(self.discriminator.parameters(), s.lr, betas, fused=True)

    def step(self, index: int) -> dict[str, float]:
        s, rng = self.settings, stream(self.settings.seed, 1, index)
        real = self.loader[index]
        labels = (0.9 + 0.1 * torch.rand(len(real), generator=rng)).to(self.device)
        z = torch.randn(len(real), s.latent_dim, generator=rng).to(self.device)
        with autocast(self.device, s.precision):
            fake = self._generate(z)
        judge = lambda x: self._judge(x, s.precision)
        # instance noise (Sonderby et al. 2017): the same amount on real and generated slices
        sd = s.noise * max(0.0, 1 - index / s.noise_steps) if s.noise_steps else s.noise
        blur = lambda x: x + sd * torch.randn(x.shape, generator=rng).to(x) if sd else x

        self.optimiser_d.zero_grad()
        on_fake = judge(blur(fake.detach()))
        loss_d = F.binary_cross_entropy_with_logits(judge(blur(real)), labels)
        loss_d = loss_d + F.binary_cross_entropy_with_logits(on_fake, torch.zeros_like(on_fake))
        loss_d.backward()
        self.optimiser_d.step()

        self.optimiser_g.zero_grad()
        self.discriminator.requires_grad_(False)  # its gradients are not needed here
        on_fake = judge(blur(fake))
        loss_g = F.binary_cross_entropy_with_logits(on_fake, torch.ones_like(on_fake))
        loss_g.backward()
        self.discriminator.requires_grad_(True)
        self.optimiser_g.step()
        if self.moving is not None:
            update_average(self.moving, self.generator, s.ema)
        both = torch.stack([loss_d.detach(), loss_g.detach()]).tolist()  # one wait for the device
        return {"loss_d": both[0], "loss_g": both[1]}

    @property
    def average(self) -> nn.Module:
        """The generator to keep, in eval mode: the moving average where `ema` is set, else a copy of the last."""
        return self._frozen() if self.moving is None else self.moving.eval()

    def _frozen(self) -> nn.Module:
        return copy.deepcopy(self.generator).eval().requires_grad_(False)

    def _judge(self, x: Tensor, precision: str) -> Tensor:
        with autocast(self.device, precision):
            return self._discriminate(x).float()

    def state_dict(self) -> dict:
        return {name: getattr(self, name).state_dict() for name in self._parts}

    def load_state_dict(self, state: dict) -> None:
        for name in self._parts:
            getattr(self, name).load_state_dict(state[name])

    @property
    def _parts(self) -> tuple[str, ...]:
        return ("generator", "discriminator", "optimiser_g", "optimiser_d") + (("moving",) if self.settings.ema else ())


class VAETraining:
    """The residual VAE with the paper's loss or a calibrated one."""

    def __init__(self, slices: Slices, settings: VAESettings, device: str = "cpu"):
        s = self.settings = settings
        if s.loss not in LOSSES:
            raise UserError(f"vae_loss must be one of {', '.join(LOSSES)}, not {s.loss!r}")
        self.loader, self.device = Loader(slices, s.batch, s.seed, s.augment, device), device
        with torch.random.fork_rng():
            torch.manual_seed(s.seed)
            self.vae = VAE(s.size, s.latent_dim, s.width).to(device)
        self._vae = compiled(self.vae, s.compile)
        self.optimiser = torch.optim.Adam(self.vae.parameters(), s.lr, fused=True)

    def step(self, index: int) -> dict[str, float]:
        s, rng = self.settings, stream(self.settings.seed, 2, index)
        x = self.loader[index]
        noise = torch.randn(len(x), s.latent_dim, generator=rng).to(self.device)
        with autocast(self.device, s.precision):
            reconstruction, mean, log_variance = (value.float() for value in self._vae(x, noise))
        error, kl = F.mse_loss(reconstruction, x), kl_per_dimension(mean, log_variance).sum()
        loss = LOSSES[s.loss](error, kl, s.kl_weight, x[0].numel())
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        values = torch.stack([loss.detach(), error.detach(), kl.detach()]).tolist()
        return dict(zip(("loss", "squared_error", "kl"), values, strict=True))

    def state_dict(self) -> dict:
        return {"vae": self.vae.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.vae.load_state_dict(state["vae"])
        self.optimiser.load_state_dict(state["optimiser"])


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * model, for weights and BatchNorm statistics alike."""
    for mine, theirs in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mine.dtype.is_floating_point:
            mine.lerp_(theirs, 1 - decay)
        else:
            mine.copy_(theirs)


@torch.no_grad()
def encode(vae: VAE, slices: Tensor, batch: int = 256) -> tuple[Tensor, Tensor]:
    """Mean and log variance of q(z|x) for slices (N, 1, S, S), each (N, latent_dim)."""
    vae.eval()
    parts = [vae.encoder(part) for part in slices.split(batch)]
    return torch.cat([m for m, _ in parts]), torch.cat([v for _, v in parts])
