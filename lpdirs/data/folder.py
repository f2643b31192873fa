"""All files below a folder, each once: those to look into, and those that are not, with the reason."""

import hashlib
import logging
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom import filereader

from lpdirs.data.reasons import ARCHIVES, FORMATS, Unusable

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
    if head[128:] == b"DICM":  # whatever its name says
        return
    name = path.name.lower()
    if name.endswith(FORMATS):
        raise Unusable("another format")
    if name.endswith(ARCHIVES) or head.startswith(b"PK\x03\x04"):
        raise Unusable("archive")
    if head[:2] not in BARE:
        raise Unusable("not DICOM")


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
            raise ValueError("inflates beyond all measure")
        return inflated + stream.flush()
