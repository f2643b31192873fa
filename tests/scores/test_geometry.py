import pytest
import torch
from torch import nn

from lpdirs.discovery.closed_form import random
from lpdirs.discovery.directions import Directions
from lpdirs.scores.disentanglement import additivity, agreement, coherence
from tests.toys import bare


def test_orthonormal_directions_share_nothing():
    found = coherence(random(6, 8, 0, orthonormal=True))
    assert found["coherence"] < 1e-6 and found["welch_bound"] == 0 and found["effective_rank"] == pytest.approx(6)


def test_a_simplex_reaches_the_welch_bound():
    d = 5
    points = torch.eye(d + 1) - 1 / (d + 1)
    basis = torch.linalg.svd(points)[2][:d]
    simplex = points @ basis.T
    found = coherence(simplex / simplex.norm(dim=1, keepdim=True))
    assert found["welch_bound"] == pytest.approx(1 / d) and found["coherence"] == pytest.approx(1 / d, abs=1e-5)


def test_equal_directions_have_rank_one():
    found = coherence(torch.eye(4)[[1, 1, 1]])
    assert found["coherence"] == 1 and found["effective_rank"] == pytest.approx(1)


def test_order_and_sign_do_not_count_as_disagreement():
    one = random(6, 8, 0)
    assert agreement(one, -one[[3, 1, 0, 5, 4, 2]]) == pytest.approx(1)
    assert agreement(one, random(6, 8, 1)) < 0.8


class Sums(nn.Module):
    latent_dim = 2

    def forward(self, z):
        return z[:, :1, None, None] + 2 * z[:, 1:2, None, None] + torch.zeros(1, 1, 4, 4)


class Products(nn.Module):
    latent_dim = 2

    def forward(self, z):
        return z[:, :1, None, None] * z[:, 1:2, None, None] + torch.zeros(1, 1, 4, 4)


def test_changes_that_add_up_are_told_from_those_that_do_not():
    directions = Directions(torch.eye(2))
    assert additivity(bare(Sums()), directions) < 1e-5 < 0.3 < additivity(bare(Products()), directions)
