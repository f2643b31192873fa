"""Generators of other packages, small and with random weights: each is wrapped, searched by every method, and measured."""

import math
from unittest import mock

import pytest
import torch
from torch import nn

import lpdirs as lp
from lpdirs.discovery.objective import DiscoverySettings


class Decode(nn.Module):
    """A method of a model as what its forward does."""

    def __init__(self, model, method):
        super().__init__()
        self.model, self.method = model, method

    def forward(self, z):
        return getattr(self.model, self.method)(z)


def pythae():
    models = pytest.importorskip("pythae.models")
    vae = models.VAE(models.VAEConfig(input_dim=(1, 28, 28), latent_dim=16))
    return lp.as_generator(vae.decoder, 16, value_range=(0, 1))


def monai_autoencoder():
    nets = pytest.importorskip("monai.networks.nets")
    some = {"channels": (16, 16, 32), "latent_channels": 3, "num_res_blocks": 1, "norm_num_groups": 8}
    model = nets.AutoencoderKL(spatial_dims=2, attention_levels=(False, False, True), **some)
    return lp.as_generator(Decode(model, "decode"), 3 * 8 * 8, latent_shape=(3, 8, 8), value_range=(-3, 3))


def monai_vae():
    nets = pytest.importorskip("monai.networks.nets")
    model = nets.VarAutoEncoder(spatial_dims=2, in_shape=(1, 32, 32), out_channels=1, latent_size=8, channels=(4, 8), strides=(2, 2))
    return lp.as_generator(Decode(model, "decode_forward"), 8, value_range=(0, 1))


def monai_volume():
    nets = pytest.importorskip("monai.networks.nets")
    model = nets.Generator(latent_shape=(16,), start_shape=(4, 2, 2, 2), channels=(4, 2, 1), strides=(2, 2, 2))
    return lp.as_generator(model, 16, value_range=(-3, 3), project=lambda volume: volume[:, :, volume.shape[2] // 2])


def diffusers():
    package = pytest.importorskip("diffusers")
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2, "norm_num_groups": 8}
    model = package.AutoencoderKL(in_channels=3, out_channels=3, block_out_channels=(16, 32), latent_channels=4, **blocks)
    return lp.as_generator(Decode(model, "decode"), 4 * 8 * 8, latent_shape=(4, 8, 8), value_range=(-2, 2), channels="keep")


def lightweight_gan():
    with mock.patch("torch.cuda.is_available", lambda: True):  # it refuses to be imported without
        package = pytest.importorskip("lightweight_gan.lightweight_gan")
    return lp.as_generator(package.Generator(image_size=32, latent_dim=16, fmap_max=8, attn_res_layers=[]), 16, channels="keep")


def biggan():
    package = pytest.importorskip("pytorch_pretrained_biggan")
    layers = [(False, 16, 8), (True, 8, 4), (True, 4, 2), (True, 2, 1)]
    sizes = {"output_dim": 32, "z_dim": 16, "class_embed_dim": 16, "channel_width": 4, "num_classes": 10}
    model = package.BigGAN(package.BigGANConfig(**sizes, layers=layers, attention_layer_position=2))
    nn.init.ones_(model.generator.bn.weight)  # left as memory has them: those of a trained one come with its weights
    nn.init.zeros_(model.generator.bn.bias)
    one_class = nn.functional.one_hot(torch.tensor([3]), 10).float()
    for _ in range(20):
        model(torch.randn(1, 16), one_class, 0.4)  # its spectral norm finds itself while it trains
    return lp.as_generator(model, 16, channels="keep", inputs={"class_label": one_class, "truncation": 0.4})


class Equal(nn.Module):
    """A layer as StyleGAN2's: weights of unit variance, scaled when they are used."""

    def __init__(self, n, m):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(m, n)), nn.Parameter(torch.zeros(m))

    def forward(self, x):
        return nn.functional.leaky_relu(nn.functional.linear(x, self.weight / math.sqrt(x.shape[1]), self.bias), 0.2)


class Synthesis(nn.Module):
    """StyleGAN2's layout: a constant, modulated convolutions (5-D weights), noise at each layer; w (B, 2, 16)."""

    def __init__(self):
        super().__init__()
        self.constant = nn.Parameter(torch.randn(1, 8, 8, 8))
        self.style = nn.ModuleList([nn.Linear(16, 8) for _ in range(2)])
        self.weight = nn.ParameterList([nn.Parameter(torch.randn(1, 8, 8, 3, 3) / 8) for _ in range(2)])
        self.rgb = nn.Conv2d(8, 3, 1)

    def forward(self, w):
        x = self.constant.expand(len(w), -1, -1, -1)
        for i in range(2):
            weight = self.weight[i] * self.style[i](w[:, i])[:, None, :, None, None]
            weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
            x = nn.functional.interpolate(x, scale_factor=2)
            b, c, h, side = x.shape
            x = nn.functional.conv2d(x.reshape(1, b * c, h, side), weight.flatten(0, 1), padding=1, groups=b).view(b, -1, h, side)
            x = nn.functional.leaky_relu(x + 0.1 * torch.randn(b, 1, h, side), 0.2)
        return self.rgb(x)


def stylegan2():
    prior = lp.Prior.mapped(nn.Sequential(Equal(12, 16), Equal(16, 16)), 12)
    options = {"latent_shape": (2, 16), "prior": prior, "noise": "fix", "channels": "keep", "value_range": (-3, 3)}
    return lp.as_generator(Synthesis(), 32, **options)


KINDS = [pythae, monai_autoencoder, monai_vae, monai_volume, diffusers, lightweight_gan, biggan, stylegan2]


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_every_method_works_on_it(make):
    torch.manual_seed(0)
    generator = make()
    report = generator.info
    assert report.differentiable and report.layers >= 1
    for method in ("reconstructor", "jacobian", "pca", "sefa", "random", "coordinate"):
        settings = DiscoverySettings(steps=2, batch=4) if method == "reconstructor" else None
        directions = lp.discover(generator, method, 4, settings=settings)
        assert directions.matrix.shape == (4, generator.latent_dim)
        assert torch.allclose(directions.matrix.norm(dim=1), torch.ones(4), atol=1e-4)
    found = lp.respond(generator, directions, samples=8).table()
    assert found["slope"].notna().all()
    lp.strips(generator, directions, k=range(2))
