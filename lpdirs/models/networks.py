"""The networks of the paper, for 32 to 256 px from one definition each: the DCGAN (after Radford et al. 2016) and the residual VAE."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from lpdirs.base.errors import UserError


def stages(size: int) -> int:
    """How often 4 px are doubled to reach `size`; UserError unless it is 32, 64, 128 or 256."""
    if size not in (32, 64, 128, 256):
        raise UserError(f"size must be 32, 64, 128 or 256 px, not {size}")
    return size.bit_length() - 3


class GeneratorNetwork(nn.Module):
    """z (B, latent_dim) to slices (B, 1, size, size) in [-1, 1].

    At 128 px and width 128 the channels are 2048-1024-512-256-128-1, as published. Smaller sizes drop the widest
    stages, and 256 px has one more, twice as wide.
    """

    def __init__(self, size: int = 128, latent_dim: int = 32, width: int = 128):
        super().__init__()
        self.size, self.latent_dim = size, latent_dim
        n = stages(size)
        layers = _up(latent_dim, width << (n - 1), stride=1, padding=0)  # (B, ., 4, 4)
        for i in range(n - 1, 0, -1):
            layers += _up(width << i, width << (i - 1))
        layers += [nn.ConvTranspose2d(width, 1, 4, 2, 1, bias=False)]
        self.layers = nn.Sequential(*layers)
        self.apply(init_weights)

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.layers(z[:, :, None, None]).float())  # in fp32 whatever the layers compute in


class Discriminator(nn.Module):
    """Slices (B, 1, size, size) to logits (B,), large where a slice looks real; the mirror of GeneratorNetwork."""

    def __init__(self, size: int = 128, width: int = 128, spectral_norm: bool = False):
        super().__init__()
        n = stages(size)
        layers: list[nn.Module] = [nn.Conv2d(1, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
        for i in range(n - 1):
            layers += [nn.Conv2d(width << i, width << (i + 1), 4, 2, 1, bias=False)]
            layers += [nn.BatchNorm2d(width << (i + 1)), nn.LeakyReLU(0.2, inplace=True)]
        layers += [nn.Conv2d(width << (n - 1), 1, 4, 1, 0, bias=False)]
        self.layers = nn.Sequential(*layers)
        self.apply(init_weights)
        if spectral_norm:
            for layer in self.layers:
                if isinstance(layer, nn.Conv2d):
                    parametrizations.spectral_norm(layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).flatten()


def _up(channels_in: int, channels_out: int, stride: int = 2, padding: int = 1) -> list[nn.Module]:
    convolution = nn.ConvTranspose2d(channels_in, channels_out, 4, stride, padding, bias=False)
    return [convolution, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True)]


@torch.no_grad()
def init_weights(module: nn.Module) -> None:
    """Normal(0, 0.02) for convolutions and Normal(1, 0.02) for BatchNorm scales, as in the DCGAN paper."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


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
