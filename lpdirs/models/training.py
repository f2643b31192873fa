"""Training the GAN and the VAE: one class each, a step at a time, for `lpdirs.base.checkpoints.train` to drive."""

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from lpdirs.base.checked import Settings, Side, setting
from lpdirs.base.checkpoints import NOT_MATHEMATICS, Task, stream
from lpdirs.base.code import fingerprint_of_code
from lpdirs.base.compute import PRECISION_HELP, autocast, compiled, precision_for
from lpdirs.data.store import Loader, Slices
from lpdirs.models.generators import Generator, copied
from lpdirs.models.networks import LOSSES, VAE, Discriminator, GeneratorNetwork, kl_per_dimension

WIDE = 1024  # channels, above which channels last does not pay on CPUs


class TrainingSettings(Settings):
    """What both trainings have. The defaults are the phantom profile's; the paper's are in notebooks/profiles/paper.yaml."""

    size: Side = setting(64, "width and height, px")
    latent_dim: int = setting(32, "dimensions of z", ge=1, le=4096)
    augment: bool | Literal["wide"] = setting(False, "the paper's random affine; wide: turns, shifts and stretches, known of each slice")
    precision: Literal["auto", "fp32", "bf16"] = setting("auto", PRECISION_HELP)
    compile: Literal["off", "default"] = setting("off", "off, or default (torch.compile, for GPUs)")
    seed: int = Field(0, ge=0)
    steps: int | None = None
    epochs: float | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.steps is None and self.epochs is None:
            raise ValueError(f"{type(self).model_fields['steps'].title} or {type(self).model_fields['epochs'].title} must be given")
        return self


class GANSettings(TrainingSettings):
    """Of the DCGAN."""

    width: int = setting(16, "channels of the last stage of G", "gan_width", ge=1, le=1024)
    batch: int = setting(64, "slices a step", "gan_batch", ge=2, le=2**20)
    steps: int | None = setting(2000, "optimiser steps", "gan_steps", ge=1, le=10**8)
    epochs: float | None = setting(None, "passes over the data, where gan_steps is null", "gan_epochs", gt=0, le=10**6)
    lr: float = setting(4e-4, "learning rate of Adam, for G and D", "gan_lr", gt=0, le=1)
    beta1: float = Field(0.5, ge=0, lt=1)
    noise: float = setting(0.4, "SD of the instance noise at the start, in units of [-1, 1]; the paper has none", "gan_noise", ge=0, le=10)
    noise_steps: int = setting(2000, "steps in which it falls to 0; 0: it stays", "gan_noise_steps", ge=0, le=10**8)
    spectral_norm: bool = setting(False, "of the layers of D", "gan_spectral_norm")
    ema: float = setting(0.99, "decay of the moving average of G's weights; 0: none", "gan_ema", ge=0, lt=1)
    diffaugment: bool = setting(False, "shift and cut out what D sees, real and generated (for small data sets)", "gan_diffaugment")
    r1: float = setting(0.0, "weight of the squared gradient of D on real slices (R1); 0: none", "gan_r1", ge=0, le=10**6)
    halving: int = setting(0, "steps in which the learning rate halves; 0: it stays", "gan_halving", ge=0, le=10**8)


class VAESettings(TrainingSettings):
    """Of the VAE."""

    width: int = setting(8, "channels of the first stage", "vae_width", ge=4, le=1024)
    batch: int = setting(32, "slices a step", "vae_batch", ge=2, le=2**20)
    steps: int | None = setting(1200, "optimiser steps", "vae_steps", ge=1, le=10**8)
    epochs: float | None = setting(None, "passes over the data, where vae_steps is null", "vae_epochs", gt=0, le=10**6)
    lr: float = setting(2e-3, "learning rate of Adam", "vae_lr", gt=0, le=1)
    loss: Literal["paper", "calibrated"] = setting("calibrated", "paper, or calibrated (sigma-VAE)", "vae_loss")
    kl_weight: float = setting(3.0, "of the KL: 0.01 with the paper's loss, beta with the calibrated one", "vae_kl_weight", ge=0, le=10**6)
    halving: int = setting(0, "steps in which the learning rate halves; 0: it stays", "vae_halving", ge=0, le=10**8)


def steps_of(settings: GANSettings | VAESettings, slices: Slices) -> int:
    """Optimiser steps: as the settings say, or as many as their epochs take."""
    return settings.steps or max(1, round((settings.epochs or 0) * len(slices) / settings.batch))


class Training(Task):
    """What both trainings have: the loader, the device, and the number format that is computed in, with why."""

    def __init__(self, slices: Slices, settings: GANSettings | VAESettings, device: str):
        self.device = device
        self.loader = Loader(slices, settings.batch, settings.seed, settings.augment, device)
        self.precision, self.why = precision_for(device, settings.precision)

    def identity(self, data: str) -> dict:
        """What a checkpoint is of: all settings but how long it goes on, the number format, the data's fingerprint, and the code."""
        code = fingerprint_of_code("import lpdirs.models.training, lpdirs.base.checkpoints", without=NOT_MATHEMATICS)
        return self.settings.by_flat_name("steps", "epochs") | {"precision": self.precision, "data": data, "code": code}  # type: ignore[attr-defined]


class GANTraining(Training):
    """DCGAN with binary cross-entropy; labels of real slices are drawn from U[0.9, 1), as in the paper."""

    def __init__(self, slices: Slices, settings: GANSettings, device: str = "cpu"):
        super().__init__(slices, settings, device)
        s = self.settings = settings
        with torch.random.fork_rng():
            torch.manual_seed(s.seed)
            self.generator = on(device, GeneratorNetwork(s.size, s.latent_dim, s.width), s.compile)
            self.discriminator = on(device, Discriminator(s.size, s.width, s.spectral_norm), s.compile)
        self._generate, self._discriminate = compiled(self.generator, s.compile), compiled(self.discriminator, s.compile)
        self.moving = self._frozen() if s.ema else None
        betas = (s.beta1, 0.999)
        self.optimiser_g = torch.optim.Adam(self.generator.parameters(), s.lr, betas, fused=True)
        self.optimiser_d = torch.optim.Adam(self.discriminator.parameters(), s.lr, betas, fused=True)
        self.parts = ("generator", "discriminator", "optimiser_g", "optimiser_d", *(["moving"] if s.ema else []))

    def step(self, index: int) -> dict[str, float]:
        s, rng = self.settings, stream(self.settings.seed, 1, index, device=self.device)
        real = self.loader[index]
        labels = 0.9 + 0.1 * torch.rand(len(real), generator=rng, device=self.device)
        z = torch.randn(len(real), s.latent_dim, generator=rng, device=self.device)
        for optimiser in (self.optimiser_g, self.optimiser_d):
            halve(optimiser, s.lr, s.halving, index)
        with autocast(self.device, self.precision):
            fake = self._generate(z)
        # instance noise (Sonderby et al. 2017): the same amount on real and generated slices
        sd = s.noise * max(0.0, 1 - index / s.noise_steps) if s.noise_steps else s.noise
        seen = lambda x: diffaugment(x, rng) if s.diffaugment else x
        blur = lambda x: seen(x) + sd * torch.randn(x.shape, generator=rng, device=self.device) if sd else seen(x)

        self.optimiser_d.zero_grad()
        on_fake = self._judge(blur(fake.detach()))
        seen_real = blur(real).requires_grad_(s.r1 > 0)
        on_real = self._judge(seen_real)
        loss_d = F.binary_cross_entropy_with_logits(on_real, labels)
        loss_d = loss_d + F.binary_cross_entropy_with_logits(on_fake, torch.zeros_like(on_fake))
        (loss_d + s.r1 / 2 * steepness(on_real, seen_real) if s.r1 else loss_d).backward()
        self.optimiser_d.step()

        self.optimiser_g.zero_grad()
        self.discriminator.requires_grad_(False)  # its gradients are not needed here
        on_fake = self._judge(blur(fake))
        loss_g = F.binary_cross_entropy_with_logits(on_fake, torch.ones_like(on_fake))
        loss_g.backward()
        self.discriminator.requires_grad_(True)
        self.optimiser_g.step()
        if self.moving is not None:
            update_average(self.moving, self.generator, s.ema)
        both = torch.stack([loss_d.detach(), loss_g.detach()]).tolist()  # one wait for the device
        return {"loss_d": both[0], "loss_g": both[1]}

    @property
    def average(self) -> Generator:
        """The generator to keep: the moving average where `ema` is set, else a copy of the last."""
        return Generator(copied((self._frozen() if self.moving is None else self.moving).eval()), self.settings.latent_dim)

    def _frozen(self) -> nn.Module:
        return copied(self.generator).eval().requires_grad_(False)

    def _judge(self, x: Tensor) -> Tensor:
        with autocast(self.device, self.precision):
            return self._discriminate(x).float()


class VAETraining(Training):
    """The residual VAE with the paper's loss or a calibrated one."""

    parts = ("vae", "optimiser")

    def __init__(self, slices: Slices, settings: VAESettings, device: str = "cpu"):
        super().__init__(slices, settings, device)
        s = self.settings = settings
        with torch.random.fork_rng():
            torch.manual_seed(s.seed)
            self.vae = on(device, VAE(s.size, s.latent_dim, s.width), s.compile)
        self._vae = compiled(self.vae, s.compile)
        self.optimiser = torch.optim.Adam(self.vae.parameters(), s.lr, fused=True)

    def step(self, index: int) -> dict[str, float]:
        s, rng = self.settings, stream(self.settings.seed, 2, index, device=self.device)
        x = self.loader[index]
        noise = torch.randn(len(x), s.latent_dim, generator=rng, device=self.device)
        halve(self.optimiser, s.lr, s.halving, index)
        with autocast(self.device, self.precision):
            reconstruction, mean, log_variance = (value.float() for value in self._vae(x, noise))
        error, kl = F.mse_loss(reconstruction, x), kl_per_dimension(mean, log_variance).sum()
        loss = LOSSES[s.loss](error, kl, s.kl_weight, x[0].numel())
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        values = torch.stack([loss.detach(), error.detach(), kl.detach()]).tolist()
        return dict(zip(("loss", "squared_error", "kl"), values, strict=True))


def on(device: str, network: nn.Module, compile: str = "off") -> nn.Module:
    """The network on the device, channels last: a step takes 0.6 to 0.97 of the time.

    Not the paper's GAN on a CPU, with which it takes 1.15 to 1.25, nor what torch.compile makes of it, which fails on the way back
    (torch 2.11, H200).
    """
    widest = max(max(weight.shape[:2]) for weight in network.parameters() if weight.ndim == 4)
    wide = torch.device(device).type == "cpu" and widest > WIDE
    layout = torch.channels_last if compile == "off" and not wide else torch.contiguous_format
    return network.to(device).to(memory_format=layout)


def halve(optimiser: torch.optim.Optimizer, lr: float, halving: int, index: int) -> None:
    """Set the learning rate of step `index`: it halves every `halving` steps, whatever the number of steps; 0: it stays."""
    for group in optimiser.param_groups if halving else ():
        group["lr"] = lr * 0.5 ** (index / halving)


def steepness(logits: Tensor, x: Tensor) -> Tensor:
    """Mean squared length of the gradient of D at x (R1, Mescheder et al. 2018, equation 9), a scalar that carries a graph."""
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return gradient.float().square().flatten(1).sum(1).mean()


def diffaugment(x: Tensor, rng: torch.Generator) -> Tensor:
    """Slices (B, 1, S, S), each shifted by up to an eighth of S, with a square of S/2 cut out; differentiable (Zhao et al. 2020).

    What leaves the frame is lost, what enters it is air (-1); the square becomes 0, the middle of the range.
    """
    n, size, device = len(x), x.shape[-1], x.device
    shift = torch.randint(-(size // 8), size // 8 + 1, (n, 2), generator=rng, device=rng.device).to(device)
    corner = torch.randint(-(size // 4), size - size // 4 + 1, (n, 2), generator=rng, device=rng.device).to(device)
    index = torch.arange(size, device=device)
    rows, columns = (index[None] + shift[:, i : i + 1] + 1 for i in (0, 1))  # into a frame with one pixel of air around
    padded = F.pad(x[:, 0] + 1, (1, 1, 1, 1))
    rows, columns = (places.clamp(0, size + 1) for places in (rows, columns))
    moved = padded[torch.arange(n, device=device)[:, None, None], rows[:, :, None], columns[:, None, :]] - 1
    inside = [(index[None] >= corner[:, i : i + 1]) & (index[None] < corner[:, i : i + 1] + size // 2) for i in (0, 1)]
    cut = inside[0][:, :, None] & inside[1][:, None, :]
    return moved.masked_fill(cut, 0)[:, None]


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * model, for weights and BatchNorm statistics alike."""
    pairs = list(zip(average.state_dict().values(), model.state_dict().values(), strict=True))
    numbers = [pair for pair in pairs if pair[0].dtype.is_floating_point]
    torch._foreach_lerp_([mine for mine, _ in numbers], [theirs for _, theirs in numbers], 1 - decay)
    for mine, theirs in pairs:
        if not mine.dtype.is_floating_point:
            mine.copy_(theirs)


@torch.no_grad()
def encode(vae: VAE, slices: Tensor, batch: int = 256) -> tuple[Tensor, Tensor]:
    """Mean and log variance of q(z|x) for slices (N, 1, S, S), each (N, latent_dim), on the CPU; the VAE stays where it is."""
    device = next(vae.parameters()).device
    parts = [vae.eval().encoder(part.to(device)) for part in slices.split(batch)]
    return torch.cat([mean.cpu() for mean, _ in parts]), torch.cat([spread.cpu() for _, spread in parts])
