"""Enhanced (multi-frame) CT: a header for each frame, from the functional groups that say where it lies and what its values mean."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from pydicom.filereader import read_partial

from lpdirs.data.dicom import MARKS, PIXELS, Header, header_of, in_order, numbers, rescale_of, spacing_of, turn
from lpdirs.data.reasons import Unusable

MOST = 10_000  # frames of a file


def frames_of(path: Path) -> list[Header]:
    """The frames of an enhanced CT, in the file's order; Unusable where they do not say where they lie."""
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
