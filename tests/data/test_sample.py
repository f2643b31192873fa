"""The sample of real chest CT that comes with the project: its tables, its files and its card say the same, and nothing else of people."""

import re

import numpy as np
import pandas as pd
import pydicom

from tests.conftest import ROOT

FOLDER = ROOT / "data_manifests" / "chest_ct"
SLICES, PATIENTS = (pd.read_csv(FOLDER / f"{name}.csv") for name in ("slices", "patients"))
COLLECTIONS = {"LIDC-IDRI", "LUNA16", "QIN LUNG CT", "LCTSC", "LungCT-Diagnosis"}  # under CC BY
LARGEST = 25_000_000  # bytes of pixels


def test_files_and_tables_are_one_and_small():
    files = {path.relative_to(FOLDER / "dicom").as_posix(): path.stat().st_size for path in (FOLDER / "dicom").rglob("*.dcm")}
    assert set(files) == set(SLICES["file"]) and sum(files.values()) <= LARGEST
    assert set(SLICES["collection"]) == COLLECTIONS
    counted = SLICES.groupby("patient")["file"].size()
    assert (counted[PATIENTS["patient"]].to_numpy() == PATIENTS["slices"]).all() and len(counted) == len(PATIENTS)
    card = (FOLDER / "README.md").read_text()
    assert f"{len(SLICES):,} axial slices that show lung, of {len(PATIENTS)} patients" in card
    for collection, rows in SLICES.groupby("collection"):
        assert re.search(rf"\| {collection}[^|]*\| {rows['patient'].nunique()} \| {len(rows)} \|", card), collection


def test_nobody_is_in_two_splits_and_all_show_lung():
    assert (SLICES.groupby("patient")["split"].nunique() == 1).all()
    of_patients = PATIENTS.set_index("patient")["split"]
    assert (of_patients[SLICES["patient"]].to_numpy() == SLICES["split"]).all() and set(SLICES["split"]) == {"train", "validation", "test"}
    assert (SLICES["lung_fraction"] >= 0.12).all()


def test_each_file_is_a_slice_in_hu_without_loss_that_says_only_what_the_card_says():
    """One of every 40, decoded; headers of all of those."""
    for row in SLICES.iloc[::40].itertuples():
        ds = pydicom.dcmread(FOLDER / "dicom" / row.file)
        assert ds.file_meta.TransferSyntaxUID.name == "JPEG 2000 Image Compression (Lossless Only)"
        hu = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        assert hu.shape == (128, 128) and hu.min() >= -1100 and 0 < np.quantile(hu, 0.99) < 3100
        assert ds.PatientID == row.patient and float(ds.PixelSpacing[0]) == row.pixel_mm and float(ds.ImagePositionPatient[2]) == row.z_mm
        for name in ("PatientBirthDate", "PatientSex", "PatientAge", "StudyDate", "InstitutionName", "ReferringPhysicianName"):
            assert not str(ds.get(name, "")), (row.file, name)
        assert not any(element.tag.is_private for element in ds)
