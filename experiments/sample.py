"""Makes data_manifests/chest_ct, the embedded sample of real chest CT: python -m experiments.sample FOLDER, which holds the collections.

FOLDER is the reduced copy of public collections that the project was given (128 px, HU kept, new headers with public ids). What is
taken: slices whose body is at least 12 percent lung (`lpdirs.data.body`), of series finer than 2 mm every second one.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless

from lpdirs.base.places import clone
from lpdirs.data.body import lung_fractions
from lpdirs.data.dicom import Header
from lpdirs.data.folder import find_files
from lpdirs.data.lidc import read_manifest
from lpdirs.data.pixels import read_slice
from lpdirs.data.reading import read_headers
from lpdirs.data.stacks import arrange
from lpdirs.data.store import split_of

COLLECTIONS = {  # folder: its name
    "lidc_idri": "LIDC-IDRI",
    "luna16_single_slices": "LUNA16",
    "qin_lung_ct": "QIN LUNG CT",
    "lctsc": "LCTSC",
    "lungct_diagnosis": "LungCT-Diagnosis",
}
MIN_LUNG, FINE_MM = 0.12, 2.0
HELD_OUT = {  # whole series that are not trained on; those of LIDC-IDRI follow its manifest, single slices the hash of their key
    "QIN-LSC-0028": "validation",
    "QIN-LSC-0088": "test",
    "QIN-LUNG-01-0007": "test",
    "LCTSC-Test-S1-102": "validation",
    "LCTSC-Test-S1-201": "test",
}
KEEP = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")
KEEP += ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")


def main(source: Path) -> None:
    """Write the slices, slices.csv and patients.csv."""
    root = clone()
    assert root is not None
    target = root / "data_manifests" / "chest_ct"
    shutil.rmtree(target / "dicom", ignore_errors=True)
    lidc = read_manifest().drop_duplicates("patient").set_index("patient")["split"]
    rows = []
    for name, collection in COLLECTIONS.items():
        series, _ = arrange(read_headers(find_files(source / name))[0])
        for headers in series.values():
            chosen, shares = _with_lung(headers)
            for number, (header, share) in enumerate(zip(chosen, shares, strict=True), 1):
                path = target / "dicom" / header.patient / f"{number:03d}.dcm"
                _write(header, number, collection, path)
                split = HELD_OUT.get(header.patient, lidc.get(header.patient) or split_of(header.patient))
                split = "train" if name != "luna16_single_slices" and header.patient not in {*HELD_OUT, *lidc.index} else split
                place = {"z_mm": round(header.z_mm, 3), "pixel_mm": header.spacing[0], "lung_fraction": round(float(share), 4)}
                rows.append(
                    {"file": f"{header.patient}/{path.name}", "patient": header.patient, "collection": collection, "split": split} | place
                )
    table = pd.DataFrame(rows)
    table.to_csv(target / "slices.csv", index=False)
    patients = table.groupby(["patient", "collection", "split"], sort=False).size().rename("slices").reset_index()
    patients.to_csv(target / "patients.csv", index=False)
    print(patients.groupby(["collection", "split"])["slices"].agg(["size", "sum"]))
    print(len(table), "slices,", sum(path.stat().st_size for path in target.rglob("*.dcm")) / 1e6, "MB")


def _with_lung(headers: list[Header]) -> tuple[list[Header], np.ndarray]:
    read = [read_slice(header) for header in headers]
    share = lung_fractions(np.stack([hu for hu, _ in read]), np.stack([unseen for _, unseen in read]), headers[0].spacing[0])
    z = np.array([header.z_mm for header in headers])
    every = 2 if len(z) > 1 and np.median(-np.diff(z)) < FINE_MM else 1
    chosen = [i for i in range(0, len(z), every) if share[i] >= MIN_LUNG]
    return [headers[i] for i in chosen], share[chosen]


def _write(header: Header, number: int, collection: str, path: Path) -> None:
    """The slice with a header that holds public ids, geometry and where it comes from; JPEG 2000, without loss."""
    source = pydicom.dcmread(header.path)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, source.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for tag in KEEP:
        setattr(ds, tag, source[tag].value)
    ds.SOPClassUID, ds.Modality, ds.ImageType = CTImageStorage, "CT", ["DERIVED", "SECONDARY", "AXIAL"]
    ds.SeriesDescription, ds.DerivationDescription = collection, "whole frame reduced to 128 px, anti-aliased, HU kept"
    ds.PatientName, ds.PatientIdentityRemoved, ds.InstanceNumber = "", "YES", number
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = source.Rows, source.Columns, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "HU"
    ds.PixelData = source.pixel_array.astype("<i2").tobytes()
    assert (source.RescaleIntercept, source.RescaleSlope) == (0, 1)
    ds.compress(JPEG2000Lossless, generate_instance_uid=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
