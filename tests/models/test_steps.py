"""What draws in the steps of a search draws the same images: large layers as products, weights held in bf16."""

import pytest
import torch
from torch import nn

from lpdirs.base.compute import autocast
from lpdirs.models import wrapping
from lpdirs.models.networks import GeneratorNetwork
from lpdirs.models.wrapping import Product, faster
from tests.toys import lively


@pytest.fixture
def generator(monkeypatch):
    monkeypatch.setattr(wrapping, "LARGE", 2)
    return lively(GeneratorNetwork(32, 4, 8))


def test_large_transposed_convolutions_are_products_in_steps_alone(generator):
    z = generator.draw(5, 1)
    quick, steps = faster(generator), faster(generator, steps_in="fp32")
    kinds = lambda one: [type(layer) for layer in one.module.modules()]
    assert kinds(steps).count(Product) == 3 and Product not in kinds(quick)  # all but that from one pixel
    assert torch.allclose(steps(z), quick(z), atol=1e-5)
    a, b = z.clone().requires_grad_(), z.clone().requires_grad_()
    steps(a).square().sum().backward()
    quick(b).square().sum().backward()
    assert torch.allclose(a.grad, b.grad, rtol=1e-3, atol=1e-3)


def test_a_layer_that_does_something_else_stays(generator):
    for kept in (nn.ConvTranspose2d(4, 3, 4, 2, 0), nn.ConvTranspose2d(4, 3, 3, 2, 1), nn.ConvTranspose2d(4, 4, 4, 2, 1, groups=2)):
        module = nn.Sequential(kept)
        wrapping.by_products(module)
        assert module[0] is kept
    for bias in (True, False):
        plain = nn.ConvTranspose2d(4, 3, 4, 2, 1, bias=bias)
        module, x = nn.Sequential(plain), torch.randn(2, 4, 3, 5)
        wrapping.by_products(module)
        assert torch.allclose(module(x), plain(x), atol=1e-5) and isinstance(module[0], Product)


def test_weights_held_in_bf16_draw_what_autocast_draws(generator, monkeypatch):
    monkeypatch.setattr(wrapping, "LARGE", 2**60)
    z = generator.draw(5, 1)
    quick, half = faster(generator), faster(generator, steps_in="bf16")
    assert any(p.dtype is torch.bfloat16 for p in half.module.parameters())
    with autocast("cpu", "bf16"):
        assert torch.equal(half(z), quick(z))
    assert not any(p.dtype is torch.bfloat16 for p in generator.module.parameters()), "the user's own stays as it is"
