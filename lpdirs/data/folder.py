"""All files below a folder, each once: those to look into, and those that are not used, with the reason."""

import hashlib
import logging
import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom import filereader

LARGEST = 128 * 2**20  # bytes of a file with one slice, once it is inflated
BARE = (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08")  # groups that a DICOM file without a preamble begins with, in either byte order


def list_files(folder: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """(files to look into, others with their reasons) below `folder`, sorted; links are followed, each folder is entered once."""
    files: list[Path] = []
    others: list[tuple[Path, str]] = []
    entered = {_identity(folder)}

    def unopened(error: OSError) -> None:
        others.append((Path(error.filename), "cannot be read"))

    for root, folders, names in os.walk(folder, followlinks=True, onerror=unopened):
        into = []
        for name in sorted(folders):
            path = Path(root) / name
            try:
                identity = _identity(path)
            except OSError as error:
                unopened(error)
                continue
            if identity in entered:
                others.append((path, "linked again"))
            else:
                entered.add(identity)
                into.append(name)
        folders[:] = into
        hidden = any(part.startswith(".") for part in Path(root).relative_to(folder).parts)
        for name in sorted(names):
            if hidden or name.startswith("."):
                others.append((Path(root) / name, "hidden"))
            else:
                files.append(Path(root) / name)
    return files, others


def find_files(folder: Path) -> list[Path]:
    """The files to look into; see `list_files`."""
    return list_files(folder)[0]


def _identity(path: Path) -> tuple[int, int]:
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino


def inventory_of(source: Path, files: list[Path], secret: bytes, extra: str = "", times: bool = False) -> str:
    """A fingerprint of names and sizes of files and, with `times`, of when they were last changed; keyed, since names can be guessed."""
    digest = hashlib.blake2b(extra.encode(), key=secret[:64], digest_size=12)
    for path in files:
        try:
            stat = path.stat()
        except OSError:
            digest.update(f"{os.path.relpath(path, source)}\0gone\n".encode(errors="surrogateescape"))
            continue
        changed = f"\0{stat.st_mtime_ns} {stat.st_ctime_ns}" if times else ""
        digest.update(f"{os.path.relpath(path, source)}\0{stat.st_size}{changed}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def check_kind(path: Path) -> None:
    """Raise Unusable for what is no regular file, or is of another format by its name or its first bytes."""
    if not path.exists():
        raise Unusable("cannot be read")
    if not path.is_file():
        raise Unusable("not a file")
    with open(path, "rb") as file:
        head = file.read(132)
    if is_dicom(head):  # whatever its name says
        return
    name = path.name.lower()
    if name.endswith(FORMATS):
        raise Unusable("another format")
    if name.endswith(ARCHIVES) or head.startswith(b"PK\x03\x04"):
        raise Unusable("archive")
    raise Unusable("not DICOM")


def is_dicom(head: bytes) -> bool:
    """Whether a file's first 132 bytes are those of DICOM, with its preamble or without."""
    return head[128:] == b"DICM" or head[:2] in BARE


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """While files are read pydicom says nothing, since what it warns of is judged by what is read, and inflates no file without limit."""
    log, before = logging.getLogger("pydicom"), filereader.zlib
    level = log.level
    log.setLevel(logging.ERROR)
    filereader.zlib = Inflate  # type: ignore
    try:
        yield
    finally:
        log.setLevel(level)
        filereader.zlib = before


class Inflate:
    """zlib for pydicom, which inflates a deflated file without a limit."""

    MAX_WBITS = zlib.MAX_WBITS

    @staticmethod
    def decompress(data: bytes, wbits: int) -> bytes:
        """As zlib.decompress; ValueError beyond LARGEST bytes."""
        stream = zlib.decompressobj(wbits)
        inflated = stream.decompress(data, LARGEST)
        if stream.unconsumed_tail:
            raise ValueError("inflates beyond the limit")
        return inflated + stream.flush()


REASONS = {
    "cannot be read": "the file or folder could not be opened (rights, memory, a broken link): mend that, and the next build reads it",
    "hidden": "its name, or that of a folder above it, begins with a dot: it was not opened; rename it to have it read",
    "not a file": "a pipe, a socket or a device",
    "linked again": "a link to a folder that is read already",
    "archive": "a zip, tar, gzip, 7z or rar file: unpack it",
    "another format": "neither DICOM, nor a volume, picture or array that is read (NIfTI, MetaImage, NRRD, PNG, TIFF, JPEG, BMP, NumPy)",
    "no reader": "a volume: install the extra lpdirs[formats] (SimpleITK), and the next build reads it",
    "odd name": "its name holds bytes that are no UTF-8, which the library that reads volumes cannot open: rename it",
    "read with its header": "the data of a MetaImage or NRRD header beside it, which is read",
    "no picture": "an array that holds no images (N, H, W), or one value alone, or a file of several arrays: keep one",
    "array axes": "an array of shape (H, H, N): move the slices to the front, np.moveaxis(array, 2, 0) for (N, H, H)",
    "no HU": "its values are no HU, and other files of the folder are CT in HU: give it a folder of its own",
    "DICOMDIR": "an index of DICOM files, which are read themselves",
    "not DICOM": "the file is not DICOM, or its header cannot be read",
    "not a CT image": "DICOM, but by SOP class or modality not a CT image (a segmentation, dose, report, another modality)",
    "several frames": "a file of several frames, or volumes, that does not say where each lies",
    "colour": "more than one sample a pixel",
    "no pixels": "there is no pixel data",
    "implausible size": "fewer than 32 (of pictures 16) or more than 4096 rows or columns, or a file too large to be one",
    "no geometry": "orientation, position or pixel spacing is missing, not a number, or contradicts itself",
    "no rescale": "slope or intercept is missing or not a number, or the values are said to be no HU",
    "not axial": "the slice is tilted by more than 20 degrees from the axial plane (a reformat, or a scout)",
    "contradiction": "its series holds slices of several people (names, dates of birth or sexes differ)",
    "mixed stacks": "its series holds several slices at most positions, and nothing says which of them belong together",
    "another stack": "its series holds several stacks (kernels, phases, acquisitions); the one with most slices was taken",
    "repeated position": "another slice of its series has the same position",
    "repeated series": "a longer series of the same study shows most of the same positions (another kernel, or thickness)",
    "another acquisition": "a longer series of the same study shows most of the same positions at another time, in another breath hold "
    "(inspiration, expiration), or in another posture (prone, supine)",
    "damaged pixels": "the pixel data is truncated or cannot be decoded",
    "decoding hangs": "its compressed pixels were not decoded within a minute: write it without compression",
    "not finite": "a volume, picture or array that holds NaN or infinity: write what is not known (beyond the field of view) as air",
    "implausible HU": "the values are not those of a body in air: no air, no soft tissue, or values that no scanner writes",
    "same pixels": "another file holds the same pixels",
    "no lung": "the share of lung in the body is below min_lung",
}
TRANSIENT = ("cannot be read", "no reader")  # lie in the machine and not in the file: never remembered
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
FORMATS = (".h5", ".hdf5", ".mat", ".hdr", ".img", ".mnc", ".mgz", ".svs", ".gif", ".pdf")


class Unusable(Exception):
    """A file that cannot be used; str() is one of REASONS."""


@contextmanager
def reasoned(otherwise: str) -> Iterator[None]:
    """Whatever a hostile file makes a library raise within is Unusable, for the reason `otherwise`, or since the machine cannot read it."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except Unusable:
        raise
    except Exception as error:
        raise Unusable("cannot be read" if unreadable(error) else otherwise) from error


def unreadable(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, lies in the machine: rights, memory, disk, and not in what the file says."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):  # codecs raise OSError without
            return True
        error = error.__cause__ or error.__context__
    return False
