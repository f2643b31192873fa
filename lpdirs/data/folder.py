"""All files below a folder, each once: those to look into, and those that are not, with the reason."""

import os
import zlib
from pathlib import Path

from lpdirs.data.reasons import ARCHIVES, FORMATS, Unusable

LARGEST = 512 * 2**20  # bytes of a deflated file once it is inflated
DEFLATED = b"1.2.840.10008.1.2.1.99"


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


def check_kind(path: Path) -> None:
    """Raise Unusable for what is no regular file, is of another format by its name, or inflates beyond all measure."""
    if not path.exists():
        raise Unusable("cannot be read")
    if not path.is_file():
        raise Unusable("not a file")
    name = path.name.lower()
    if name.endswith(FORMATS):
        raise Unusable("another format")
    if name.endswith(ARCHIVES):
        raise Unusable("archive")
    with open(path, "rb") as file:
        head = file.read(1024)
        if head.startswith(b"PK\x03\x04"):
            raise Unusable("archive")
        if DEFLATED not in head or head[128:132] != b"DICM":
            return
        file.seek(144 + int.from_bytes(head[140:144], "little"))
        stream, inflated = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while (block := file.read(1 << 16)) and not stream.eof:
            while block:
                inflated += len(stream.decompress(block, 1 << 20))
                block = stream.unconsumed_tail
                if inflated > LARGEST:
                    raise Unusable("damaged pixels")
