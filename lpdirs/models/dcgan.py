"""The DCGAN of the paper (after Radford et al. 2016), for 32 to 256 px from one definition."""

import torch
from torch import Tensor, nn
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
