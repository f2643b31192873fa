import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from lpdirs.analysis.anatomy import MEASURES, measure
from lpdirs.analysis.zposition import fit_z
from lpdirs.data.phantom import FOV_MM, render
from lpdirs.data.population import factors_at, sample_patients
from lpdirs.data.store import open_dataset, to_hu

PIXEL = FOV_MM / 64


@pytest.fixture(scope="module")
def measured_and_true():
    t = np.linspace(0.15, 0.9, 6)
    patients = sample_patients(30, seed=11)
    hu = np.concatenate([render(p, t, 64) for p in patients])
    true = pd.concat([pd.DataFrame(factors_at(p, t)) for p in patients], ignore_index=True)
    return measure(hu, PIXEL), true


@pytest.mark.parametrize(
    ("name", "least"), [("rotation", 0.99), ("x_position", 0.99), ("y_position", 0.99), ("thickness", 0.97), ("width", 0.95)]
)
def test_measures_agree_with_the_truth(measured_and_true, name, least):
    measured, true = measured_and_true
    assert np.corrcoef(measured[name], true[name])[0, 1] > least
    slope = np.polyfit(true[name], measured[name], 1)[0]
    assert slope == pytest.approx(1, abs=0.05 if name != "width" else 0.2)


def test_breast_size_is_read_where_the_breasts_are(measured_and_true):
    measured, true = measured_and_true
    middle = true["z"].between(0.4, 0.65)
    assert np.corrcoef(measured["breast"][middle], true["breast"][middle])[0, 1] > 0.95


def test_a_turn_of_t_degrees_reads_as_t():
    hu = render(sample_patients(1, 1)[0], 0.5, 128)[0]
    turns = np.array([-15.0, -5.0, 0.0, 5.0, 15.0])
    warped = [ndimage.rotate(hu, -t, reshape=False, order=1, mode="constant", cval=-1000) for t in turns]  # clockwise
    read = measure(np.stack(warped), FOV_MM / 128)["rotation"].to_numpy()
    assert np.allclose(read - read[2], turns, atol=0.8)


def test_a_move_of_so_many_mm_reads_as_such():
    hu = render(sample_patients(1, 1)[0], 0.5, 128)[0]
    moved = np.stack([hu, ndimage.shift(hu, (5, -3), order=0, mode="constant", cval=-1000)])
    change = measure(moved, 2.0).diff().iloc[1]
    assert change["y_position"] == pytest.approx(10, abs=0.5) and change["x_position"] == pytest.approx(-6, abs=0.5)
    assert abs(change["rotation"]) < 0.3 and abs(change["thickness"]) < 1


def test_no_body_is_nan_not_a_guess():
    whole = render(sample_patients(1, 1)[0], 0.5, 64)[0]
    cut_off = np.full((64, 64), 40.0)
    open_wall = whole.copy()
    open_wall[:, :18] = -1000  # the side of the chest is out of the field of view, and a lung open to the air
    table = measure(np.stack([np.full((64, 64), -1000.0), cut_off, open_wall, whole]), PIXEL)
    assert list(table) == list(MEASURES)
    assert table.isna().all(axis=1).tolist() == [True, True, True, False]


def test_a_real_slice_turned_reads_the_turn(real_ct, tmp_path):
    from lpdirs.data.build import DataSettings, build_dataset

    build_dataset(real_ct / "lung_pet_ct_dx", tmp_path / "data", DataSettings(128, (-1000.0, 1000.0), min_lung=0.1))
    slices = open_dataset(tmp_path / "data")
    hu = np.asarray(slices.hu[:: max(1, len(slices) // 10)], np.float32)
    padded = np.pad(hu, ((0, 0), (16, 16), (16, 16)), constant_values=-1000)
    turn = lambda t: np.stack([ndimage.rotate(h, -t, reshape=False, order=1, cval=-1000) for h in padded])
    change = measure(turn(8.0), 3.0)["rotation"] - measure(turn(0.0), 3.0)["rotation"]
    assert abs(change.median() - 8) < 1


def test_z_position_is_read_on_patients_it_was_not_fitted_to(dataset):
    train = open_dataset(dataset, "train")
    held_out = type(train)(train.hu, train.table[train.table["patient"] > "P0011"], train.window)
    fitted = type(train)(train.hu, train.table[train.table["patient"] <= "P0011"], train.window)
    z = fit_z(fitted, held_out)
    assert z.r > 0.9 and z.error < 0.12 and z.held_out == len(held_out)
    guess = z(to_hu(held_out.tensor()[:, 0].numpy(), held_out.window))
    assert np.corrcoef(guess, held_out.table["true_z"])[0, 1] == pytest.approx(z.r)


def test_too_few_positions_give_no_regression(dataset):
    train = open_dataset(dataset, "train")
    few = type(train)(train.hu, train.table.head(20), train.window)
    assert fit_z(few, train) is None
