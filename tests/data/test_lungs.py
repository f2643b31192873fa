"""Lung is the lungs of the whole series, and no other gas."""

import numpy as np
import pytest

from lpdirs.data.body import lung_fractions, lung_masks
from lpdirs.data.build import build_dataset
from lpdirs.data.series import DataSettings
from lpdirs.data.store import open_dataset
from lpdirs.phantom.painting import FOV_MM, render
from lpdirs.phantom.population import sample_patients
from tests.data.files import MM, SIZE, chest, write

Y, X = np.mgrid[:SIZE, :SIZE]
disc = lambda x, y, a, b=None: ((X - x) / a) ** 2 + ((Y - y) / (b or a)) ** 2 < 1


def neck_to_belly() -> list[np.ndarray]:
    """30 slices: lung on 8 to 21, an airway on 0 to 3, a stomach bubble on 24 to 29."""
    slices = [chest((i - 8) / 13) for i in range(30)]
    for i, hu in enumerate(slices):
        if i < 4:
            hu[disc(64, 58, 9)] = -990
        if i >= 24:
            hu[disc(80, 55, 18, 12)] = -990
    return slices


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_z_runs_from_apex_to_base_whatever_gas_there_is(tmp_path, size):
    for i, hu in enumerate(neck_to_belly()):
        write(tmp_path / "in" / f"{i:02d}", hu, 100 - 5.0 * i, i + 1)
    build_dataset(tmp_path / "in", tmp_path / "all", DataSettings(size=size))
    table = open_dataset(tmp_path / "all").table
    assert (table["z_fraction"][8], table["z_fraction"][21]) == (0, 1)
    assert (table["lung_fraction"][[*range(8), *range(22, 30)]] == 0).all()
    build_dataset(tmp_path / "in", tmp_path / "lung", DataSettings(size=size, min_lung=0.05))
    kept = open_dataset(tmp_path / "lung").table
    assert list(kept["z_mm"]) == [100 - 5.0 * i for i in range(8, 22)]
    assert (kept["z_fraction"].iloc[0], kept["z_fraction"].iloc[-1]) == (0, 1), "what is left out does not move z"


def test_lungs_that_the_frame_cuts_are_lungs(tmp_path):
    """The frame's sides run through both lungs; or the field of view is a disc that does."""
    for i in range(12):
        write(tmp_path / "cut" / f"{i}", chest((i - 2) / 7)[20:100, 38:90].copy(), 100 - 5.0 * i, i + 1)
        unseen = np.where(np.hypot(X - 63.5, Y - 63.5) > 38, -3000, chest((i - 2) / 7))
        write(tmp_path / "disc" / f"{i}", unseen, 100 - 5.0 * i, i + 1, raw=unseen, RescaleIntercept=0)
    for name in ("cut", "disc"):
        build_dataset(tmp_path / name, tmp_path / f"{name} out", DataSettings(size=64))
        share = open_dataset(tmp_path / f"{name} out").table["lung_fraction"].to_numpy()
        assert (share[[0, 1, 10, 11]] == 0).all() and share[3:9].min() > 0.1 and share[5:7].max() > 0.35


def test_the_area_of_the_lungs_is_right():
    hu = np.stack([chest(z) for z in (0.3, 0.5, 0.7)])
    body, lung = lung_masks(hu, np.zeros(hu.shape, bool), MM)
    inside = (((X + 0.5 - SIZE / 2) * MM / 150) ** 2 + ((Y + 0.5 - SIZE / 2) * MM / 105) ** 2) < 1
    truth = (hu < -400) & inside
    for found, right in ((body, np.broadcast_to(inside, hu.shape)), (lung, truth)):
        assert 2 * (found & right).sum() / (found.sum() + right.sum()) > 0.97
    assert lung_fractions(hu, np.zeros(hu.shape, bool), MM) == pytest.approx(truth.sum((1, 2)) / inside.sum(), abs=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_the_phantom_s_lungs_are_found_without_its_windpipe(seed):
    volume = render(sample_patients(seed + 1, 0)[seed], np.linspace(0.02, 0.98, 24), SIZE)
    share = lung_fractions(volume, np.zeros(volume.shape, bool), FOV_MM / SIZE)
    assert share[8:14].min() > 0.25
    alone = lung_fractions(volume[10:11], np.zeros(volume[:1].shape, bool), FOV_MM / SIZE)
    assert alone == pytest.approx(share[10:11], abs=0.02), "a slice that has no series"


def test_no_abdomen_neck_or_head_of_real_ct_counts(real_ct, tmp_path):
    """Looked at once, on contact sheets: of 95 single slices 64 show lung, and 31 show abdomen, pelvis, neck or shoulders."""
    build_dataset(real_ct / "tcga_lung_single_slices", tmp_path / "all", DataSettings(size=64))
    table = open_dataset(tmp_path / "all").table
    assert (table["lung_fraction"] > 0.02).sum() == pytest.approx(64, abs=1)
