"""What is done to a generator to make it fast, or to bring it here, does not change what it draws."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from lpdirs.base.errors import UserError
from lpdirs.discovery.methods import discover
from lpdirs.discovery.objective import Discovery, DiscoverySettings
from lpdirs.measures.thorax import thorax
from lpdirs.models.networks import Decoder, GeneratorNetwork
from lpdirs.models.wrapping import as_generator, faster
from lpdirs.scores.response import respond
from tests.toys import bare, lively

Z = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


def norms(module):
    return sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules())


@pytest.mark.parametrize("generator", [GeneratorNetwork(32, 6, 8), Decoder(64, 6, 8)], ids=["gan", "vae"])
def test_folding_batchnorm_changes_nothing_but_the_time(generator):
    generator = lively(generator)
    folded = faster(generator)
    assert norms(generator.module) > 2 and norms(folded.module) == 0
    assert torch.allclose(folded(Z), generator(Z), atol=1e-5) and folded.latent_dim == 6
    assert not any(p.requires_grad for p in folded.module.parameters())


def test_a_wrapped_generator_is_folded_too():
    layers = nn.Sequential(nn.Linear(4, 256), nn.Unflatten(1, (4, 8, 8)), nn.ConvTranspose2d(4, 4, 4, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
    generator = as_generator(nn.Sequential(layers, nn.ConvTranspose2d(4, 1, 4, 2, 1), nn.Tanh()), 4)
    folded, z = faster(generator), torch.randn(5, 4)
    assert norms(generator.module) == 1 and norms(folded.module) == 0 and torch.allclose(folded(z), generator(z), atol=1e-5)


def test_a_layout_that_a_module_cannot_bear_is_not_taken():
    """As StyleGAN2-ADA's convolutions, which follow the layout of their weights, and fail with it under vmap."""

    class Follows(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.up, self.out = nn.Linear(8, 64), nn.ConvTranspose2d(4, 4, 4, 2, 1), nn.Conv2d(4, 1, 3, padding=1)

        def forward(self, z):
            x = self.up(self.first(z).view(-1, 4, 4, 4))
            x = x + 0.1 * torch.randn(len(x), 1, 8, 8)
            if self.out.weight.stride(1) == 1:
                x = x.contiguous(memory_format=torch.channels_last)
            return nn.functional.interpolate(torch.tanh(self.out(x)), scale_factor=4)

    generator = as_generator(Follows(), 8, noise="fix")
    assert len(discover(generator, "reconstructor", 4, settings=DiscoverySettings(steps=2, batch=4))) == 4


def test_a_layer_that_is_used_twice_or_cannot_be_traced_is_left_alone():
    class Twice(nn.Module):
        latent_dim = 6

        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)
            self.norm.running_mean.fill_(0.3)

        def forward(self, z):
            h = self.conv(z[:, :, None, None])
            return self.norm(self.conv(h)) + h

    class Branching(Twice):
        def forward(self, z):
            return super().forward(z if z.sum() > 1e9 else -z)

    for module in (bare(Twice()), bare(Branching())):
        assert torch.allclose(faster(module)(Z), module(Z), atol=1e-6)


class StyleLike(nn.Module):
    """Several inputs, a spatial latent, three channels in [0, 1], and two outputs."""

    def __init__(self):
        super().__init__()
        self.inner = lively(GeneratorNetwork(32, 24, 4)).module

    def forward(self, z, label, truncation=1.0, noise=True):
        assert z.shape[1:] == (6, 2, 2) and label.shape == (len(z), 10)
        x = self.inner(truncation * z.flatten(1))
        return (x.expand(-1, 3, -1, -1) + 1) / 2 * torch.tensor([0.5, 1.0, 1.5])[:, None, None], z


def test_any_module_becomes_a_generator_and_goes_all_the_way():
    module = StyleLike()
    theirs = as_generator(module, 24, (6, 2, 2), (0, 1), inputs={"label": torch.zeros(1, 10), "truncation": 0.7})
    z = torch.randn(3, 24)
    assert torch.allclose(theirs.images(z), module.inner(0.7 * z), atol=1e-5)
    for method in ("jacobian", "sefa", "pca", "reconstructor"):
        found = discover(theirs, method, 4, settings=DiscoverySettings(batch=4, steps=2))
        assert found.matrix.shape == (4, 24)
    table = respond(theirs, found, thorax((-1000.0, 1000.0), 6.0), shifts=(-1, 0, 1), samples=4).table()
    assert len(table) == 4 * 6


def test_what_is_no_generator_is_refused():
    with pytest.raises(UserError, match="holds 24 numbers, and latent_dim is 25"):
        as_generator(StyleLike(), 25, latent_shape=(6, 2, 2))
    with pytest.raises(UserError, match=r"images \(B, 1 or 3, S, S\).*gave \(8, 6\)"):
        as_generator(nn.Linear(6, 6), 6)


@pytest.mark.parametrize("precision", ["bf16"])
def test_bf16_is_near_and_finite(precision):
    losses = {}
    for p in ("fp32", precision):
        search = Discovery(lively(GeneratorNetwork(32, 6, 8)), DiscoverySettings(n_directions=4, batch=8, precision=p))
        losses[p] = [search.step(i)["loss"] for i in range(3)]
    assert np.allclose(losses["fp32"], losses[precision], rtol=0.1) and losses["fp32"] != losses[precision]
    with pytest.raises(UserError, match="precision must be 'auto', 'fp32' or 'bf16', not 'fp8'"):
        DiscoverySettings(precision="fp8")
    with pytest.raises(UserError, match="compile must be 'off' or 'default'"):
        DiscoverySettings(compile="on")


COMPILED = """
import torch
import lpdirs as lp
from lpdirs.discovery.objective import Discovery, DiscoverySettings
from lpdirs.models.networks import GeneratorNetwork
torch.manual_seed(0)
generator = lp.Generator(GeneratorNetwork(32, 6, 8).eval(), 6)
for mode in ("off", "default"):
    paper = {"lr_directions": 1e-4, "lr_reconstructor": 1e-4, "precision": "fp32"}
    search = Discovery(generator, DiscoverySettings(n_directions=4, batch=8, compile=mode, **paper))
    print(*(search.step(i)["loss"] for i in range(3)))
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_steps_are_those_of_plain_ones():
    ran = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, timeout=400)  # torch warns while it compiles
    assert ran.returncode == 0, ran.stderr[-2000:]
    off, default = ([float(value) for value in line.split()] for line in ran.stdout.splitlines()[-2:])
    assert np.allclose(off, default, rtol=1e-3)
