"""Second definitions of shape: right on the phantom, moved as slices are moved, and there on nearly all real slices."""

import numpy as np
import pandas as pd
import pytest
import torch

import lpdirs as lp
from lpdirs.base.errors import UserError
from lpdirs.data.build import build_dataset
from lpdirs.data.series import DataSettings
from lpdirs.data.store import moved, open_dataset, to_hu
from lpdirs.measures.inner import INNER, inner
from lpdirs.phantom.painting import FOV_MM, render
from lpdirs.phantom.population import factors_at, sample_patients
from tests.conftest import ROOT

PAIRS = {"axis_rotation": "rotation", "axis_x": "x_position", "spine_y": "y_position", "lungs_width": "width", "lungs_depth": "thickness"}


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    build_dataset(ROOT / "data_manifests" / "chest_ct" / "dicom", folder, DataSettings(size=64))
    slices = open_dataset(folder)
    slices = slices.tensor(np.linspace(0, len(slices) - 1, 120).astype(int)), slices.window, float(slices.table["pixel_mm"].median())
    return slices


def read(x, window, pixel_mm):
    return pd.DataFrame(inner(to_hu(x[:, 0].numpy(), window), pixel_mm))


@pytest.mark.parametrize("size", [64, 128])
def test_they_follow_the_phantom_s_truth(size):
    levels, patients = np.linspace(0.25, 0.75, 4), sample_patients(25, seed=4)
    true = pd.concat([pd.DataFrame(factors_at(p, levels)) for p in patients], ignore_index=True)
    found = pd.DataFrame(inner(np.concatenate([render(p, levels, size) for p in patients]), FOV_MM / size))
    assert found.notna().mean().min() > 0.8
    for name, least in {"axis_rotation": 0.99, "axis_x": 0.98, "spine_y": 0.8, "lungs_width": 0.6, "lungs_depth": 0.8}.items():
        assert found[name].corr(true[PAIRS[name]]) > least, name
    assert (found["axis_rotation"] - true["rotation"]).abs().median() < 0.5 and (found["axis_x"] - true["x_position"]).abs().median() < 1.5


def test_at_least_four_fifths_of_real_slices_are_measured(real):
    assert (read(*real).notna().mean() >= 0.8).all()


@pytest.mark.parametrize(
    ("motion", "name", "by"),
    [((6.0, 1, 1, 0, 0), "axis_rotation", -6.0), ((0, 1, 1, 0.1, 0), "axis_x", "half"), ((0, 1, 1, 0, 0.1), "spine_y", "half")],
)
def test_a_real_slice_that_is_turned_or_shifted_reads_so(real, motion, name, by):
    x, window, pixel_mm = real
    plain, after = read(x, window, pixel_mm), read(moved(x, torch.tensor([motion]).float().expand(len(x), 5)), window, pixel_mm)
    change, wanted = (after - plain).median(), 0.1 * 32 * pixel_mm if by == "half" else by
    assert change[name] == pytest.approx(wanted, rel=0.1)
    others = [other for other in ("axis_rotation", "axis_x") if other != name]
    assert (change[others].abs() < [0.5 if other == "axis_rotation" else 2.0 for other in others]).all()


def test_a_real_slice_that_is_stretched_reads_so(real):
    x, window, pixel_mm = real
    after = read(moved(x, torch.tensor([[0.0, 1.1, 0.9, 0, 0]]).expand(len(x), 5)), window, pixel_mm)
    ratio = (after / read(*real)).median()
    assert ratio["lungs_width"] == pytest.approx(1.1, abs=0.02) and ratio["lungs_depth"] == pytest.approx(0.9, abs=0.02)


def test_a_bulge_of_the_skin_moves_none_of_them():
    """What the outline's axis reads as a turn: fat on one side."""
    hu = render(sample_patients(1, 3)[0], 0.5, 128, noise=0)
    y, x = np.mgrid[:128, :128]
    bulge = ((x - 100) / 14) ** 2 + ((y - 50) / 20) ** 2 < 1
    swollen = np.where(bulge & (hu < -300), 0.0, hu).astype(np.float32)
    for name, values in inner(swollen, FOV_MM / 128).items():
        room = {"axis_rotation": 1.0, "axis_x": 2.0}.get(name, 5.0)
        assert abs(values[0] - inner(hu, FOV_MM / 128)[name][0]) < room, name


def test_where_nothing_is_there_nothing_is_measured_and_the_group_is_one_setting():
    assert all(np.isnan(values).all() for values in inner(np.full((3, 64, 64), -1000.0, np.float32), 5.0).values())
    measures = lp.thorax((-1000, 1000), 5.0, factors="inner")
    assert measures.factors == tuple(INNER) and list(measures(torch.full((2, 1, 64, 64), -1.0))) == list(INNER)
    with pytest.raises(UserError, match="shape, tissue, inner, both, all"):
        lp.thorax((-1000, 1000), 5.0, factors="outer")
