"""Whether a volume's file holds what it says: where its reader fills up, guesses or goes elsewhere, and says nothing."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from lpdirs.data.reasons import Unusable

SAME = 0.02  # share of the spacing by which two accounts of a geometry may differ
FLOATS = {16: "f4", 64: "f8"}


def check_whole(path: Path) -> None:
    """Unusable where a NIfTI or MetaImage file is cut short or contradicts itself, or a header's data is no file beside it."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise Unusable("odd name") from error
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        _check_nifti(path)
    elif name.endswith((".mha", ".mhd")):
        _check_meta(path)
    elif name.endswith((".nrrd", ".nhdr")):
        _check_nrrd(path)


def _check_nifti(path: Path) -> None:
    with gzip.open(path) if path.name.lower().endswith(".gz") else open(path, "rb") as file:
        head = file.read(544)
        order = next((o for o in "<>" if struct.unpack_from(f"{o}i", head)[0] in (348, 540)), "<")
        second = struct.unpack_from(f"{order}i", head)[0] == 540
        take = lambda kind, at: struct.unpack_from(order + kind, head, at)
        dims, pixdim = (take("8q", 16), take("8d", 104)) if second else (take("8h", 40), take("8f", 76))
        kind, bits = take("2h", 12) if second else take("2h", 70)
        begin = take("q", 168)[0] if second else int(take("f", 108)[0])
        codes = take("2i", 344) if second else take("2h", 252)
        quaternion, srow = (take("6d", 352), take("12d", 400)) if second else (take("6f", 256), take("12f", 280))
        if begin < (544 if second else 352):
            raise Unusable("damaged pixels")
        if dims[0] >= 3:
            _check_geometry(codes, pixdim, quaternion, np.reshape(srow, (3, 4))[:, :3])
        wanted, there, values = begin + int(np.prod(np.array(dims[1 : 1 + dims[0]], float))) * bits // 8, len(head), b""
        while there < wanted and (block := file.read(1 << 24)):  # of a compressed file also its checksum, at its end
            if kind in FLOATS:
                values += block if there > len(head) else (head + block)[begin:]
                cut = len(values) - len(values) % (bits // 8)
                if not np.isfinite(np.frombuffer(values[:cut], np.dtype(order + FLOATS[kind]))).all():
                    raise Unusable("damaged pixels")  # its reader would make 0 of them
                values = values[cut:]
            there += len(block)
    if there < wanted:
        raise Unusable("damaged pixels")


def _check_geometry(codes: tuple, pixdim: tuple, quaternion: tuple, srow: np.ndarray) -> None:
    """Unusable unless sform or qform is there, and both, and the spacing, agree."""
    qform, sform = codes
    spacing = np.array(pixdim[1:4], float)
    if (qform <= 0 and sform <= 0) or not np.isfinite([*spacing, *srow.ravel()]).all() or spacing.min() <= 0:
        raise Unusable("no geometry")
    if sform > 0 and np.abs(np.linalg.norm(srow, axis=0) / spacing - 1).max() > SAME:
        raise Unusable("no geometry")
    if qform > 0 and sform > 0:
        b, c, d = (float(v) for v in quaternion[:3])
        a = np.sqrt(max(0.0, 1 - b * b - c * c - d * d))
        turned = np.array(
            [
                [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
                [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
                [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
            ]
        ) * np.array([1, 1, -1 if pixdim[0] < 0 else 1])
        if np.abs(turned - srow / spacing).max() > 5 * SAME:
            raise Unusable("no geometry")


def _check_meta(path: Path) -> None:
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
        if data.upper() == "LOCAL":
            content = file.read() if packed else b""
        else:
            other = _beside(path, data)
            content = other.read_bytes() if packed else b""
    if packed:
        try:
            zlib.decompress(content)  # its reader goes on with what it has
        except zlib.error as error:
            raise Unusable("damaged pixels") from error


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
