"""A cohort of synthetic patients as DICOM files, described by a file in data_manifests/."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from lpdirs.base.code import fingerprint_of_code
from lpdirs.base.errors import UserError
from lpdirs.base.files import write_atomic
from lpdirs.phantom import MANUFACTURER
from lpdirs.phantom.painting import FOV_MM, render
from lpdirs.phantom.population import LENGTH_MM, Patient, factors_at, sample_patients

UID_ROOT = "2.25."  # UIDs made from a hash, as the standard allows


@dataclass(frozen=True)
class Cohort:
    """`patients` of `slices` each, `matrix` px wide, noise in HU (SD)."""

    name: str
    patients: int
    slices: int
    matrix: int = 128
    noise: float = 18.0
    seed: int = 0

    @classmethod
    def read(cls, path: Path) -> "Cohort":
        """The cohort of a manifest; UserError names a key that does not belong there."""
        values = {k: v for k, v in json.loads(path.read_text()).items() if k != "comment"}
        unknown = set(values) - set(cls.__dataclass_fields__)
        if unknown:
            raise UserError(f"{path.name}: unknown {', '.join(sorted(unknown))}; a cohort has {', '.join(cls.__dataclass_fields__)}")
        return cls(**values)


def slice_positions(p: Patient, n: int) -> np.ndarray:
    """t of the n slices of a patient: evenly spaced from shoulders to liver, from a start of the patient's own."""
    start = np.random.default_rng([p.seed, 1]).random()
    return ((np.arange(n) + start) / n * 0.96 + 0.02).astype(np.float32)


def write_cohort(cohort: Cohort, folder: Path, report: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Write the cohort's CT Image Storage files, a folder a patient, and the truth: factors.csv (slices), patients.csv; once, not again."""
    described = folder / "cohort.json"
    about = asdict(cohort) | {"code": fingerprint_of_code("import lpdirs.phantom.cohort")}
    if described.exists():
        if json.loads(described.read_text()) == about:
            report(cohort.patients, cohort.patients)
            return
        described.unlink()
        for patient in folder.glob("P[0-9]*"):  # of another cohort, or drawn by other code
            shutil.rmtree(patient)
    truth = []
    patients = sample_patients(cohort.patients, cohort.seed)
    for i, p in enumerate(patients):
        (folder / p.key).mkdir(parents=True, exist_ok=True)
        t = slice_positions(p, cohort.slices)
        factors = factors_at(p, t)
        for j, hu in enumerate(render(p, t, cohort.matrix, cohort.noise)):
            path = folder / p.key / f"{j:03d}.dcm"
            ds = to_dicom(hu, p.key, float(t[j]), j, cohort)
            ds.save_as(path, enforce_file_format=True)
            truth.append({"instance": ds.SOPInstanceUID, **{k: round(float(v[j]), 4) for k, v in factors.items()}})
        report(i + 1, cohort.patients)
    pd.DataFrame(patients).round(4).to_csv(folder / "patients.csv", index=False)
    pd.DataFrame(truth).to_csv(folder / "factors.csv", index=False)
    write_atomic(described, json.dumps(about))


def to_dicom(hu: np.ndarray, patient: str, t: float, number: int, cohort: Cohort) -> FileDataset:
    """One slice of HU (S, S) at position t as a CT Image Storage data set."""
    uid = lambda *parts: _uid(cohort.name, cohort.seed, patient, *parts)
    spacing = FOV_MM / hu.shape[0]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, UID(uid("slice", number))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, uid("slice", number)
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = uid("study"), uid("series"), uid("frame")
    ds.PatientID = ds.PatientName = patient
    ds.PatientBirthDate = ds.PatientSex = ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ds.ReferringPhysicianName = ""
    ds.StudyID, ds.SeriesNumber, ds.InstanceNumber = "1", 1, number + 1
    ds.Modality, ds.Manufacturer, ds.ImageType = "CT", MANUFACTURER, ["DERIVED", "PRIMARY", "AXIAL"]
    ds.SyntheticData = "YES"
    ds.BodyPartExamined, ds.PatientPosition, ds.KVP, ds.PositionReferenceIndicator = "CHEST", "HFS", 120, ""
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    corner = round((spacing - FOV_MM) / 2, 4)
    ds.ImagePositionPatient = [corner, corner, round(-LENGTH_MM * t, 4)]
    ds.PixelSpacing, ds.SliceThickness = [round(spacing, 6)] * 2, round(LENGTH_MM / cohort.slices, 4)
    ds.Rows, ds.Columns = hu.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
    ds.PixelData = np.clip(np.rint(hu) + 1024, 0, 4095).astype("<u2").tobytes()
    return ds


def _uid(*parts: object) -> str:
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=15).digest()
    return UID_ROOT + str(int.from_bytes(digest, "big"))
