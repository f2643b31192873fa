"""DICOM files to upright axial slices in HU. Reads only; what cannot be used is named, with a reason from REASONS."""

import logging
import os
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

REASONS = {
    "not DICOM": "the file is not DICOM, or its header cannot be read",
    "not a CT image": "DICOM, but not CT Image Storage",
    "no pixels": "there is no pixel data",
    "colour or multi-frame": "more than one sample a pixel, or more than one frame",
    "implausible size": "fewer than 32 or more than 4096 rows or columns",
    "no geometry": "orientation, position or pixel spacing is missing or not a number",
    "no rescale": "slope or intercept is missing or not a number, so HU are unknown",
    "not axial": "the slice is tilted by more than 20 degrees from the axial plane (a reformat, or a scout)",
    "repeated position": "another slice of its series has the same position",
    "repeated series": "a longer series of the same study shows most of the same positions (another kernel, or thickness)",
    "damaged pixels": "the pixel data is truncated or cannot be decoded",
    "implausible HU": "the HU of the slice are not those of a body in air",
    "same pixels": "another file holds the same pixels",
    "no lung": "the share of lung in the body is below min_lung",
}
logging.getLogger("pydicom").setLevel(logging.ERROR)  # what it warns of is judged here, by what is read

MAX_TILT = 20.0  # degrees from the axial plane, and in plane from the patient's axes
TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "InstanceNumber"),
    *("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "Rows", "Columns", "SamplesPerPixel"),
    *("NumberOfFrames", "RescaleSlope", "RescaleIntercept", "PixelPaddingValue", "BitsStored", "PixelRepresentation"),
]


class Unusable(Exception):
    """A file that cannot be used; str() is one of REASONS."""


@dataclass(frozen=True)
class Header:
    """What is needed to group, order and turn a slice; lengths in mm, in the patient's coordinates (left, posterior, head)."""

    path: Path
    patient: str
    study: str
    series: str
    instance: str
    number: int
    orientation: tuple[float, ...]
    position: tuple[float, ...]
    spacing: tuple[float, float]  # between rows, between columns
    slope: float
    intercept: float
    padding: int | None
    shape: tuple[int, int]

    @property
    def upright_spacing(self) -> tuple[float, float]:
        """Spacing between rows and between columns once the slice is put upright."""
        return self.spacing[::-1] if _turn(self.orientation)[0] else self.spacing

    @property
    def z_mm(self) -> float:
        """Position along the slice normal, growing towards the head."""
        normal = np.cross(self.orientation[:3], self.orientation[3:])
        return float(np.dot(normal * np.sign(normal[2]), self.position))


def find_files(folder: Path) -> list[Path]:
    """All files below `folder`, sorted; links to folders are not followed, hidden files are left out."""
    files = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(d for d in folders if not d.startswith("."))
        files += [Path(root) / name for name in sorted(names) if not name.startswith(".")]
    return files


def read_header(path: Path) -> Header:
    """The header of a CT slice; Unusable with the reason if it is none."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return _read_header(path)
    except Unusable:
        raise
    except Exception as error:  # whatever a hostile file makes the parser raise, at once or when a value is looked at
        raise Unusable("not DICOM") from error


def _read_header(path: Path) -> Header:
    ds = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=TAGS)
    sop_class = ds.get("SOPClassUID")
    if sop_class is None:
        raise Unusable("not DICOM")
    if sop_class != CTImageStorage:
        raise Unusable("not a CT image")
    rows, columns = int(ds.get("Rows") or 0), int(ds.get("Columns") or 0)
    frames, samples = int(ds.get("NumberOfFrames") or 1), int(ds.get("SamplesPerPixel") or 1)
    if rows == 0 or columns == 0:
        raise Unusable("no pixels")
    if frames != 1 or samples != 1:
        raise Unusable("colour or multi-frame")
    if not (32 <= rows <= 4096 and 32 <= columns <= 4096):
        raise Unusable("implausible size")
    orientation = _numbers(ds, "ImageOrientationPatient", 6, "no geometry")
    position = _numbers(ds, "ImagePositionPatient", 3, "no geometry")
    rows_mm, columns_mm = _numbers(ds, "PixelSpacing", 2, "no geometry")
    if min(rows_mm, columns_mm) <= 0.05 or max(rows_mm, columns_mm) > 10:
        raise Unusable("no geometry")
    slope, intercept = _numbers(ds, "RescaleSlope", 1, "no rescale")[0], _numbers(ds, "RescaleIntercept", 1, "no rescale")[0]
    if slope == 0:
        raise Unusable("no rescale")
    _turn(orientation)
    text = lambda tag: str(ds.get(tag) or "").strip()
    series = text("SeriesInstanceUID") or text("StudyInstanceUID") or str(path.parent)
    padding = ds.get("PixelPaddingValue")
    number = text("InstanceNumber")
    return Header(
        path=path,
        patient=text("PatientID") or text("StudyInstanceUID") or series,
        study=text("StudyInstanceUID") or series,
        series=series,
        instance=text("SOPInstanceUID"),
        number=int(number) if number.lstrip("-").isdigit() else 0,
        orientation=orientation,
        position=position,
        spacing=(rows_mm, columns_mm),
        slope=slope,
        intercept=intercept,
        padding=padding if isinstance(padding, int) else None,
        shape=(rows, columns),
    )


def _numbers(ds: pydicom.Dataset, tag: str, n: int, reason: str) -> tuple[float, ...]:
    try:
        value = ds.get(tag)
        values = tuple(float(v) for v in (value if n > 1 else [value]))
    except Exception as error:
        raise Unusable(reason) from error
    if len(values) != n or not np.isfinite(values).all() or np.abs(values).max() > 1e6:
        raise Unusable(reason)
    return values


def _turn(orientation: tuple[float, ...]) -> tuple[bool, bool, bool]:
    """How to put a slice upright: (transpose, flip rows, flip columns); Unusable if it is not axial."""
    row, column = np.array(orientation[:3]), np.array(orientation[3:])  # along increasing column, and row, index
    if abs(np.linalg.norm(row) - 1) > 0.05 or abs(np.linalg.norm(column) - 1) > 0.05 or abs(row @ column) > 0.05:
        raise Unusable("no geometry")
    limit = np.cos(np.deg2rad(MAX_TILT))
    transpose = abs(row[1]) > abs(row[0])
    x, y = (column, row) if transpose else (row, column)
    if abs(np.cross(row, column)[2]) < limit or abs(x[0]) < limit or abs(y[1]) < limit:
        raise Unusable("not axial")
    return transpose, bool(y[1] < 0), bool(x[0] < 0)


def read_hu(header: Header) -> np.ndarray:
    """The slice in HU, float32 (rows, columns), the patient's left at the right and front at the top; Unusable if damaged."""
    try:
        with warnings.catch_warnings(action="ignore"):
            raw = _pixels(header.path)
    except Exception as error:
        raise Unusable("damaged pixels") from error
    if raw.ndim != 2:
        raise Unusable("colour or multi-frame")
    if raw.shape != header.shape:
        raise Unusable("damaged pixels")
    hu = raw.astype(np.float32) * np.float32(header.slope) + np.float32(header.intercept)
    if header.padding is not None:  # signed and unsigned readings of the same 16 bits both occur
        hu[(raw.astype(np.int64) & 0xFFFF) == (header.padding & 0xFFFF)] = -1000
    hu[hu < -1024] = -1000  # outside the field of view scanners write anything
    step = max(1, min(hu.shape) // 128)  # a sixteenth of the pixels of a usual frame tells as much
    low, middle, high = np.percentile(hu[::step, ::step], (2, 50, 99))
    if high < -500 or middle > 1500 or low > 500:
        raise Unusable("implausible HU")
    transpose, flip_rows, flip_columns = _turn(header.orientation)
    if transpose:
        hu = hu.T
    return np.ascontiguousarray(hu[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1])


def _pixels(path: Path) -> np.ndarray:
    ds = pydicom.dcmread(path, force=True)
    if "TransferSyntaxUID" not in ds.file_meta:  # no preamble: what the parser found must have been uncompressed
        implicit, little = ds.original_encoding
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    return ds.pixel_array


def read_headers(paths: list[Path]) -> tuple[list[Header], list[tuple[Path, str]]]:
    """Headers of the files that are CT slices, and the others with their reasons."""
    headers, rejected = [], []
    for path in paths:
        try:
            headers.append(read_header(path))
        except Unusable as reason:
            rejected.append((path, str(reason)))
    return headers, rejected


def arrange(headers: list[Header]) -> tuple[dict[str, list[Header]], list[tuple[Path, str]]]:
    """Slices by series, each ordered from head to feet, patient by patient; and those left out because they repeat others."""
    series: dict[str, list[Header]] = defaultdict(list)
    for header in headers:
        series[header.series].append(header)
    ordered: dict[str, list[Header]] = {}
    rejected = []
    for uid, members in sorted(series.items(), key=lambda item: (min(h.patient for h in item[1]), item[0])):
        kept: list[Header] = []
        for header in sorted(members, key=lambda h: (-h.z_mm, h.number, h.path)):
            if kept and abs(header.z_mm - kept[-1].z_mm) < 0.01:
                rejected.append((header.path, "repeated position"))
            else:
                kept.append(header)
        ordered[uid] = kept
    for uid in _repeated(ordered):
        rejected += [(header.path, "repeated series") for header in ordered.pop(uid)]
    return ordered, rejected


def _repeated(series: dict[str, list[Header]]) -> list[str]:
    """Series of which most positions (to 1 mm) are shown by a longer one of the same study; of equals the first UID stays."""
    shown: dict[str, list[set[int]]] = defaultdict(list)
    repeated = []
    for uid, headers in sorted(series.items(), key=lambda item: (-len(item[1]), item[0])):
        positions = {round(h.z_mm) for h in headers}
        if any(len(positions & others) > len(positions) / 2 for others in shown[headers[0].study]):
            repeated.append(uid)
        else:
            shown[headers[0].study].append(positions)
    return repeated
