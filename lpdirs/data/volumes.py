"""Volumes, pictures and arrays that are not DICOM: NIfTI (nibabel), MetaImage and NRRD (SimpleITK), PNG, TIFF, JPEG, BMP, NumPy."""

import gzip
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, ImageSequence

from lpdirs.base.errors import UserError, optional
from lpdirs.data.dicom import MAX_TILT, Header
from lpdirs.data.folder import Unusable, reasoned
from lpdirs.data.pixels import is_plausible

VOLUMES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
ARRAYS = (".npy", ".npz")
LABELS, MANY_LABELS, SMOOTH = 20, 300, 0.9  # values of a mask; of one that lies in patches, and pixels there that are as the next one
MOST = 2**31  # values, and bytes, of a file once it is inflated
MAX_SHEAR = 0.05  # of the axes' inner products, as of a DICOM slice
SAME = 0.02  # share of the spacing by which two accounts of a geometry may differ
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
    common = {"path": path, "patient": str(path), "study": str(path), "series": str(path), "orientation": AXIAL}
    common |= {"spacing": spacing[:2], "slope": 1.0, "intercept": 0.0, "padding": None, "shape": (rows, columns), "in_hu": in_hu}
    common["kind"] = "volume" if path.name.lower().endswith(VOLUMES) else "picture"
    common["mask"] = not path.name.lower().endswith(PICTURES) and not in_hu and _looks_like_a_mask(stack)
    return [
        Header(**common, instance=str(i), number=i, position=(0.0, 0.0, origin - i * spacing[2]), frame=i)  # type: ignore[arg-type]
        for i in range(len(stack))
    ]


def raw_values(header: Header) -> np.ndarray:
    """A slice as its file holds it, (rows, columns); of a volume in HU these."""
    return _read(str(header.path), header.path.stat().st_mtime_ns)[0][header.frame or 0]


def read_values(header: Header, window: tuple[float, float]) -> np.ndarray:
    """A slice without mm and HU of its own, float32 (rows, columns): its file's range as the window; what an array holds of a body in air,
    as it is."""
    values = raw_values(header).astype(np.float32)
    if holds_a_body(header):
        return values
    low, high = _range(str(header.path), header.path.stat().st_mtime_ns)
    return ((values - low) / (high - low)) * (window[1] - window[0]) + window[0]


def holds_a_body(header: Header) -> bool:
    """Whether it is of an array whose values are HU, of a body in air."""
    path = str(header.path)
    return header.kind != "dicom" and path.lower().endswith(ARRAYS) and _of_body(path, header.path.stat().st_mtime_ns)


def _looks_like_a_mask(stack: np.ndarray) -> bool:
    """Whether a volume holds whole numbers alone that are few, or that lie in patches in what is mostly 0, as label volumes do."""
    some = stack[:: max(1, len(stack) // 16)]
    values, counts = np.unique(some[:, ::2, ::2], return_counts=True)
    if not (values == np.round(values)).all():
        return False
    patches = len(values) <= MANY_LABELS and values[counts.argmax()] == 0 and (some[:, 1:] == some[:, :-1]).mean() > SMOOTH
    return len(values) <= LABELS or bool(patches)


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
    with reasoned("damaged pixels"):
        if name.endswith((".nii", ".nii.gz")):
            stack, spacing, origin = _nifti(path)
        elif name.endswith(VOLUMES):
            stack, spacing, origin = _volume(path)
        else:
            stack, spacing, origin = (_array(path) if name.endswith(ARRAYS) else _picture(path)), (1.0, 1.0, 1.0), 0.0
    if stack.ndim != 3 or stack.size == 0 or not np.isrealobj(stack):
        raise Unusable("no picture")
    if stack.size > MOST:
        raise Unusable("implausible size")
    if not np.isfinite(stack).all():
        raise Unusable("not finite")
    return stack, spacing, origin, name.endswith(VOLUMES) and _in_hu(stack)


def _nifti(path: str) -> tuple[np.ndarray, tuple[float, float, float], float]:
    nibabel = _library("nibabel")
    _check_name(Path(path))
    try:
        image = nibabel.load(path)
    except nibabel.filebasedimages.ImageFileError as error:
        raise Unusable("damaged pixels") from error
    shape, first = image.shape, int(image.dataobj.offset)
    if 0 <= first < 352:
        raise Unusable("damaged pixels")  # its values would begin in its header
    if image.get_data_dtype().fields is not None:
        raise Unusable("colour")
    if len(shape) < 2 or any(n != 1 for n in shape[3:]):
        raise Unusable("several frames" if len(shape) < 5 else "colour")
    bytes_of = int(np.prod(np.array(shape, float))) * image.get_data_dtype().itemsize
    if bytes_of > MOST:
        raise Unusable("implausible size")
    if path.lower().endswith(".gz"):
        with gzip.open(path) as file:  # to its end, where its checksum is; a file that holds more than it says goes on for long
            while file.read(1 << 24):
                if file.tell() > bytes_of + (1 << 26):
                    raise Unusable("implausible size")
    affine = _affine_of(image.header)
    volume = np.asanyarray(image.dataobj).reshape((*shape, 1)[:3])
    return _upright(volume, affine)


def _affine_of(header: Any) -> np.ndarray:
    """Where voxels lie, (4, 4), in mm to the right, to the front and to the head; Unusable unless sform or qform is there, and both, and
    the spacing, agree."""
    zooms = np.array(header.get_zooms()[:3], float)
    sform, qform = header.get_sform(coded=True)[0], None
    if header["qform_code"] > 0:
        qform = header.get_qform()
    affine = qform if sform is None else sform
    if affine is None or not np.isfinite([*affine.ravel(), *zooms]).all() or zooms.min() <= 0:
        raise Unusable("no geometry")
    if np.abs(np.linalg.norm(affine[:3, : len(zooms)], axis=0) / zooms - 1).max() > SAME:
        raise Unusable("no geometry")
    if sform is not None and qform is not None and np.abs((sform - qform)[:3, : len(zooms)] / zooms).max() > 5 * SAME:
        raise Unusable("no geometry")
    return affine


def _upright(volume: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, tuple[float, float, float], float]:
    """A volume (x, y, z) and where its voxels lie, in mm to the right, front and head, as slices (n, rows, columns), the patient's left at
    the right and front at the top, head first; with mm between rows, columns and slices, and z of the first."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    direction = affine[:3, :3] / spacing
    if np.abs(direction.T @ direction - np.eye(3)).max() > MAX_SHEAR or np.abs(affine[:3, 3]).max() > 1e6:
        raise Unusable("no geometry")
    axes = np.abs(direction).argmax(1)  # of the volume, along which the patient's right, front and head lie
    if sorted(axes) != [0, 1, 2] or np.abs(direction[[0, 1, 2], axes]).min() < np.cos(np.deg2rad(MAX_TILT)):
        raise Unusable("not axial")
    signs = np.sign(direction[[0, 1, 2], axes])
    volume, spacing = volume.transpose(axes), spacing[axes]
    across, down, between = (float(mm) for mm in spacing)
    if not (0.05 < min(across, down) and max(across, down) <= 10 and 1 / 4 <= across / down <= 4 and 0.01 <= between <= 100):
        raise Unusable("no geometry")
    last = volume.shape[2] - 1
    top = np.zeros(4)
    top[axes[2]], top[3] = (last if signs[2] > 0 else 0), 1
    # columns go to the left, rows to the back, slices to the feet
    left, back, feet = (slice(None, None, -1 if sign > 0 else 1) for sign in signs)
    return volume[left, back, feet].transpose(2, 1, 0), (down, across, between), float((affine @ top)[2])


def _volume(path: str) -> tuple[np.ndarray, tuple[float, float, float], float]:
    sitk = _library("SimpleITK")
    _check_name(Path(path))
    meta = path.lower().endswith((".mha", ".mhd"))
    _check_meta(Path(path)) if meta else _check_nrrd(Path(path))
    reader = sitk.ImageFileReader()
    reader.SetImageIO("MetaImageIO" if meta else "NrrdImageIO")  # by its name: it would take anything for what it looks like
    reader.SetFileName(path)
    reader.ReadImageInformation()
    if reader.GetNumberOfComponents() != 1:
        raise Unusable("colour")
    if reader.GetDimension() not in (2, 3):
        raise Unusable("several frames")
    widest = 8 if "64" in sitk.GetPixelIDValueAsString(reader.GetPixelID()) else 4  # bytes of a value, at most
    if widest * float(np.prod(np.array(reader.GetSize(), float))) > MOST:
        raise Unusable("implausible size")
    n, affine = reader.GetDimension(), np.eye(4)
    direction = np.array(reader.GetDirection()).reshape(n, n)
    if not np.isfinite([*reader.GetOrigin(), *reader.GetSpacing(), *direction.ravel()]).all():
        raise Unusable("no geometry")
    affine[:n, :n], affine[:n, 3] = direction * np.array(reader.GetSpacing()), reader.GetOrigin()
    values = sitk.GetArrayFromImage(reader.Execute())
    return _upright(
        (values if n == 3 else values[None]).transpose(2, 1, 0), np.diag([-1, -1, 1, 1]) @ affine
    )  # ITK counts to left and back


def _library(name: str) -> Any:
    try:
        return optional(name, "formats")
    except UserError as error:
        raise Unusable("no reader") from error


def _check_name(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise Unusable("odd name") from error


def _check_meta(path: Path) -> None:
    """Unusable where a MetaImage file says nothing of its spacing, is cut short or inflates to more than it says."""
    with open(path, "rb") as file:
        head = file.read(1 << 16)
        text, found, _ = head.partition(b"ElementDataFile")
        fields = dict(line.split("=", 1) for line in text.decode(errors="replace").splitlines() if "=" in line)
        fields = {key.strip().lower(): value.strip() for key, value in fields.items()}
        if not found or not {"elementspacing", "elementsize"} & set(fields):
            raise Unusable("no geometry" if found else "damaged pixels")
        line = head[len(text) :].split(b"\n", 1)[0]
        data = line.partition(b"=")[2].strip().decode(errors="replace")
        file.seek(len(text) + len(line) + 1)
        packed = fields.get("compresseddata", "").lower() == "true"
        content = file.read() if packed and data.upper() == "LOCAL" else b""
    if data.upper() != "LOCAL":
        other = _beside(path, data)
        content = other.read_bytes() if packed else b""
    if packed:
        _check_inflates(content, 8 * int(np.prod([float(n) for n in fields.get("dimsize", "0").split()])))


def _check_inflates(content: bytes, most: int) -> None:
    """Unusable where zlib's data are damaged, or hold more than `most` bytes: a reader would go on with what it has."""
    stream, size = zlib.decompressobj(), 0
    try:
        while content and not stream.eof:
            size += len(stream.decompress(content, 1 << 24))
            content = stream.unconsumed_tail
            if size > min(most, MOST):
                raise Unusable("implausible size")
    except zlib.error as error:
        raise Unusable("damaged pixels") from error
    if not stream.eof:
        raise Unusable("damaged pixels")


def _check_nrrd(path: Path) -> None:
    with open(path, "rb") as file:
        lines = file.read(1 << 16).split(b"\n\n", 1)[0].decode(errors="replace").splitlines()
    fields = {key.strip().lower(): value.strip(" =") for key, _, value in (line.partition(":") for line in lines) if key[:1] != "#"}
    if "space" not in fields and "space dimension" not in fields:
        raise Unusable("no geometry")
    data = fields.get("data file", fields.get("datafile"))
    if data is not None:
        _beside(path, data)


def _beside(path: Path, data: str) -> Path:
    """The file of a header's values: a regular one in the header's own folder, or below it."""
    other = path.parent / data
    if Path(data).is_absolute() or ".." in Path(data).parts or not other.is_file():
        raise Unusable("damaged pixels")
    return other


def _picture(path: str) -> np.ndarray:
    with Image.open(path) as picture:
        if picture.width * picture.height * getattr(picture, "n_frames", 1) > MOST // 4:
            raise Unusable("implausible size")
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
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MOST:
                raise Unusable("implausible size")
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
