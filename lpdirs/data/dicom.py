"""DICOM files to upright axial slices in HU. Reads only; what cannot be used is named, with a reason from REASONS."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.filereader import read_partial
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MediaStorageDirectoryStorage,
)

from lpdirs.data.folder import Unusable, check_kind, reasoned
from lpdirs.phantom import MANUFACTURER

MAX_TILT = 20.0  # degrees from the axial plane, and in plane from the patient's axes
MARKS = {  # tags that tell the stacks of one series apart, in the order in which they are asked
    "ImageType": "image type",
    "ConvolutionKernel": "kernel",
    "TemporalPositionIdentifier": "phase",
    "NominalPercentageOfCardiacPhase": "phase",
    "TriggerTime": "phase",
    "AcquisitionNumber": "acquisition",
    "SliceThickness": "thickness",
    "ContrastBolusAgent": "contrast",
    "KVP": "tube voltage",
    "FrameOfReferenceUID": "frame of reference",
    "StudyDate": "date",
}
TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "InstanceNumber", "Modality", "Manufacturer"),
    *("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "Rows", "Columns", "SamplesPerPixel", "SyntheticData"),
    *(
        "NumberOfFrames",
        "RescaleSlope",
        "RescaleIntercept",
        "RescaleType",
        "PixelPaddingValue",
        "PixelPaddingRangeLimit",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
    ),
    *("PatientName", "PatientBirthDate", "PatientSex", "AcquisitionTime", "SeriesDescription", *MARKS),
]
_TAGS: list = [Tag(tag_for_keyword(tag)) for tag in TAGS]  # type: ignore[arg-type]
PIXELS = 0x7FE00010


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
    padding: tuple[int, int] | None
    shape: tuple[int, int]
    person: tuple[str, ...] = ()  # name, date of birth, sex: they contradict each other in series of several people
    marks: tuple[str, ...] = ()  # values of MARKS
    time: float | None = None  # of the acquisition, s since midnight
    about: str = ""  # the series' description
    synthetic: bool = False
    frame: int | None = None  # of a file that holds several
    kind: str = "dicom"  # or volume, or picture
    in_hu: bool = True
    mask: bool = False  # of a volume: whether it looks like a label volume

    @property
    def listed(self) -> Path:
        """The file, with the number of the frame: as it stands in lists."""
        return self.path if self.frame is None else self.path.with_name(f"{self.path.name}#{self.frame}")

    def mark(self, tag: str) -> str:
        """What a tag of MARKS says, "" where it is not there."""
        return self.marks[list(MARKS).index(tag)] if self.marks else ""

    @property
    def group(self) -> str:
        """The series that the slice belongs to: patient, study and series, since anonymisers make single ones constant."""
        return "\0".join((self.patient, self.study, self.series))

    @property
    def upright_spacing(self) -> tuple[float, float]:
        """Spacing between rows and between columns once the slice is put upright."""
        return self.spacing[::-1] if turn(self.orientation)[0] else self.spacing

    @cached_property
    def z_mm(self) -> float:
        """Position along the slice normal, growing towards the head."""
        normal = np.cross(self.orientation[:3], self.orientation[3:])
        return float(np.dot(normal * np.sign(normal[2]), self.position))


def read_header(path: Path) -> Header:
    """The header of a CT slice; Unusable with the reason if it is none."""
    with reasoned("not DICOM"):
        check_kind(path)
        return _read_header(path)


def _read_header(path: Path) -> Header:
    with open(path, "rb") as file:
        ds = read_partial(file, in_order(PIXELS), force=True, specific_tags=_TAGS)
    text = lambda tag: str(ds.get(tag) or "").strip()
    _check_class(ds, text("Modality"))
    if int(ds.get("NumberOfFrames") or 1) != 1:
        raise Unusable("several frames")
    orientation = numbers(ds, "ImageOrientationPatient", 6, "no geometry")
    position = numbers(ds, "ImagePositionPatient", 3, "no geometry")
    turn(orientation)
    slope, intercept = rescale_of(ds)
    header = header_of(path, ds)
    return replace(header, orientation=orientation, position=position, spacing=spacing_of(ds), slope=slope, intercept=intercept)


def header_of(path: Path, ds: pydicom.Dataset) -> Header:
    """What a file says of all that is in it; where a slice lies, and what its values mean, is still to be said."""
    text = lambda tag: str(ds.get(tag) or "").strip()
    rows, columns = int(ds.get("Rows") or 0), int(ds.get("Columns") or 0)
    if rows == 0 or columns == 0:
        raise Unusable("no pixels")
    if int(ds.get("SamplesPerPixel") or 1) != 1:
        raise Unusable("colour")
    if not (32 <= rows <= 4096 and 32 <= columns <= 4096):
        raise Unusable("implausible size")
    if "LOCALIZER" in text("ImageType").upper():
        raise Unusable("not axial")
    series = text("SeriesInstanceUID") or text("StudyInstanceUID") or str(path.parent)
    padding, limit = (ds.get(tag) for tag in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    number = text("InstanceNumber")
    return Header(
        path=path,
        patient=text("PatientID") or text("StudyInstanceUID") or series,
        study=text("StudyInstanceUID") or series,
        series=series,
        instance=text("SOPInstanceUID"),
        number=int(number) if number.lstrip("-").isdigit() else 0,
        orientation=(),
        position=(),
        spacing=(0.0, 0.0),
        slope=1.0,
        intercept=0.0,
        padding=(padding, limit if isinstance(limit, int) else padding) if isinstance(padding, int) else None,
        shape=(rows, columns),
        person=(text("PatientName").strip("^ ").lower(), text("PatientBirthDate"), text("PatientSex")),
        marks=tuple(text(tag) for tag in MARKS),
        time=_seconds(text("AcquisitionTime")),
        about=text("SeriesDescription").lower(),
        synthetic=text("Manufacturer") == MANUFACTURER and text("SyntheticData") == "YES",
    )


def _check_class(ds: pydicom.Dataset, modality: str) -> None:
    """Unusable unless it is a CT image: by SOP class, else that of the meta header, else modality, which must never say another."""
    kinds = (ds.get("SOPClassUID"), ds.file_meta.get("MediaStorageSOPClassUID"), CTImageStorage if modality.upper() == "CT" else None)
    kind = next((UID(str(kind).strip()) for kind in kinds if kind and str(kind).strip()), None)
    if kind is None:
        raise Unusable("not DICOM" if not modality else "not a CT image")
    if kind == MediaStorageDirectoryStorage:
        raise Unusable("DICOMDIR")
    if kind in (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage):
        raise Unusable("several frames")
    if kind != CTImageStorage or modality.upper() not in ("", "CT"):
        raise Unusable("not a CT image")


def _seconds(time: str) -> float | None:
    """Seconds since midnight of a DICOM time (HHMMSS.ffffff)."""
    digits = time.replace(":", "")
    if not digits[:6].isdigit() or len(digits) < 6:
        return None
    return int(digits[:2]) * 3600 + int(digits[2:4]) * 60 + float(digits[4:6])


def numbers(ds: Any, tag: str, n: int, reason: str) -> tuple[Any, ...]:
    """n finite numbers of a tag; Unusable with the reason where they are none."""
    try:
        value = ds.get(tag)
        values = tuple(float(v) for v in (value if n > 1 else [value]))
    except Exception as error:
        raise Unusable(reason) from error
    if len(values) != n or not np.isfinite(values).all() or np.abs(values).max() > 1e6:
        raise Unusable(reason)
    return values


def rescale_of(ds: Any) -> tuple[float, float]:
    """Slope and intercept to HU; Unusable where there are none, or values are said to be something else (OD, mg/ml, effective Z)."""
    slope, intercept = numbers(ds, "RescaleSlope", 1, "no rescale")[0], numbers(ds, "RescaleIntercept", 1, "no rescale")[0]
    said = re.sub(r"[^a-z/]", "", str(ds.get("RescaleType") or "").lower())
    if slope == 0 or not re.fullmatch(r"|(ct)?(hu|h[ou]+n[sd]*fi?e?i?ld(units?)?(hu)?)", said):
        raise Unusable("no rescale")
    return slope, intercept


def spacing_of(ds: Any) -> tuple[float, float]:
    """mm between rows and between columns; Unusable where no scanner has it."""
    rows_mm, columns_mm = numbers(ds, "PixelSpacing", 2, "no geometry")
    if min(rows_mm, columns_mm) <= 0.05 or max(rows_mm, columns_mm) > 10 or not 1 / 4 <= rows_mm / columns_mm <= 4:
        raise Unusable("no geometry")
    return rows_mm, columns_mm


def turn(orientation: tuple[float, ...]) -> tuple[bool, bool, bool]:
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


def in_order(end: int) -> Callable[..., bool]:
    """Stops the parser at the tag `end`, and where tags no longer grow: zeros after a file's end parse as elements for hours."""
    last = -1

    def stop(tag: int, *_: object) -> bool:
        nonlocal last
        stopped = int(tag) >= end or int(tag) <= last
        last = int(tag)
        return stopped

    return stop


MOST = 10_000  # frames of a file


def frames_of(path: Path) -> list[Header]:
    """The frames of an enhanced CT, in the file's order; Unusable where they do not say where they lie."""
    with reasoned("not DICOM"):
        return _frames_of(path)


def _frames_of(path: Path) -> list[Header]:
    with open(path, "rb") as file:
        ds = read_partial(file, in_order(PIXELS), force=True)
    each, shared = ds.get("PerFrameFunctionalGroupsSequence") or [], (ds.get("SharedFunctionalGroupsSequence") or [None])[0]
    count = int(ds.get("NumberOfFrames") or 0)
    if not 1 <= count <= MOST or len(each) != count:
        raise Unusable("several frames")
    if str(ds.get("Modality") or "CT").upper() != "CT":
        raise Unusable("not a CT image")
    file_header = header_of(path, ds)
    return [_frame(file_header, i, groups, shared) for i, groups in enumerate(each)]


def _frame(header: Header, index: int, own: Any, shared: Any) -> Header:
    def group(name: str) -> Any:
        for groups in (own, shared):
            if groups is not None and groups.get(name):
                return groups[name].value[0]
        return {}

    values, measures, content = group("PixelValueTransformationSequence"), group("PixelMeasuresSequence"), group("FrameContentSequence")
    kind, kernel = group("CTImageFrameTypeSequence"), group("CTReconstructionSequence")
    if "LOCALIZER" in str(kind.get("FrameType") or "").upper():
        raise Unusable("not axial")
    orientation = numbers(group("PlaneOrientationSequence"), "ImageOrientationPatient", 6, "no geometry")
    turn(orientation)
    slope, intercept = rescale_of(values)
    told = dict(zip(MARKS, header.marks, strict=True)) | {
        "ImageType": str(kind.get("FrameType") or ""),
        "ConvolutionKernel": str(kernel.get("ConvolutionKernel") or ""),
        "TemporalPositionIdentifier": str(content.get("TemporalPositionIndex") or ""),
        "AcquisitionNumber": str(content.get("FrameAcquisitionNumber") or ""),
    }
    return replace(
        header,
        frame=index,
        instance=f"{header.instance}.{index}",
        number=index,
        orientation=orientation,
        position=numbers(group("PlanePositionSequence"), "ImagePositionPatient", 3, "no geometry"),
        spacing=spacing_of(measures),
        slope=slope,
        intercept=intercept,
        marks=tuple(told.values()),
    )
