import json
import os
import shutil

import numpy as np
import pandas as pd
import pydicom
import pytest
import torch

from lpdirs.base.checkpoints import stream
from lpdirs.base.errors import SettingsDiffer, UserError
from lpdirs.data.build import NoSlices, build_dataset
from lpdirs.data.folder import REASONS, find_files
from lpdirs.data.lidc import read_manifest
from lpdirs.data.series import DataSettings, z_fractions
from lpdirs.data.store import SPLITS, Loader, motions, moved, open_dataset, scale, split_of, to_hu
from tests.conftest import COHORT, SETTINGS


def everything(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_every_slice_is_there_with_its_truth(dataset):
    slices = open_dataset(dataset)
    assert slices.hu.shape == (COHORT.patients * COHORT.slices, 32, 32) and slices.hu.dtype == np.int16
    table = slices.table
    assert table["patient"].nunique() == COHORT.patients
    assert not table.filter(like="true_").isna().any(axis=None)
    # z of the truth and z of the geometry tell the same order
    for _, patient in table.groupby("patient"):
        assert patient["true_z"].is_monotonic_increasing and patient["z_fraction"].dropna().is_monotonic_increasing


def test_z_is_a_fraction_of_the_lung_s_extent():
    z = np.arange(100.0, 0, -10)
    lung = np.array([0, 0, 0.1, 0.3, 0.4, 0.4, 0.3, 0.1, 0, 0])
    fraction = z_fractions(z, lung)
    assert fraction[2] == 0 and fraction[7] == 1 and fraction[0] < 0 and fraction[9] > 1
    assert np.isnan(z_fractions(z[:4], lung[:4])).all(), "too few slices to tell"
    fine, share = np.arange(100.0, 0, -2), np.repeat(lung, 5)
    assert np.isfinite(z_fractions(fine, share)).all()
    for part in (slice(20, None), slice(0, 30)):  # lungs whose top or base lies beyond the series would be stretched to the whole
        assert np.isnan(z_fractions(fine[part], share[part])).all()


def test_patients_of_a_public_collection_keep_their_key_and_split(dicom_folder, tmp_path):
    (tmp_path / "source").mkdir()
    for path in sorted((dicom_folder / "P0002").iterdir()):
        ds = pydicom.dcmread(path)
        ds.PatientID, ds.SyntheticData = "LIDC-IDRI-0003", ""
        ds.save_as(tmp_path / "source" / path.name)
    build_dataset(tmp_path / "source", tmp_path / "data", SETTINGS)
    table, manifest = open_dataset(tmp_path / "data").table, read_manifest().set_index("patient")
    assert set(table["patient"]) == {"LIDC-IDRI-0003"}
    assert set(table["split"]) == {manifest.loc["LIDC-IDRI-0003", "split"]}


def test_no_patient_is_in_two_splits(dataset):
    table = open_dataset(dataset).table
    assert (table.groupby("patient")["split"].nunique() == 1).all()
    assert sum(len(open_dataset(dataset, split)) for split in SPLITS) == len(table)


def test_the_split_is_about_80_10_10():
    shares = pd.Series([split_of(f"patient {i}") for i in range(5000)]).value_counts(normalize=True)
    assert all(abs(shares[name] - share) < 0.02 for name, share in SPLITS.items())


def test_twice_gives_the_same_bytes(dicom_folder, dataset, tmp_path):
    build_dataset(dicom_folder, tmp_path / "again", SETTINGS)
    assert everything(tmp_path / "again") == everything(dataset)
    before = {p: os.stat(p).st_mtime_ns for p in dataset.iterdir() if p.name != ".lock"}
    build_dataset(dicom_folder, dataset, SETTINGS)
    assert before == {p: os.stat(p).st_mtime_ns for p in dataset.iterdir() if p.name != ".lock"}


def test_the_input_is_only_read(dicom_folder, tmp_path):
    before = {p: (os.stat(p).st_mtime_ns, os.stat(p).st_size) for p in find_files(dicom_folder)}
    build_dataset(dicom_folder, tmp_path / "data", SETTINGS)
    assert before == {p: (os.stat(p).st_mtime_ns, os.stat(p).st_size) for p in find_files(dicom_folder)}


def test_every_file_is_used_or_rejected(dicom_folder, tmp_path):
    source = tmp_path / "mixed"
    shutil.copytree(dicom_folder / "P0000", source / "P0000")
    shutil.copy(source / "P0000" / "000.dcm", source / "copy.dcm")
    (source / "notes.txt").write_text("not a slice")
    (source / "cut.dcm").write_bytes((source / "P0000" / "001.dcm").read_bytes()[:3000])
    data = build_dataset(source, tmp_path / "data", SETTINGS)
    rejected = pd.read_csv(tmp_path / "data" / "rejected.csv")
    assert data["slices"] + len(rejected) == len(find_files(source))
    assert set(rejected["reason"]) <= set(REASONS)
    assert data["rejected"]["not DICOM"] == 1 and "notes.txt" not in set(rejected["file"]), "it may be named after anyone"


def test_identifiers_of_a_clinic_are_not_copied(dicom_folder, tmp_path):
    source = tmp_path / "clinic"
    shutil.copytree(dicom_folder / "P0001", source)
    as_if_real(source)
    build_dataset(source, tmp_path / "data", SETTINGS)
    assert "P0001" not in (tmp_path / "data" / "slices.csv").read_text()
    assert "2.25." not in (tmp_path / "data" / "slices.csv").read_text()


def as_if_real(folder):
    """Files that no longer say that they are synthetic."""
    for path in folder.rglob("*.dcm"):
        ds = pydicom.dcmread(path)
        del ds.SyntheticData
        ds.save_as(path)


def test_slices_without_lung_can_be_left_out(dicom_folder, tmp_path):
    few = build_dataset(dicom_folder, tmp_path / "data", DataSettings(size=32, min_lung=0.25))
    assert few["rejected"]["no lung"] > 0
    assert open_dataset(tmp_path / "data").table["lung_fraction"].min() >= 0.25


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, "is not there"),
        (lambda folder: folder.mkdir(), "holds no files"),
        (lambda folder: (folder.mkdir(), (folder / "a.txt").write_text("x")), "1 not DICOM"),
    ],
)
def test_nothing_to_read_says_so_in_one_line(tmp_path, prepare, message):
    prepare(tmp_path / "source")
    with pytest.raises(NoSlices, match=message) as caught:
        build_dataset(tmp_path / "source", tmp_path / "data", SETTINGS)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data" / "dataset.json").exists()


def test_only_lungless_slices_says_what_to_do(dicom_folder, tmp_path):
    with pytest.raises(NoSlices, match="no lung.*lower min_lung"):
        build_dataset(dicom_folder, tmp_path / "data", DataSettings(size=32, min_lung=0.99))


def test_other_settings_are_refused_by_name(dicom_folder, dataset):
    with pytest.raises(SettingsDiffer, match="size was 32 and is now 64"):
        build_dataset(dicom_folder, dataset, DataSettings(size=64))


def test_batches_are_whole_epochs_in_a_seeded_order(dataset):
    slices = open_dataset(dataset)
    n = len(slices)
    loader = Loader(slices, 16, seed=0)
    epoch = np.concatenate([loader[i].numpy() for i in range(n // 16)])
    assert {x.tobytes() for x in epoch} == {x.tobytes() for x in slices.tensor().numpy()}
    assert np.array_equal(loader[5], Loader(slices, 16, seed=0)[5]), "the batch of a step does not depend on those before it"
    assert not np.array_equal(loader[5], Loader(slices, 16, seed=1)[5])
    assert not np.array_equal(loader[0], loader[n // 16]), "each epoch has its own order"


def test_scaling_keeps_hu(dataset):
    slices = open_dataset(dataset)
    x = slices.tensor(slice(0, 4))
    assert x.shape == (4, 1, 32, 32) and x.min() >= -1 and x.max() <= 1
    assert np.abs(to_hu(x[:, 0].numpy(), slices.window) - slices.hu[:4]).max() < 0.01
    assert np.allclose(scale(to_hu(x, slices.window), slices.window), x, atol=1e-5)


def test_augmentation_moves_as_it_says_and_fills_with_air(dataset):
    air = -torch.ones(4, 1, 32, 32)
    assert torch.allclose(moved(air, motions(4, stream(0, 1), wide=True)), air, atol=1e-5)
    axis = (torch.arange(64) + 0.5) / 32 - 1
    box = -torch.ones(1, 1, 64, 64)
    box[:, :, 16:48, 24:40] = 1  # half as wide as high
    extent = lambda x, dim: float(((x + 1).sum((0, 1, dim)) > (x + 1).sum((0, 1, dim)).max() / 2).sum())
    centre = lambda x: [float(((x + 1).sum((0, 1, dim)) * axis).sum() / (x + 1).sum()) for dim in (2, 3)]
    assert centre(moved(box, torch.tensor([[0.0, 1, 1, 0.2, -0.1]]))) == pytest.approx([0.2, -0.1], abs=0.01)
    larger = moved(box, torch.tensor([[0.0, 1.5, 0.5, 0, 0]]))
    assert (extent(larger, 2), extent(larger, 3)) == pytest.approx((24, 16), abs=1)
    turned = moved(box, torch.tensor([[90.0, 1, 1, 0, 0]]))
    assert (extent(turned, 2), extent(turned, 3)) == pytest.approx((32, 16), abs=1)


def test_what_was_done_to_a_slice_is_known(dataset):
    slices = open_dataset(dataset)
    plain, wide = Loader(slices, 4, 0), Loader(slices, 4, 0, augment="wide")
    assert torch.equal(wide[3], moved(plain[3], wide.motions(3))) and not torch.equal(wide[3], plain[3])
    assert wide.motions(3)[:, 0].abs().max() > 1 and Loader(slices, 4, 0, augment=True).motions(3)[:, 0].abs().max() <= 1


def test_real_ct_is_all_accounted_for(real_ct, tmp_path):
    data = build_dataset(real_ct, tmp_path / "data", DataSettings(size=64, min_lung=0.03))
    rejected = pd.read_csv(tmp_path / "data" / "rejected.csv")
    files = find_files(real_ct)
    assert data["slices"] + len(rejected) == len(files) > 270
    assert set(rejected["reason"]) <= set(REASONS) and data["slices"] > 150
    table = open_dataset(tmp_path / "data").table
    assert table["patient"].nunique() == data["patients"] > 40
    assert json.loads((tmp_path / "data" / "dataset.json").read_text())["synthetic"] is False
    hu = open_dataset(tmp_path / "data").hu
    assert hu.min() == -1000 and np.median(hu[:, 0, :]) < -900, "air at the top of the frame"
    # put upright: the couch and the spine lie below, so there is more dense tissue in the lower half
    dense = (np.asarray(hu) > 250).mean(0)
    assert dense[32:].sum() > 1.5 * dense[:32].sum()


@pytest.mark.parametrize("name", ["dataset.json", "slices.csv", "slices.npy"])
@pytest.mark.parametrize("content", [b"", b"{torn", b"[1, 2]"])
def test_a_damaged_data_set_is_one_line_and_is_built_again(name, content, dicom_folder, dataset, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(dataset, folder)
    (folder / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        open_dataset(folder)
    assert "\n" not in str(caught.value) and "damaged" in str(caught.value)
    if name == "dataset.json":
        (folder / name).unlink()  # as the line says
    build_dataset(dicom_folder, folder, SETTINGS)
    assert everything(folder) == everything(dataset)


def test_nothing_to_train_on_is_one_line(dataset):
    from dataclasses import replace

    slices = open_dataset(dataset)
    with pytest.raises(UserError, match="there is no slice to train on"):
        Loader(replace(slices, table=slices.table[:0]), 8, 0)
