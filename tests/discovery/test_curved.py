"""Directions that bend: a planted curve is found, and is a direction like any other to all that uses one."""

import numpy as np
import pandas as pd
import pytest
import torch

import lpdirs as lp
from lpdirs.base.checkpoints import stream
from lpdirs.base.errors import UserError
from lpdirs.discovery.directions import FORMAT, Directions
from lpdirs.discovery.methods import discover
from lpdirs.discovery.objective import Discovery, DiscoverySettings, draw_shifts
from lpdirs.models.files import read_header
from lpdirs.models.networks import Decoder
from tests.toys import lively

D, RADIUS = 4, 2.0


@pytest.fixture(scope="module")
def arc():
    """z near an arc of a circle in two of four dimensions, and the angle along it; some angles are unknown."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(-1.2, 1.2, 6000)
    z = np.stack([RADIUS * np.sin(angle), RADIUS * np.cos(angle), 0 * angle, 0 * angle], 1) + 0.3 * rng.normal(size=(6000, D))
    generator = lively(Decoder(32, D, 4))
    known = pd.DataFrame({"angle": np.where(rng.random(6000) < 0.1, np.nan, angle)})
    return generator, discover(generator, "curved", 1, known=(torch.from_numpy(z).float(), known))


def test_a_planted_arc_is_found_and_walked_at_unit_speed(arc):
    _, found = arc
    assert found.info.names == {0: "angle"} and len(found) == 1
    assert abs(float(found.matrix[0, 0])) > 0.99, "the tangent in the middle points to the side"
    way = torch.linspace(-2, 2, 41)
    walked = found.shift(torch.zeros(41, D), 0, way)
    truth = torch.stack([RADIUS * torch.sin(way / RADIUS), RADIUS * (torch.cos(way / RADIUS) - 1), 0 * way, 0 * way], 1)
    assert (walked - truth).norm(dim=1).max() < 0.15
    straight = way[:, None] * found.matrix
    assert (straight - truth).norm(dim=1).max() > 0.8, "a straight line leaves the arc"
    steps = (walked[1:] - walked[:-1]).norm(dim=1)
    assert torch.allclose(steps, torch.full_like(steps, 0.1), atol=0.02)


def test_beyond_its_ends_a_curve_goes_on_straight_and_zero_stays(arc):
    _, found = arc
    z = torch.randn(3, D)
    assert torch.allclose(found.shift(z, 0, 0.0), z, atol=1e-6)
    far = found.shift(torch.zeros(3, D), 0, torch.tensor([8.0, 9.0, 10.0]))
    assert torch.allclose(far[2] - far[1], far[1] - far[0], atol=1e-5)


def test_straight_and_curved_directions_live_in_one_file(arc, tmp_path):
    generator, found = arc
    both = Directions(torch.cat([torch.eye(D)[:1], found.matrix]), found.info, {1: found.bends[0]})
    z, k, eps = torch.randn(4, D), torch.tensor([0, 1, 0, 1]), torch.tensor([1.0, 1.0, -2.0, -2.0])
    moved = both.shift(z, k, eps)
    assert torch.allclose(moved[::2], z[::2] + eps[::2, None] * both.matrix[:1]) and torch.allclose(
        moved[1::2], found.shift(z[1::2], 0, eps[1::2])
    )
    both.save(tmp_path / "d.safetensors")
    again = Directions.load(tmp_path / "d.safetensors")
    assert torch.equal(again.shift(z, k, eps), moved) and again.with_info(seed=3).bends.keys() == {1}
    assert read_header(tmp_path / "d.safetensors")["format"] == FORMAT, "an older lpdirs refuses it, and draws no straight line"
    assert torch.equal(both.shift(z, 0, 1.0), z + both.matrix[0])
    page = lp.share({"mine": (generator, both)}, tmp_path / "page.html", frames=3, slices=1, live=False)
    assert page.stat().st_size > 1000 and len(lp.respond(generator, both, samples=4, shifts=(-1, 0, 1)).values) == 2


def test_a_fresh_reconstructor_sees_the_curve_and_not_its_tangent(arc):
    generator, found = arc
    both = Directions(torch.cat([found.matrix, torch.eye(D)[2:3]]), bends=found.bends)
    search = Discovery(generator, DiscoverySettings(n_directions=2, batch=8, freeze=True), both)
    _, shifted, k, eps = search.pairs(8, stream(0, 4, 0))
    rng = stream(0, 4, 0)
    draw_shifts(8, search.settings, rng)
    assert torch.allclose(shifted, generator(both.shift(generator.draw(8, rng), k, eps)), atol=1e-5)
    assert search.directions().bends.keys() == found.bends.keys()


@pytest.mark.parametrize("column", [np.ones(50), np.full(50, np.nan)])
def test_a_factor_without_values_or_of_one_value_is_named(column):
    with pytest.raises(UserError, match="width cannot be measured, or hardly varies"):
        discover(lively(Decoder(32, D, 4)), "curved", known=(torch.randn(50, D), pd.DataFrame({"a": range(50), "width": column})))


@pytest.mark.parametrize("bends", [{1: torch.eye(3, D + 1)}, {0: torch.zeros(3, D + 1)}, {0: torch.zeros(3, D)}])
def test_bends_that_make_no_sense_are_refused(bends):
    with pytest.raises(UserError, match="the bend of direction"):
        Directions(torch.eye(D)[:1], bends=bends)


def test_without_factors_it_is_refused():
    with pytest.raises(UserError, match="curved needs factors"):
        discover(lively(Decoder(32, D, 4)), "curved")
    with pytest.raises(UserError, match="a cannot be measured, or hardly varies"):
        discover(lively(Decoder(32, D, 4)), "curved", known=(torch.randn(6, D), pd.DataFrame({"a": range(6)})))
