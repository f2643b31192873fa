"""Steering on a generator whose factors bend and mix: one is moved, the others hold, and what cannot be done is said."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import lpdirs as lp
from lpdirs.base.errors import UserError
from lpdirs.scores.response import best_directions
from lpdirs.scores.steering import Steering, fit_steering, respond_steered, steer

D = 8


class Mixed(nn.Module):
    """z to images of 16 px whose four bands of rows say four factors, each of several coordinates and not in a straight line."""

    def forward(self, z):
        a = z[:, 0] + 0.5 * torch.sin(1.5 * z[:, 1])
        b = z[:, 1] + 0.4 * z[:, 0] * torch.tanh(z[:, 2])
        c = z[:, 2] + 0.5 * torch.cos(1.5 * z[:, 0])
        d = z[:, 3] - 0.4 * z[:, 2] * torch.tanh(z[:, 1])
        rows = torch.stack([a, b, c, d], 1) / 10
        return rows.repeat_interleave(4, 1)[:, None, :, None].expand(-1, 1, -1, 16)


def bands(images):
    return pd.DataFrame({name: 10 * images[:, 0, 4 * i, 0].double().numpy() for i, name in enumerate("abcd")})


MEASURES = lp.Measures(bands, dict.fromkeys("abcd", "mm"))


@pytest.fixture(scope="module")
def fitted():
    generator = lp.as_generator(Mixed(), D, measures=MEASURES)
    return generator, fit_steering(generator, samples=2000)


def others(change, spread, moved):
    return (change.drop(columns=[moved]).abs() / spread.drop(moved)).to_numpy().mean()


def test_one_factor_moves_as_far_as_was_asked_and_the_others_hold(fitted):
    generator, steering = fitted
    z, spread = generator.draw(16, 3), pd.Series(steering.spread, index=list("abcd"))
    for name in "abcd":
        steered = steer(generator, z, {name: 1.0}, steering=steering)
        assert (steered.change[name] - 1.0).abs().quantile(0.8) < 0.15 and steered.why.count("reached") >= 12
        axis = lp.Directions(nn.functional.normalize(steering.jacobian(z).mean(0)["abcd".index(name)], dim=0)[None])
        far = torch.linspace(0, 3, 31)
        straight = torch.stack([axis.shift(z, 0, float(shift)) for shift in far])
        moved = np.stack([MEASURES.of(generator, part).to_numpy() for part in straight])
        i = np.abs(moved[:, :, "abcd".index(name)] - moved[0, :, "abcd".index(name)] - 1.0).argmin(0)
        along = pd.DataFrame(moved[i, np.arange(16)] - moved[0], columns=list("abcd"))
        assert others(steered.change, spread, name) < 0.6 * others(along, spread, name), "a straight line moves the others too"
        assert (generator.typicality(steered.end) > 1e-4).all()


def test_what_is_said_is_what_the_images_show(fitted):
    generator, steering = fitted
    steered = steer(generator, generator.draw(5, 1), {"a": 0.5, "b": -0.5}, steering=steering)
    measured = MEASURES.of(generator, steered.end) - MEASURES.of(generator, steered.start)
    assert np.allclose(measured, steered.change, atol=1e-5)
    table = steered.table()
    assert list(table) == ["a, asked", "a, reached", "b, asked", "b, reached", "others, SDs", "others, lost", "why"]
    assert np.allclose(table["a, reached"], measured["a"], atol=1e-5) and (table["a, asked"] == 0.5).all()


def test_targets_may_be_values_and_in_sds_and_others_may_be_free(fitted):
    generator, steering = fitted
    z = generator.draw(6, 2)
    to = steer(generator, z, {"a": 0.3}, steering=steering, absolute=True)
    ends = MEASURES.of(generator, to.end)["a"]
    assert (ends - 0.3).abs().median() < 0.1
    sds = steer(generator, z, {"a": 1.0}, steering=steering, unit="sd")
    assert sds.change["a"].median() == pytest.approx(steering.spread[0], rel=0.15)
    free = steer(generator, z, {"a": 1.0}, steering=steering, hold="none")
    assert np.isnan(free.asked[:, 1:]).all() and free.table()["others, SDs"].isna().all()
    some = steer(generator, z, {"a": 1.0}, steering=steering, hold=("b",))
    assert (some.asked[:, 1] == 0).all() and np.isnan(some.asked[:, 2:]).all()


def test_the_same_arguments_give_the_same_paths_and_a_fit_can_be_kept(fitted, tmp_path):
    generator, steering = fitted
    again = fit_steering(generator, samples=2000)
    steering.save(tmp_path / "s.safetensors")
    kept, z = Steering.load(tmp_path / "s.safetensors"), generator.draw(3, 4)
    paths = [steer(generator, z, {"c": 1.0}, steering=one) for one in (steering, again, kept)]
    assert all(torch.equal(paths[0].z, other.z) for other in paths[1:]) and kept.r2.keys() == set("abcd")
    assert min(steering.r2.values()) > 0.8


def test_a_factor_that_is_not_there_ends_its_path_and_no_other(fitted):
    generator, _ = fitted
    seen = lambda x: bands(x).assign(a=lambda t: t["a"].where(t["b"] > 0))
    measures = lp.Measures(seen, dict.fromkeys("abcd", "mm"))
    z = generator.draw(12, 5)
    there = MEASURES.of(generator, z)["b"].to_numpy() > 0
    steered = steer(generator, z, {"a": 1.0}, measures, steering=fit_steering(generator, measures, samples=1000))
    assert all(why == "cannot be measured" for why, seen in zip(steered.why, there, strict=True) if not seen)
    assert torch.equal(steered.end[~torch.from_numpy(there)], z[~torch.from_numpy(there)])
    assert (steered.change["a"][there] - 1.0).abs().median() < 0.3


def test_far_targets_end_with_a_reason(fitted):
    generator, steering = fitted
    steered = steer(generator, generator.draw(4, 6), {"a": 40.0}, steering=steering, rounds=30)
    assert set(steered.why) <= {"left the prior", "no progress"} and (steered.change["a"] < 39).all()


def test_what_makes_no_sense_is_one_line(fitted):
    generator, steering = fitted
    z = generator.draw(2, 0)
    other = lp.as_generator(nn.Sequential(nn.Linear(D, 256), nn.Unflatten(1, (1, 16, 16))), D, measures=MEASURES)
    for wrong, message in (
        (lambda: steer(generator, z, {"q": 1.0}, steering=steering), "steer changes and holds a, b, c, d, not q"),
        (lambda: steer(generator, z, {}, steering=steering), "not nothing"),
        (lambda: steer(other, z, {"a": 1.0}, steering=steering), "fitted on another generator"),
        (lambda: steer(generator, z[:, :5], {"a": 1.0}, steering=steering), r"z must be \(N, 8\)"),
        (lambda: steer(generator, z, {"a": "far"}, steering=steering), "changes must be a number"),
        (lambda: steer(generator, z, {"a": "20"}, steering=steering), "changes must be a number"),
        (lambda: steer(generator, z, {"a": True}, steering=steering), "changes must be a number"),
        (lambda: steer(generator, z, {"a": float("nan")}, steering=steering), "changes must be a finite number"),
        (lambda: steer(generator, z, {"a": float("inf")}, steering=steering), "changes must be a finite number"),
        (lambda: steer(generator, z, {"a": (1, 2), "b": (1, 2, 3)}, steering=steering), "as many amounts for each"),
        (lambda: steer(generator, z, {"a": ()}, steering=steering), "as many amounts for each"),
        (lambda: steer(generator, z, {"a": 1.0}, hold="q", steering=steering), "not q"),
        (
            lambda: steer(generator, z, {"a": 1.0}, lp.Measures(lambda x: bands(x)[["a"]], {"a": "mm"}), steering=steering),
            "measures have a",
        ),
        *(
            (lambda bad=bad: steer(generator, bad, {"a": 1.0}, steering=steering), "z must be")
            for bad in ("abc", None, [[1], [1, 2]], ["a"])
        ),
        (lambda: steer(generator, z, {"a": 1.0}, steering=steering, unit="mm"), "unit must be 'own' or 'sd'"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            wrong()
        assert "\n" not in str(caught.value)


def test_a_steered_path_is_a_strip_and_an_animation(fitted, tmp_path):
    generator, steering = fitted
    steered = steer(generator, generator.draw(2, 0), {"a": 1.0}, steering=steering)
    assert len(lp.strips(generator, steered).axes) == 2 * 7 + 1
    with Image.open(lp.gif(generator, steered, tmp_path / "a.gif", frames=9)) as film:
        assert film.n_frames == 16 and b"not for diagnosis" in film.info["comment"]
        film.seek(0)
        first = np.asarray(film)
        film.seek(8)
        assert (np.asarray(film) != first).any()


def test_steering_is_measured_as_directions_are(fitted):
    generator, steering = fitted
    table = respond_steered(generator, steering, samples=8).table()
    own = table[table["direction"] == table["factor"].map("abcd".index)].set_index("factor")
    straight = best_directions(lp.respond(generator, lp.discover(generator, "random", 8), samples=8).table())
    assert (own["selectivity"] > 0.7).all() and (own["selectivity"] > straight["selectivity"]).all()
    assert (own["r"] > 0.9).all() and ((own["effect"] - 1).abs() < 0.3).all()


def test_what_hardly_varies_is_not_steered(fitted):
    """A factor that goes less than a tenth of what a pixel's move does to it counts as still, here as along directions."""
    generator, _ = fitted
    faint = lp.Measures(lambda x: bands(x).assign(d=lambda t: 1 + 1e-9 * t["d"]), dict.fromkeys("abcd", "mm"))
    steering = fit_steering(generator, faint, samples=300)
    assert steering.can_move == ("a", "b", "c")
    with pytest.raises(UserError, match="d cannot be measured, or does not vary"):
        steer(generator, generator.draw(1, 0), {"d": 1.0}, faint, steering=steering)
    with pytest.raises(UserError, match="give more samples, or other measures"):
        fit_steering(generator, faint, samples=10)


@pytest.mark.parametrize("d", [4, 6])
def test_fewer_dimensions_than_twice_the_factors_will_do(d):
    """There are no random ways left beside those that the factors span."""
    generator = lp.as_generator(nn.Sequential(nn.Linear(d, 256), nn.Unflatten(1, (1, 16, 16)), nn.Tanh()), d, measures=MEASURES)
    steered = steer(generator, generator.draw(3, 0), {"a": 0.5}, unit="sd", steering=fit_steering(generator, samples=100), probes=2)
    assert steered.factors.shape[1:] == (3, 4) and len(steered.why) == 3


def test_no_step_leads_away_and_changes_asked_one_after_another_lie_on_one_path(fitted):
    generator, steering = fitted
    z = generator.draw(8, 5)
    steered = steer(generator, z, {"a": (0.5, 1.0)}, steering=steering)
    off = np.abs((steered.factors - steered.factors[0] - steered.asked) / steered.spread)
    first, last = steered.stops
    lacking = off[first:, :, 0] + 2 * off[first:, :, 1:].mean(2)
    assert (np.diff(lacking, axis=0) <= 1e-6).all()
    assert np.median(steered.factors[first, :, 0] - steered.factors[0, :, 0]) == pytest.approx(0.5, abs=0.05)
    assert torch.equal(steered.z[: first + 1], steer(generator, z, {"a": 0.5}, steering=steering).z), "the way to the first is the same"
    assert last == len(steered.z) - 1 and steered.change["a"].median() == pytest.approx(1.0, abs=0.05)


def test_measured_slopes_lead_where_what_was_learned_does_not(fitted):
    """A network that has learned nothing: without a probe z goes nowhere, with one it arrives."""
    generator, steering = fitted
    torch.manual_seed(0)
    ignorant = Steering(
        nn.Sequential(nn.Linear(D, 4)).requires_grad_(False),
        steering.factors,
        steering.mean,
        steering.spread,
        steering.r2,
        steering.generator,
    )
    z = generator.draw(12, 4)
    arrived = [steer(generator, z, {"a": 1.0}, steering=ignorant, probes=probes).why.count("reached") for probes in (0, 1, 2)]
    assert arrived[0] < arrived[1] <= arrived[2] and arrived[2] >= 9


def test_a_factor_that_was_to_hold_and_is_lost_is_not_reached(fitted):
    """Where d can be measured no longer nobody knows that it held."""
    generator, steering = fitted
    hidden = lp.Measures(lambda x: bands(x).assign(d=lambda t: t["d"].where(t["a"] < 1.5)), dict.fromkeys("abcd", "mm"))
    z = torch.cat([generator.draw(64, 6), torch.zeros(1, D)])
    z = z[torch.tensor((hidden.of(generator, z)["a"] < 1.2).to_list())]
    steered = steer(generator, z, {"a": 2.0}, hidden, steering=steering)
    table, far = steered.table(), steered.factors[-1][:, 0] > 1.5
    assert far.any() and (table["others, lost"] == far).all()
    assert "reached" not in {why for why, lost in zip(steered.why, far, strict=True) if lost}
    free = steer(generator, z, {"a": 2.0}, hidden, hold=("b", "c"), steering=steering)
    assert free.why.count("reached") > steered.why.count("reached")


def test_no_change_is_a_path_of_one_image(fitted):
    generator, steering = fitted
    steered = steer(generator, generator.draw(3, 0), {"a": 0}, steering=steering)
    assert steered.why == ("reached",) * 3 and steered.rounds.tolist() == [0, 0, 0] and len(steered.z) == 1
