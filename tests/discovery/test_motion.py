"""Directions of one motion each, on a picture that is known to move."""

import pytest
import torch
from torch import nn

from lpdirs.base.errors import UserError
from lpdirs.discovery.methods import discover
from lpdirs.discovery.motion import MOTIONS, motion, varimax
from lpdirs.models.wrapping import as_generator
from tests.toys import bare

D = 8


class Moving(nn.Module):
    """Two blobs on a slanted bar, moved by five mixed parameters; a sixth and seventh brighten one blob each, an eighth does nothing."""

    latent_dim = D

    def __init__(self, size=48, channels=1, mixed=True, moves=True):
        super().__init__()
        torch.manual_seed(5)
        self.size, self.channels, self.moves = size, channels, moves
        self.register_buffer(
            "mix", torch.linalg.qr(torch.randn(D, D))[0] @ torch.diag(torch.linspace(1.5, 0.7, D)) if mixed else torch.eye(D)
        )

    def forward(self, z):
        p = 0.08 * (z @ self.mix.T)
        at = torch.linspace(-1, 1, self.size)
        y, x = torch.meshgrid(at, at, indexing="ij")
        tx, ty, turn, wide, tall = ((p[:, i, None, None] if self.moves else 0 * p[:, 0, None, None]) for i in range(5))
        x, y = x - tx, y - ty
        x, y = x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin()
        x, y = x / wide.exp(), y / tall.exp()
        blob = lambda a, b: torch.exp(-((x - a) ** 2 + (y - b) ** 2) / 0.02)
        body = torch.sigmoid((0.5 - (x / 1.2) ** 2 - (y / 0.8) ** 2) * 20)
        image = body * (1 + p[:, 5, None, None] * 2 * blob(0.35, 0.0) + p[:, 6, None, None] * 2 * blob(-0.35, 0.0)) + 0.5 * blob(0.0, 0.3)
        return (1.2 * image - 1)[:, None].expand(-1, self.channels, -1, -1)


class Still(nn.Module):
    """The same picture for every z."""

    latent_dim = D

    def forward(self, z):
        return torch.zeros(len(z), 1, 16, 16)


def alone(generator, directions):
    """How much of each direction's effect on the parameters (K, 8) is its largest."""
    effects = (directions @ generator.module.mix.T).abs()
    return effects.max(1).values / effects.sum(1), effects.argmax(1)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_motion_is_found_and_moves_nothing_else(channels):
    generator = bare(Moving(channels=channels))
    found = motion(generator, 7, 0)
    directions, moving = found.matrix, found.notes["motions"]
    assert list(moving) == list(MOTIONS) and min(moving.values()) > 0.5
    share, which = alone(generator, directions)
    assert which[:5].tolist() == [0, 1, 2, 3, 4], "in the order of MOTIONS"
    assert share[:5].min() > 0.65 and share[:5].mean() > 0.8
    assert sorted(which[5:].tolist()) == [5, 6] and share[5:].min() > 0.65, "what changes without moving comes after, each place on its own"


def test_directions_that_were_not_taken_apart_move_several_things():
    generator = bare(Moving())
    for method in ("jacobian", "pca"):
        share, _ = alone(generator, discover(generator, method, 5).matrix)
        assert share.mean() < 0.6, "so that the test above is one that can fail"


def test_the_sign_is_that_of_the_motion():
    """A positive shift moves to the right and down, turns as the hands of a clock do, and makes wider and taller."""
    generator = bare(Moving(mixed=False))
    found = motion(generator, 5, 0)
    directions = found.matrix
    assert (directions.diagonal() > 0.8).all()


def test_motions_that_a_generator_has_not_are_left_out():
    found = motion(bare(Moving(moves=False)), 5, 0)
    directions, moving = found.matrix, found.notes["motions"]
    assert moving == {} and len(directions) == 5
    share, which = alone(bare(Moving()), directions[:2])
    assert sorted(which.tolist()) == [5, 6], "what changes without moving comes first"
    with pytest.raises(UserError, match="nothing .* that changes"):
        motion(bare(Still()), 7, 0)


def test_no_gradients_are_needed():
    class Rounded(Moving):
        def forward(self, z):
            return (super().forward(z) * 127).round() / 127

    share, which = alone(bare(Moving()), motion(bare(Rounded()), 5, 0).matrix)
    assert which.tolist() == [0, 1, 2, 3, 4] and share.min() > 0.6


def test_what_was_found_of_the_motions_is_noted():
    found = discover(bare(Moving()), "motion", 5)
    assert list(found.info.notes["motions"]) == list(MOTIONS)


@pytest.mark.parametrize("d", [1, 2, 5, 6])
def test_few_dimensions_will_do(d):
    torch.manual_seed(0)
    generator = as_generator(nn.Sequential(nn.Linear(d, 256), nn.Tanh(), nn.Unflatten(1, (1, 16, 16))), d)
    for k in {1, d}:
        found = motion(generator, k, 0).matrix
        assert found.shape == (k, d) and torch.allclose(found.norm(dim=1), torch.ones(k), atol=1e-5)


def test_varimax_finds_the_sparse_axes():
    rng = torch.Generator().manual_seed(0)
    sparse = torch.randn(4000, 5, generator=rng, dtype=torch.float64) * (torch.rand(4000, 5, generator=rng) < 0.1)
    frame = torch.linalg.qr(torch.randn(5, 5, generator=rng, dtype=torch.float64))[0]
    found = frame @ varimax(sparse @ frame)
    assert (found.abs().max(0).values > 0.99).all()


class Disc(nn.Module):
    """A disc that moves to the side, up and down, and grows; a turn of it is nothing."""

    latent_dim = 4

    def forward(self, z):
        a = torch.linspace(-1, 1, 48)
        y, x = torch.meshgrid(a, a, indexing="ij")
        p = [0.1 * z[:, i, None, None] for i in range(4)]
        size = 0.4 * p[2].exp()
        return (2 * torch.exp(-((x - p[0]) ** 2 + (y - p[1]) ** 2) / size**2) * (1 + p[3]) / 1.5 - 1)[:, None]


@pytest.mark.parametrize("seed", range(4))
def test_what_is_round_has_no_turn_and_no_two_directions_are_one(seed):
    found = motion(as_generator(Disc(), 4, value_range=(-1, 1)), 4, seed=seed)
    matrix, motions = found.matrix, found.notes["motions"]
    assert "turned" not in motions
    assert torch.linalg.svdvals(matrix)[-1] > 0.3  # the brightness too has a direction of its own
    for name, axis in (("to the side", 0), ("up or down", 1)):
        assert matrix[list(motions).index(name), axis].abs() > 0.95


def test_a_generator_that_cannot_draw_from_every_z_is_one_line():
    class Breaks(Moving):
        def forward(self, z):
            return torch.where((z.norm(dim=1) > 3)[:, None, None, None], torch.nan, super().forward(z))

    for method in ("motion", "sparse", "pca", "ica"):
        with pytest.raises(UserError, match="cannot draw from every z"):
            discover(bare(Breaks()), method, 4)
