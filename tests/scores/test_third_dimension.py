"""The third dimension on patients whose volume is known: a path that is planted is found, and predicts; what holds nothing does not."""

import numpy as np
import pandas as pd
import pytest
import torch

from lpdirs.base.errors import UserError
from lpdirs.data.store import Slices, open_dataset
from lpdirs.discovery.curved import fit_path
from lpdirs.discovery.directions import Best, Directions
from lpdirs.measures.thorax import known_z
from lpdirs.phantom.painting import FOV_MM, render
from lpdirs.phantom.population import LENGTH_MM, sample_patients
from lpdirs.scores.third_dimension import (
    Walk,
    mean_slices,
    most_similar,
    over_patients,
    pairs_of,
    predict,
    predictions,
    reformat,
    usual_pairs,
)
from tests.toys import bare


@pytest.fixture(scope="module")
def slices(dataset):
    return open_dataset(dataset)


def spacing(slices):
    """mm between slices."""
    return float(slices.table.groupby("series")["z_mm"].apply(lambda z: np.median(np.abs(np.diff(np.sort(z))))).median())


def test_a_curved_path_is_found_though_patients_differ_more_than_levels(rng):
    z, patients = rng.uniform(0, 1, 600), rng.integers(0, 30, 600)
    curve = lambda z: np.stack([np.sin(3 * z), z**2, 0 * z], 1)
    latents = torch.from_numpy(5 * rng.normal(size=(30, 3))[patients] + curve(z) + 0.05 * rng.normal(size=(600, 3))).float()
    path = fit_path(latents, z, patients)
    a, b = np.linspace(0.1, 0.5, 9), np.linspace(0.5, 0.9, 9)
    moved = path.move(torch.zeros(9, 3), a, b).numpy()
    assert np.abs(moved - (curve(b) - curve(a))).max() < 0.08
    assert torch.allclose(path.move(moved := torch.randn(9, 3), a, a), moved, atol=1e-5)
    with pytest.raises(UserError, match="at least 14 slices"):
        fit_path(latents[:10], z[:10])


def test_pairs_lie_in_one_patient_and_so_far_apart(slices):
    step = spacing(slices)
    pairs = pairs_of(slices, (step, 3 * step))
    mm, patient = slices.table["z_mm"].to_numpy(), slices.table["patient"].to_numpy()
    assert len(pairs) and set(pairs["gap"]) == {step, 3 * step}
    assert (np.abs(np.abs(mm[pairs["start"]] - mm[pairs["end"]]) - pairs["gap"]) <= step / 2 + 0.1).all()
    assert (patient[pairs["start"]] == patient[pairs["end"]]).all() and (patient[pairs["start"]] == pairs["patient"]).all()
    assert (mm[pairs["start"]] > mm[pairs["end"]]).mean() == pytest.approx(0.5, abs=0.05), "to the feet as often as to the head"


def test_who_knows_the_patient_errs_by_nothing_and_staying_put_errs_more_the_further(slices):
    pairs = pairs_of(slices, tuple(spacing(slices) * n for n in (1, 2, 4)))
    methods = {
        "knows": lambda rows: slices.tensor(rows["end"].to_numpy(int)),
        "stays": lambda rows: slices.tensor(rows["start"].to_numpy(int)),
        "mean slice": lambda rows: mean_slices(slices, rows["z_end"].to_numpy()),
    }
    table = over_patients(predictions(slices, pairs, methods))
    assert list(table.index) == list(methods) and (table["mean"].loc["knows"] == 0).all()
    assert table["mean"].loc["stays"].is_monotonic_increasing and (table["half"].loc["stays"] > 0).all()
    assert (table["mean"].loc["mean slice"] < table["mean"].loc["stays"]).iloc[-1]


def test_mean_slices_are_of_their_level(slices):
    z = known_z(slices.table)
    mean = mean_slices(slices, np.array([0.5]))[0]
    rows = np.flatnonzero(np.abs(z - 0.5) <= 0.03)
    assert torch.allclose(mean, slices.tensor(rows).mean(0))


def test_a_reformat_is_that_of_the_patient():
    volume = render(sample_patients(20, 3)[18], np.linspace(0.1, 0.9, 41), 32, noise=0)
    z = np.linspace(0.1, 0.9, 41)
    coronal, sagittal = reformat(volume[::-1], z[::-1], LENGTH_MM, FOV_MM / 32)
    assert coronal.shape[1] == sagittal.shape[1] == 32 and len(coronal) == len(sagittal) > 8
    assert np.allclose(coronal[0], volume[0, 16]) and np.allclose(sagittal[-1], volume[-1, :, 16])
    assert pd.Series((coronal < -600).mean(1)).between(0, 1).all() and (coronal > 0).mean() > 0.1


N, SIZE = 20, 16


class Levels(torch.nn.Module):
    """Images whose rows below a level are dense; the level is the first entry of z."""

    latent_dim = 4

    def forward(self, z):
        rows = torch.arange(SIZE, dtype=z.dtype) / SIZE
        return torch.tanh(8 * (rows[None] - z[:, :1]))[:, None, :, None].expand(-1, 1, SIZE, SIZE)


def planted_slices(series: list[str]) -> Slices:
    level = np.tile(np.linspace(0, 1, N), 2)
    x = Levels()(torch.tensor(level, dtype=torch.float32)[:, None].expand(-1, 4))
    table = pd.DataFrame({"patient": np.repeat(["a", "b"], N), "series": series, "z_mm": -200 * level, "z_fraction": level})
    return Slices((x[:, 0].numpy() * 1000).astype(np.int16), table.assign(row=range(2 * N)), (-1000.0, 1000.0))


def test_slices_that_are_alone_have_no_pairs():
    assert len(usual_pairs(planted_slices([str(i) for i in range(2 * N)]))) == 0


def test_the_path_that_knows_the_level_reaches_the_floor_and_a_random_direction_does_not():
    held_out, generator = planted_slices(["a"] * N + ["b"] * N), bare(Levels())
    pairs = usual_pairs(held_out)
    assert set(pairs["patient"]) == {"a", "b"} and pairs["gap"].max() > 90
    level = lambda x: (x[:, 0, :, 0] < 0).float().mean(1)
    put = lambda x: torch.stack([level(x), *torch.zeros(3, len(x))], 1)
    z = generator.draw(400, 0)
    walk = Walk(generator, fit_path(z, z[:, 0].numpy()), put)
    best = Best(direction=0, slope=1.0)
    table = predict(walk, Directions(torch.eye(4)), best, pairs, (held_out, held_out), None)
    error = table.groupby("method")["error"].mean()
    floor = error["the slice itself, drawn again"]
    assert error["straight direction"] < 1.3 * floor + 20 and error["curved path"] < 0.5 * error["stays put"]
    assert error["random direction"] > 2 * error["curved path"]


def test_the_most_similar_patient_is_found_and_gives_its_slice(slices):
    """Slices of a patient who is in the set: the same patient is the most similar, and the slice is theirs."""
    level, patient = known_z(slices.table), slices.table["patient"].to_numpy()
    rows = np.flatnonzero(patient == patient[0])
    rows = rows[np.isfinite(level[rows])]
    start, end = rows[0], rows[-1]
    found = most_similar(slices, slices.tensor([start]), level[[start]], level[[end]])
    assert torch.equal(found, slices.tensor([end]))
    nowhere = most_similar(slices, slices.tensor([start]), np.array([9.0]), level[[end]])
    assert torch.equal(nowhere, mean_slices(slices, level[[end]]))
