"""Volumes, pictures and arrays that are not DICOM: NIfTI, MetaImage, NRRD, PNG, TIFF, JPEG, BMP, NumPy."""

import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, ImageSequence

from lpdirs.base.errors import UserError, optional
from lpdirs.data.dicom import MAX_TILT, Header
from lpdirs.data.pixels import is_plausible
from lpdirs.data.reasons import Unusable, unreadable
from lpdirs.data.whole import check_whole

VOLUMES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
ARRAYS = (".npy", ".npz")
READERS = {
    ".nii": "NiftiImageIO",
    ".nrrd": "NrrdImageIO",
    ".nhdr": "NrrdImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
}
MOST = 2**31  # values of a file
MAX_SHEAR = 0.05  # of the axes' inner products, as of a DICOM slice
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def is_readable(path: Path) -> bool:
    """Whether the name is that of a volume, picture or array."""
    return path.name.lower().endswith(VOLUMES + PICTURES + ARRAYS)


def headers_of(path: Path) -> list[Header]:
    """A header for each slice of a file, head first, or for each picture or frame in its order; Unusable with the reason."""
    stack, spacing, origin, in_hu = _read(str(path), path.stat().st_mtime_ns)
    rows, columns = stack.shape[1:]
    if not (16 <= rows <= 4096 and 16 <= columns <= 4096):
        raise Unusable("implausible size")
    volume = path.name.lower().endswith(VOLUMES)
    common = {"path": path, "patient": str(path), "study": str(path), "series": str(path), "orientation": AXIAL}
    common |= {"spacing": spacing[:2], "slope": 1.0, "intercept": 0.0, "padding": None, "shape": (rows, columns)}
    known = "volume" if volume else "picture"
    return [
        Header(**common, instance=str(i), number=i, position=(0.0, 0.0, origin - i * spacing[2]), frame=i, kind=known, in_hu=in_hu)  # type: ignore[arg-type]
        for i in range(len(stack))
    ]


def read_values(header: Header, window: tuple[float, float]) -> np.ndarray:
    """A slice without mm and HU of its own, float32 (rows, columns): its file's range as the window; what an array holds of a body in air,
    as it is."""
    stack = _read(str(header.path), header.path.stat().st_mtime_ns)[0]
    if holds_a_body(header):
        return stack[header.frame or 0].astype(np.float32)
    low, high = _range(str(header.path), header.path.stat().st_mtime_ns)
    return ((stack[header.frame or 0].astype(np.float32) - low) / (high - low)) * (window[1] - window[0]) + window[0]


def raw_values(header: Header) -> np.ndarray:
    """A slice as its file holds it, (rows, columns)."""
    return _read(str(header.path), header.path.stat().st_mtime_ns)[0][header.frame or 0]


def read_hu_of(header: Header) -> np.ndarray:
    """A slice of a volume in HU, float32 (rows, columns)."""
    return _read(str(header.path), header.path.stat().st_mtime_ns)[0][header.frame or 0].astype(np.float32)


def holds_a_body(header: Header) -> bool:
    """Whether it is of an array whose values are HU, of a body in air."""
    path = str(header.path)
    return header.kind != "dicom" and path.lower().endswith(ARRAYS) and _of_body(path, header.path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _of_body(path: str, changed: int) -> bool:
    return _in_hu(_read(path, changed)[0])


@lru_cache(maxsize=1)
def _range(path: str, changed: int) -> tuple[float, float]:
    """Lowest and highest value: of 8 bits 0 and 255, of others those that the file holds."""
    stack = _read(path, changed)[0]
    low, high = (0.0, 255.0) if stack.dtype == np.uint8 else (float(stack.min()), float(stack.max()))
    if not low < high:
        raise Unusable("no picture")
    return low, high


@lru_cache(maxsize=1)  # the slices of a file are asked for one after the other
def _read(path: str, _: int) -> tuple[np.ndarray, tuple[float, float, float], float, bool]:
    """Values (n, rows, columns), upright and head first; mm between rows, columns and slices; z of the first; whether they are HU."""
    name = path.lower()
    try:
        with warnings.catch_warnings(action="ignore"):
            if name.endswith(VOLUMES):
                stack, spacing, origin = _volume(path)
            else:
                stack, spacing, origin = (_array(path) if name.endswith(ARRAYS) else _picture(path)), (1.0, 1.0, 1.0), 0.0
    except Unusable:
        raise
    except UserError as error:  # the library that reads volumes is not installed
        raise Unusable("no reader") from error
    except Exception as error:  # whatever a damaged file makes its library raise
        raise Unusable("cannot be read" if unreadable(error) else "damaged pixels") from error
    if stack.ndim != 3 or stack.size == 0 or not np.isrealobj(stack):
        raise Unusable("no picture")
    if stack.size > MOST:
        raise Unusable("implausible size")
    if not np.isfinite(stack).all():
        raise Unusable("not finite")
    return stack, spacing, origin, name.endswith(VOLUMES) and _in_hu(stack)


def _volume(path: str) -> tuple[np.ndarray, tuple[float, float, float], float]:
    sitk = optional("SimpleITK", "formats")
    check_whole(Path(path))
    reader = sitk.ImageFileReader()
    reader.SetImageIO(READERS[Path(path.lower().removesuffix(".gz")).suffix])  # by its name: it would take anything for what it looks like
    reader.SetFileName(path)
    reader.ReadImageInformation()
    if reader.GetNumberOfComponents() != 1:
        raise Unusable("colour")
    if reader.GetDimension() == 2:
        image = reader.Execute()
        across, _, _, down = image.GetDirection()
        return (
            sitk.GetArrayFromImage(image)[None, :: -1 if down < 0 else 1, :: -1 if across < 0 else 1],
            (*_mm(image.GetSpacing()), 1.0),
            0.0,
        )
    if reader.GetDimension() != 3:
        raise Unusable("several frames")
    if float(np.prod(np.array(reader.GetSize(), float))) > MOST:
        raise Unusable("implausible size")
    if not np.isfinite([*reader.GetOrigin(), *reader.GetSpacing(), *reader.GetDirection()]).all() or np.abs(reader.GetOrigin()).max() > 1e6:
        raise Unusable("no geometry")
    image = sitk.DICOMOrient(reader.Execute(), "LPS")  # columns to the left, rows to the back, slices to the head
    direction = np.array(image.GetDirection()).reshape(3, 3)
    if np.abs(direction.T @ direction - np.eye(3)).max() > MAX_SHEAR:
        raise Unusable("no geometry")
    if np.diag(direction).min() < np.cos(np.deg2rad(MAX_TILT)):
        raise Unusable("not axial")
    across, down, between = image.GetSpacing()
    if not 0.01 <= between <= 100:
        raise Unusable("no geometry")
    top = image.TransformIndexToPhysicalPoint((0, 0, image.GetSize()[2] - 1))[2]
    return sitk.GetArrayFromImage(image)[::-1], (*_mm((across, down)), between), float(top)


def _mm(spacing: tuple[float, ...]) -> tuple[float, float]:
    """Spacing across and down as that between rows and between columns; Unusable where no scanner has it."""
    across, down = spacing
    if not (0.05 < min(spacing) and max(spacing) <= 10 and 1 / 4 <= across / down <= 4):
        raise Unusable("no geometry")
    return down, across


def _picture(path: str) -> np.ndarray:
    with Image.open(path) as picture:
        frames = [_grey(frame) for frame in ImageSequence.Iterator(picture)]
    if any(frame.shape != frames[0].shape or frame.dtype != frames[0].dtype for frame in frames):
        raise Unusable("several frames")
    return np.stack(frames)


def _grey(picture: Image.Image) -> np.ndarray:
    """As it is where it is grey (8, 16 or 32 bits), else its luminance; turned as it says that it is to be looked at."""
    white_is_zero = picture.mode.startswith("I;16") and getattr(picture, "tag_v2", {}).get(262) == 0  # of 8 bits Pillow knows
    picture = ImageOps.exif_transpose(picture)
    grey = picture.mode in ("L", "I", "F") or picture.mode.startswith("I;16")
    values = np.asarray(picture if grey else picture.convert("RGB").convert("L"))
    return 65535 - values if white_is_zero else values


def _array(path: str) -> np.ndarray:
    """(H, W), (N, H, W), (N, 1 or 3, H, W) or (N, H, W, 1 or 3) as (N, H, W)."""
    held = np.load(path, allow_pickle=False)
    if not isinstance(held, np.ndarray):
        arrays = [held[key] for key in held.files if held[key].ndim >= 2]
        if len(arrays) != 1:
            raise Unusable("no picture")
        held = arrays[0]
    if held.dtype == bool:
        held = held.astype(np.uint8) * 255
    if held.dtype.kind not in "iuf" or held.ndim not in (2, 3, 4):
        raise Unusable("no picture")
    if held.ndim == 4:
        axis = next((axis for axis in (1, 3) if held.shape[axis] in (1, 3)), None)
        if axis is None:
            raise Unusable("no picture")
        held = held.mean(axis).astype(held.dtype) if held.shape[axis] == 3 else held.take(0, axis)
    if held.ndim == 3 and held.shape[0] == held.shape[1] != held.shape[2]:
        raise Unusable("array axes")
    return held[None] if held.ndim == 2 else held


def _in_hu(stack: np.ndarray) -> bool:
    """Whether values are HU: they reach air's, and a third of the slices that show anything show a body in air."""
    lowest = np.quantile(stack[:: max(1, len(stack) // 16), ::4, ::4], 0.001)
    if stack.dtype == np.uint8 or not -32_768 <= lowest <= -900:
        return False
    some = [hu.astype(np.float32) for hu in stack if np.ptp(hu) > 0]
    some = [some[i] for i in np.linspace(0, len(some) - 1, min(15, len(some))).astype(int)] if some else []
    return bool(some) and float(np.mean([is_plausible(hu, hu < -1024) for hu in some])) > 1 / 3
