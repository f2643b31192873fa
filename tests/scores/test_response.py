import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lpdirs.data.store import scale
from lpdirs.discovery.directions import Directions
from lpdirs.measures.measures import Measures
from lpdirs.measures.thorax import UNITS, measure_all, thorax
from lpdirs.phantom.painting import FOV_MM, render
from lpdirs.phantom.population import sample_patients
from lpdirs.scores.naming import Rules, image_changes, name_directions
from lpdirs.scores.response import Responses, best_directions, cross_fitted, merit, respond
from tests.toys import bare

SHIFTS = np.array([-4.0, -2, 0, 2, 4])

WINDOW = (-1000.0, 1000.0)
MEASURES = thorax(WINDOW, FOV_MM / 64)
TWO = Measures(lambda x: measure_all(x, WINDOW, FOV_MM / 64, None), {name: UNITS[name] for name in ("rotation", "y_position")})


class Warps(nn.Module):
    """A generator whose first two dimensions turn one synthetic slice (4 degrees a unit) and move it down (8 mm a unit)."""

    latent_dim = 5

    def __init__(self):
        super().__init__()
        patient = sample_patients(1, 1)[0]
        self.register_buffer("x", scale(torch.from_numpy(render(patient, 0.5, 64, noise=0)), (-1000.0, 1000.0))[None])

    def forward(self, z):
        angle, down = torch.deg2rad(4 * z[:, 0]), 8 * z[:, 1] * 2 / FOV_MM
        cos, sin = angle.cos(), angle.sin()
        theta = torch.stack([cos, sin, -sin * down, -sin, cos, -cos * down], 1).view(-1, 2, 3)
        x = self.x.expand(len(z), -1, -1, -1)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return F.grid_sample(x + 1, grid, align_corners=False) - 1


def test_planted_factors_are_named_with_their_size():
    directions = Directions(torch.eye(5)[[3, 1, 0]])  # nothing, down, turn
    found = respond(bare(Warps()), directions, MEASURES, (-2, -1, 0, 1, 2), samples=8)
    table = found.table().set_index(["direction", "factor"])
    assert table.loc[(2, "rotation"), "r"] > 0.99
    assert table.loc[(2, "rotation"), "slope"] == pytest.approx(4, rel=0.1)
    assert table.loc[(1, "y_position"), "r"] > 0.99
    assert table.loc[(1, "y_position"), "slope"] == pytest.approx(8, rel=0.1)
    assert table.loc[(2, "rotation"), "sign_consistency"] == 1
    assert table.loc[0]["effect"].abs().max() < 0.01, "the third does nothing"
    best = best_directions(found.table())
    assert best.loc["rotation", "direction"] == 2 and best.loc["y_position", "direction"] == 1


def test_r_does_not_count_how_starting_slices_differ():
    steps, starts = np.array([-1.0, 0.0, 1.0]), np.array([-100.0, 0.0, 100.0])
    values = (steps[:, None] + starts[None])[None, :, :, None]
    row = Responses(values, steps, pd.Series({"rotation": 50.0})).table().iloc[0]
    assert row["r"] == pytest.approx(1) and row["slope"] == pytest.approx(1) and row["effect"] == pytest.approx(0.02)


def test_breasts_are_judged_where_there_are_any():
    """Of two starting slices one is at the level of the breasts and follows the step; at the other the factor cannot change."""
    steps = np.array([-1.0, 0.0, 1.0])
    values = np.zeros((1, 3, 2, 2))
    values[0, :, 0, 0], values[0, :, :, 1] = steps, [0.5, 0.9]
    table = (
        Responses(values, steps, pd.Series({"breast": 10.0, "z_position": 0.2}), {"breast": ("z_position", 0.3, 0.7)})
        .table()
        .set_index("factor")
    )
    assert table.loc["breast", "r"] == pytest.approx(0.5) and table.loc["breast", "r_level"] == pytest.approx(1)
    assert table.loc["breast", "sign_consistency"] == 0.5 and table.loc["breast", "sign_level"] == 1
    assert table.loc["breast", "at_level"] == 0.5 and table.loc["z_position", "at_level"] == 1
    alone = Responses(values[..., :1], steps, pd.Series({"breast": 10.0})).table()
    assert alone["r_level"].item() == pytest.approx(0.5), "without z all count"


def test_what_could_not_be_measured_is_counted_and_left_out():
    steps = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    values = np.repeat(3 * steps[:, None], 4, 1)[None, :, :, None].copy()
    values[0, :, 3] = np.nan
    values[0, 0, 0] = np.nan
    row = Responses(values, steps, pd.Series({"rotation": 1.0})).table().iloc[0]
    assert row["missing"] == pytest.approx(6 / 20) and row["slope"] == pytest.approx(3) and row["r"] == pytest.approx(1)
    nothing = Responses(np.full_like(values, np.nan), steps, pd.Series({"rotation": 1.0})).table().iloc[0]
    assert nothing["missing"] == 1 and np.isnan(nothing["r"])


@pytest.fixture(scope="module")
def planted():
    a = torch.eye(5)[[3, 1, 0, 1]]
    a[3] = torch.nn.functional.normalize(torch.tensor([0.02, -1.0, 0, 0, 0]), dim=0)  # nearly the reverse of the second
    directions, warps = Directions(a), bare(Warps())
    found = respond(warps, directions, TWO, (-2, -1, 0, 1, 2), 24)
    return found.table(), directions, image_changes(warps, directions, samples=8)


def placed(table, p=0.01):
    """As though every factor were beyond chance, or none."""
    return pd.DataFrame({"selectivity_corrected": p}, index=table["factor"].unique())


FIXED = Rules(selectivity=0.7)


def test_names_are_earned_and_say_how_sure(planted):
    table, directions, changes = planted
    rows = name_directions(directions, table, changes, UNITS, (table, placed(table)), FIXED)
    assert rows["kind"].tolist() == ["dead", "named", "named", "named"]
    assert rows["factor"].tolist()[1:] == ["y_position", "rotation", "y_position"]
    words = rows.loc[2, "words"]
    assert words.startswith("rotation, +4") and "degrees per unit of shift, " in words and words.endswith("of what it does")
    assert rows.loc[2, "selectivity_low"] <= rows.loc[2, "selectivity"] <= rows.loc[2, "selectivity_high"]
    assert sorted(rows["name"]) == ["", "rotation", "y_position", "y_position 2"]
    assert rows["same_as"].tolist() == [-1, -1, -1, 1], "the reverse of a direction is the same direction"
    assert rows.loc[0, "words"].startswith("dead")
    by_chance = name_directions(directions, table, changes, UNITS, (table, placed(table, 0.2)), FIXED)
    assert not by_chance["name"].any(), "what random sets reach earns no name, however pure it looks"


def test_a_bar_that_is_not_reached_gives_no_name(planted):
    table, directions, changes = planted
    rows = name_directions(directions, table, changes, UNITS, (table, placed(table)), Rules(selectivity=0.999))
    assert (rows["name"] == "").all() and rows.loc[2, "words"].startswith("mixed: mostly rotation")


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng, steps = np.random.default_rng(0), np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    slopes = rng.normal(3, 1, (200, 30))  # true mean 3; 200 directions stand for 200 repetitions
    values = slopes[:, None, :] * steps[None, :, None] + rng.normal(0, 0.1, (200, 5, 30))
    table = Responses(values[..., None], steps, pd.Series({"rotation": 1.0})).table()
    assert ((table["effect_low"] <= 3) & (3 <= table["effect_high"])).mean() == pytest.approx(0.94, abs=0.05)
    assert (table["q"] < 0.01).all()


def test_what_only_varies_is_no_effect():
    rng, steps = np.random.default_rng(0), np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    values = rng.normal(size=(100, 5, 30, 1))
    table = Responses(values, steps, pd.Series({"rotation": 1.0})).table()
    assert (table["q"] < 0.05).mean() < 0.03 and table["r"].abs().max() < 0.5
    assert table["sign_consistency"].mean() < 0.75


def test_where_nothing_can_be_measured_nothing_is_named(planted):
    directions = planted[1]
    nothing = Responses(np.full((4, 5, 6, 2), np.nan), np.arange(-2.0, 3), pd.Series({"rotation": np.nan, "thickness": 1.0})).table()
    assert (nothing["q"] == 1).all() and (nothing["missing"] == 1).all()
    rows = name_directions(directions, nothing, planted[2], UNITS, (nothing, placed(nothing)), FIXED)
    assert rows["kind"].tolist() == ["dead", "mixed", "mixed", "mixed"] and (rows["name"] == "").all()
    assert best_directions(nothing)["direction"].isna().all()


def test_what_is_chosen_on_half_of_the_images_is_scored_on_the_other(monkeypatch):
    """Of directions that do nothing the best one looks good where it was chosen; cross-fitted it is as it is on new images."""
    monkeypatch.setattr("lpdirs.scores.response.LEAST_EFFECT", 0.0)
    rng, spread = np.random.default_rng(0), pd.Series([1.0, 1.0, 1.0], index=list("abc"))
    noise = lambda: rng.normal(size=(32, 5, 24, 3))
    chosen, fitted, fresh = [], [], []
    for _ in range(30):
        table = Responses(noise(), SHIFTS, spread).table(0, 1)
        best = best_directions(table)["selectivity"]
        chosen.append(best.mean())
        fitted.append(cross_fitted(table)["selectivity"].to_numpy().mean())
        fresh.append(Responses(noise(), SHIFTS, spread).table(0, 1)["selectivity"].mean())
    assert np.mean(chosen) > 2 * np.mean(fresh) and np.mean(fitted) == pytest.approx(np.mean(fresh), rel=0.1)


def test_cross_fitted_takes_sets_and_leaves_out_what_does_not_move():
    values = np.zeros((4, 5, 6, 2))
    values[..., 0] = np.array([1.0, 2, 3, 4])[:, None, None] * np.linspace(-2, 2, 5)[:, None]  # b never moves
    table = Responses(values, SHIFTS, pd.Series([1.0, 1.0], index=list("ab"))).table(0, 1)
    found = cross_fitted(table, np.array([[0, 1], [2, 3]]))
    assert found["r"]["a"].tolist() == pytest.approx([1, 1]) and found["selectivity"]["b"].isna().all()


def test_with_one_factor_the_best_direction_moves_it_regularly_and_most():
    """Selectivity is 1 along every direction: |r| alone would choose the most regular one, however little it moves."""
    values = np.zeros((2, 5, 6, 1))
    noise = np.random.default_rng(0).normal(size=(5, 6))
    values[0, ..., 0] = 0.5 * np.linspace(-2, 2, 5)[:, None] + 0.01 * noise
    values[1, ..., 0] = 1.5 * np.linspace(-2, 2, 5)[:, None] + 0.30 * noise
    table = Responses(values, SHIFTS, pd.Series([1.0], index=["a"])).table(0, 1)
    assert table["r"].iloc[0] > table["r"].iloc[1] > 0.9 and best_directions(table).loc["a", "direction"] == 1
    assert merit(np.array([0.9]), np.array([1.0]), np.array([0.01]), 1)[0] == -np.inf
