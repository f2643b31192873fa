import numpy as np
import pytest
import torch
from torch import nn

from lpdirs.discovery.directions import Directions
from lpdirs.scores.score import recoverability
from tests.toys import bare


class Blocks(nn.Module):
    """Each dimension lights a square of its own."""

    latent_dim = 4

    def forward(self, z):
        corners = torch.zeros(4, 1, 32, 32, device=z.device)
        for i, (y, x) in enumerate(((0, 0), (0, 16), (16, 0), (16, 16))):
            corners[i, :, y : y + 16, x : x + 16] = 1
        return torch.tanh(torch.einsum("bd,dchw->bchw", z, corners))


def test_directions_that_differ_are_told_apart():
    found = recoverability(bare(Blocks()), Directions(torch.eye(4)), steps=120, seeds=(0, 1), pairs=512)
    assert found.kappa.mean() > 0.9 and found.confusion.diagonal().min() > 0.8
    assert np.allclose(found.confusion.sum(1), 1)
    low, high = found.interval
    assert low <= found.kappa.mean() <= high


def test_equal_directions_cannot_be_told_apart():
    found = recoverability(bare(Blocks()), Directions(torch.eye(4)[[0, 0, 0, 0]]), steps=40, seeds=(0,), pairs=512)
    assert abs(found.kappa[0]) < 0.12 and np.isnan(found.interval[0])


def test_the_same_seed_gives_the_same_number():
    once, again = (recoverability(bare(Blocks()), Directions(torch.eye(4)), 5, (3,), 128).rca[0] for _ in range(2))
    assert once == pytest.approx(again, abs=0)
