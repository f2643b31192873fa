"""Volumes, pictures and arrays that are not DICOM: NIfTI, MetaImage, NRRD, PNG, TIFF, JPEG, BMP, NumPy."""

import gzip
import struct
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from lpdirs.base.errors import optional
from lpdirs.data.dicom import MAX_TILT, Header
from lpdirs.data.pixels import is_plausible
from lpdirs.data.reasons import Unusable, unreadable

VOLUMES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
ARRAYS = (".npy", ".npz")
MOST = 2**31  # values of a file
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
    """A slice that is not in HU, float32 (rows, columns): its file's range as the window."""
    stack = _read(str(header.path), header.path.stat().st_mtime_ns)[0]
    low, high = _range(str(header.path), header.path.stat().st_mtime_ns)
    return ((stack[header.frame or 0].astype(np.float32) - low) / (high - low)) * (window[1] - window[0]) + window[0]


def read_hu_of(header: Header) -> np.ndarray:
    """A slice of a volume in HU, float32 (rows, columns)."""
    return _read(str(header.path), header.path.stat().st_mtime_ns)[0][header.frame or 0].astype(np.float32)


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
    except Exception as error:  # whatever a damaged file makes its library raise
        raise Unusable("cannot be read" if unreadable(error) else "damaged pixels") from error
    if stack.size == 0 or stack.size > MOST or not np.isfinite(stack).all():
        raise Unusable("no picture" if stack.size == 0 else "implausible size" if stack.size > MOST else "damaged pixels")
    return stack, spacing, origin, name.endswith(VOLUMES) and _in_hu(stack)


def _volume(path: str) -> tuple[np.ndarray, tuple[float, float, float], float]:
    sitk = optional("SimpleITK", "formats")
    if path.lower().endswith((".nii", ".nii.gz")):
        _check_whole(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(path)
    reader.ReadImageInformation()
    if reader.GetDimension() == 2:
        return sitk.GetArrayFromImage(reader.Execute())[None], (*reader.GetSpacing()[::-1], 1.0), 0.0
    if reader.GetDimension() != 3 or reader.GetNumberOfComponents() != 1:
        raise Unusable("several frames")
    if int(np.prod(np.array(reader.GetSize(), float))) > MOST:
        raise Unusable("implausible size")
    image = sitk.DICOMOrient(reader.Execute(), "LPS")  # columns to the left, rows to the back, slices to the head
    direction = np.array(image.GetDirection()).reshape(3, 3)
    if np.diag(direction).min() < np.cos(np.deg2rad(MAX_TILT)):
        raise Unusable("not axial")
    across, down, between = image.GetSpacing()
    top = image.TransformIndexToPhysicalPoint((0, 0, image.GetSize()[2] - 1))[2]
    return sitk.GetArrayFromImage(image)[::-1], (down, across, between), float(top)


def _check_whole(path: str) -> None:
    """Unusable where a NIfTI file is shorter than it says: its reader fills up with zeros and says nothing."""
    with gzip.open(path) if path.lower().endswith(".gz") else open(path, "rb") as file:
        head = file.read(540)
        order = next((o for o in "<>" if struct.unpack_from(f"{o}i", head)[0] in (348, 540)), "<")
        if struct.unpack_from(f"{order}i", head)[0] == 540:  # NIfTI-2
            dims, bits, start = struct.unpack_from(f"{order}8q", head, 16), struct.unpack_from(f"{order}h", head, 14)[0], 168
            begin = struct.unpack_from(f"{order}q", head, start)[0]
        else:
            dims, bits = struct.unpack_from(f"{order}8h", head, 40), struct.unpack_from(f"{order}h", head, 72)[0]
            begin = int(struct.unpack_from(f"{order}f", head, 108)[0])
        wanted, there = begin + int(np.prod(np.array(dims[1 : 1 + dims[0]], float))) * bits // 8, len(head)
        while there < wanted and (block := file.read(1 << 20)):  # of a compressed file also its checksum, at its end
            there += len(block)
    if there < wanted:
        raise Unusable("damaged pixels")


def _picture(path: str) -> np.ndarray:
    with Image.open(path) as picture:
        frames = [np.asarray(_grey(frame)) for frame in ImageSequence.Iterator(picture)]
    if any(frame.shape != frames[0].shape for frame in frames):
        raise Unusable("several frames")
    return np.stack(frames)


def _grey(picture: Image.Image) -> Image.Image:
    """As it is where it is grey (8, 16 or 32 bits), else its luminance."""
    return picture if picture.mode in ("L", "I", "F") or picture.mode.startswith("I;16") else picture.convert("RGB").convert("L")


def _array(path: str) -> np.ndarray:
    """(H, W), (N, H, W), (N, 1 or 3, H, W) or (N, H, W, 1 or 3) as (N, H, W)."""
    held = np.load(path, allow_pickle=False)
    if not isinstance(held, np.ndarray):
        arrays = [held[key] for key in held.files if held[key].ndim >= 2]
        if len(arrays) != 1:
            raise Unusable("no picture")
        held = arrays[0]
    if held.dtype == bool:
        held = held.astype(np.uint8)
    if held.dtype.kind not in "iuf" or held.ndim not in (2, 3, 4):
        raise Unusable("no picture")
    if held.ndim == 4:
        axis = next((axis for axis in (1, 3) if held.shape[axis] in (1, 3)), None)
        if axis is None:
            raise Unusable("no picture")
        held = held.mean(axis) if held.shape[axis] == 3 else held.take(0, axis)
    return held[None] if held.ndim == 2 else held


def _in_hu(stack: np.ndarray) -> bool:
    """Whether values are HU: they reach air's, and a third of the slices show a body in air."""
    if stack.min() > -900 or stack.min() < -32_768 or stack.dtype == np.uint8:
        return False
    some = stack[np.linspace(0, len(stack) - 1, min(15, len(stack))).astype(int)].astype(np.float32)
    return float(np.mean([is_plausible(hu, hu < -1024) for hu in some])) > 1 / 3
