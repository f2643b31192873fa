"""Generators for tests: networks of the package, and small modules of which the truth is known."""

import torch
from torch import nn

from lpdirs.models.generators import Generator, GeneratorInfo


def bare(module: nn.Module, latent_dim: int | None = None, **options) -> Generator:
    """A module that draws in [-1, 1] as a generator, without a trial; it is the module itself, not a copy."""
    return Generator(module.eval(), latent_dim or module.latent_dim, **options)


def lively(model: nn.Module, name: str = "own", **known) -> Generator:
    """An untrained network of which slices differ: BatchNorm has seen a batch."""
    for _ in range(50):
        model(torch.randn(16, model.latent_dim))
    return Generator(model.eval().requires_grad_(False), model.latent_dim, info=GeneratorInfo(name, **known))
