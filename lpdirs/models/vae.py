"""The residual VAE of the paper, for 32 to 256 px from one definition, and its losses."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lpdirs.models.dcgan import stages

SLOPE = 11 / 48  # of the leaky ReLU: the mean of the randomised ReLU's range, which the original used


class Residual(nn.Module):
    """Two 3x3 convolutions with BatchNorm, resampled between them, beside a resampled 3x3 shortcut."""

    def __init__(self, channels_in: int, channels_out: int, resample: nn.Module):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out // 2, 3, 1, 1)
        self.norm1 = nn.BatchNorm2d(channels_out // 2)
        self.conv2 = nn.Conv2d(channels_out // 2, channels_out, 3, 1, 1)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 3, 1, 1)
        self.resample = resample

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.norm1(self.conv1(x)), SLOPE)
        h = self.norm2(self.conv2(self.resample(h)))
        return F.leaky_relu(h + self.shortcut(self.resample(x)), SLOPE)


class Encoder(nn.Module):
    """Slices (B, 1, size, size) to the mean and log variance of q(z|x), each (B, latent_dim)."""

    def __init__(self, size: int = 128, latent_dim: int = 32, width: int = 64):
        super().__init__()
        channels = [1] + [width * m for m in (1, 2, 4, 8, 8, 8)[: stages(size)]]
        pool = nn.AvgPool2d(2)
        self.stages = nn.Sequential(*(Residual(i, o, pool) for i, o in zip(channels, channels[1:], strict=False)))
        self.mean = nn.Conv2d(channels[-1], latent_dim, 4)
        self.log_variance = nn.Conv2d(channels[-1], latent_dim, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.stages(x)  # (B, ., 4, 4)
        return self.mean(h).flatten(1), self.log_variance(h).flatten(1)


class Decoder(nn.Module):
    """z (B, latent_dim) to slices (B, 1, size, size) in [-1, 1]; as a generator, the counterpart of the GAN's."""

    def __init__(self, size: int = 128, latent_dim: int = 32, width: int = 64):
        super().__init__()
        self.size, self.latent_dim = size, latent_dim
        widths = [width * m // 2 for m in (32, 32, 16, 16, 8, 4, 2, 1)[-(stages(size) + 2) :]]
        channels = [latent_dim, *widths]
        up = nn.Upsample(scale_factor=2, mode="nearest")
        self.stages = nn.Sequential(*(Residual(i, o, up) for i, o in zip(channels, widths, strict=False)))
        self.out = nn.Conv2d(widths[-1], 1, 3, 1, 1)

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.out(self.stages(z[:, :, None, None])).float())  # in fp32 whatever the stages compute in


class VAE(nn.Module):
    """Encoder and decoder; `forward` gives the reconstruction and q(z|x)'s mean and log variance."""

    def __init__(self, size: int = 128, latent_dim: int = 32, width: int = 64):
        super().__init__()
        self.encoder, self.decoder = Encoder(size, latent_dim, width), Decoder(size, latent_dim, width)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, 1, S, S); `noise` (B, latent_dim) standard normal, or None to decode the mean."""
        mean, log_variance = self.encoder(x)
        z = mean if noise is None else mean + noise * torch.exp(0.5 * log_variance)
        return self.decoder(z), mean, log_variance


def kl_per_dimension(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, 1)) in nats, averaged over the batch, (latent_dim,)."""
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean(0)


def paper_loss(error: Tensor, kl: Tensor, kl_weight: float, pixels: int) -> Tensor:
    """log(mean squared error) + kl_weight * KL, the paper's (kl_weight 0.01)."""
    return torch.log(error) + kl_weight * kl


def calibrated_loss(error: Tensor, kl: Tensor, kl_weight: float, pixels: int) -> Tensor:
    """Negative ELBO a pixel with the best shared Gaussian variance (sigma-VAE, Rybkin et al. 2021); kl_weight is its beta."""
    return 0.5 * (torch.log(error) + math.log(2 * math.pi) + 1) + kl_weight * kl / pixels


LOSSES = {"paper": paper_loss, "calibrated": calibrated_loss}
