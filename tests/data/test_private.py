"""No name, path or salt of real data gets into anything that a run writes; the user's own table gives them back."""

import csv
import json
import shutil

import pandas as pd
import pytest

from lpdirs.base.errors import UserError
from lpdirs.data.build import NoSlices, build_dataset
from lpdirs.data.private import hide, private_folder, salt, where
from lpdirs.data.series import DataSettings
from tests.conftest import SETTINGS
from tests.data.files import chest, series, write

SECRETS = ("DOE", "Jane", "19700101", "1.2.840.99", "Befunde", "hospital")


@pytest.fixture
def clinic(tmp_path):
    """Two patients whose names are everywhere, and files that cannot be used."""
    root = tmp_path / "hospital"
    for k in range(2):
        names = dict(PatientID=f"DOE{k}", PatientName="DOE^Jane", PatientBirthDate="19700101", StudyInstanceUID=f"1.2.840.99.{k}")
        series(root / f"DOE^Jane {k}", noise=k, SeriesInstanceUID=f"1.2.840.99.{k}.1", **names)
    (root / "Befunde DOE.txt").write_text("x")
    write(root / "DOE^Jane 0" / "tilted.dcm", chest(0.5), 0, ImageOrientationPatient=[1, 0, 0, 0, 0, -1], PatientID="DOE0")
    return root


def test_nothing_identifying_gets_out_and_the_key_gives_it_back(clinic, tmp_path):
    out = tmp_path / "out"
    data = build_dataset(clinic, out, SETTINGS)
    written = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert not [secret for secret in SECRETS if secret.encode() in written]
    assert (private_folder() / "salt").read_text().encode() not in written
    with open(private_folder() / f"{data['settings']['source']}.csv") as file:
        key = dict(list(csv.reader(file))[1:])
    table, rejected = pd.read_csv(out / "slices.csv"), pd.read_csv(out / "rejected.csv")
    assert {key[name] for name in table["patient"]} == {"DOE0", "DOE1"}
    assert {key[name] for name in rejected["file"]} == {"Befunde DOE.txt", "DOE^Jane 0/tilted.dcm"}
    assert (private_folder() / f"{data['settings']['source']}.csv").stat().st_mode & 0o077 == 0
    assert b"\0" not in (private_folder() / f"{data['settings']['source']}.csv").read_bytes(), "text that any tool can search"
    assert where(hide(clinic)) == clinic.resolve() and "hospital" not in hide(clinic)


def test_an_error_and_what_it_leaves_behind_name_nobody(clinic, tmp_path):
    with pytest.raises(NoSlices) as caught:
        build_dataset(clinic, tmp_path / "out", DataSettings(size=32, min_lung=0.9))
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert not [secret for secret in SECRETS if secret.encode() in written + str(caught.value).encode()]
    assert not (tmp_path / "out" / "parts").exists()


def test_a_file_named_like_ours_makes_nobody_synthetic(clinic, tmp_path):
    for name in ("factors.csv", "patients.csv", "cohort.json"):
        (clinic / name).write_text("instance,x\n1,2\n")
    data = build_dataset(clinic, tmp_path / "out", SETTINGS)
    assert data["synthetic"] is False and data["names"] == "pseudonyms" and data["rejected"]["not DICOM"] == 4
    assert "DOE" not in (tmp_path / "out" / "slices.csv").read_text()


def test_one_real_file_among_synthetic_ones_is_enough(dicom_folder, clinic, tmp_path):
    shutil.copytree(dicom_folder, tmp_path / "mixed")
    shutil.copytree(clinic / "DOE^Jane 0", tmp_path / "mixed" / "new")
    data = build_dataset(tmp_path / "mixed", tmp_path / "out", SETTINGS)
    assert data["synthetic"] is False and "P0001" not in (tmp_path / "out" / "slices.csv").read_text()


def test_a_salt_is_random_and_a_weak_one_is_refused(tmp_path, monkeypatch):
    salts = []
    for name in "ab":
        monkeypatch.setenv("LPDIRS_PRIVATE", str(tmp_path / name))
        salts.append(salt())
        assert salt() == salts[-1] and (tmp_path / name / "salt").stat().st_mode & 0o077 == 0
    assert salts[0] != salts[1]
    (tmp_path / "a" / "salt").write_text("lpdirs")
    monkeypatch.setenv("LPDIRS_PRIVATE", str(tmp_path / "a"))
    with pytest.raises(UserError, match="can be guessed"):
        salt()


def test_a_file_s_name_is_no_formula(dicom_folder, tmp_path):
    shutil.copytree(dicom_folder / "P0001", tmp_path / "in")
    shutil.copy(tmp_path / "in" / "000.dcm", tmp_path / "in" / "=HYPERLINK(1)")
    build_dataset(tmp_path / "in", tmp_path / "out", SETTINGS)
    assert pd.read_csv(tmp_path / "out" / "rejected.csv")["file"][0] == "'=HYPERLINK(1)"
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["names"] == "as in the files"


def test_synthetic_data_needs_no_private_folder(dicom_folder, tmp_path, monkeypatch):
    """A home that cannot be written is no obstacle to the phantom."""
    shutil.copytree(dicom_folder, tmp_path / "data" / "dicom")
    monkeypatch.setenv("LPDIRS_PRIVATE", str(tmp_path / "private"))
    build_dataset(tmp_path / "data" / "dicom", tmp_path / "data", SETTINGS)
    assert not (tmp_path / "private").exists()
