"""The pixels of a CT file as an upright slice in HU, or the reason why they are none."""

import struct
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.filereader import read_partial
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from scipy import ndimage

from lpdirs.data.decoder import decode, stored_values
from lpdirs.data.dicom import PIXELS, Header, in_order, turn
from lpdirs.data.folder import LARGEST, Unusable, quiet_pydicom, reasoned

MOST = 2**31  # bytes of a file of several frames
IMPOSSIBLE = 31_000.0  # HU beyond which no scanner writes: the extended scale ends at 30,710
AIR, TISSUE = (-1200.0, -600.0), (-250.0, 350.0)  # HU of which a slice must hold at least ENOUGH each
ENOUGH = 0.01


def read_hu(header: Header) -> np.ndarray:
    """The slice in HU, float32 (rows, columns), the patient's left at the right and front at the top; Unusable if damaged."""
    return read_slice(header)[0]


def read_slice(header: Header, raw: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """`read_hu`, and where the scanner did not see (padding), bool (rows, columns); there the HU are air's. `raw`: what a volume holds."""
    if raw is None:
        with reasoned("damaged pixels"), quiet_pydicom():
            frame, changed = header.frame, header.path.stat().st_mtime_ns
            raw = _pixels(header.path) if frame is None else _frames(header.path, changed)[frame]
    if raw.ndim != 2:
        raise Unusable("colour" if raw.ndim == 3 and raw.shape[-1] in (3, 4) else "several frames")
    if raw.shape != header.shape:
        raise Unusable("damaged pixels")
    hu = raw.astype(np.float32) * np.float32(header.slope) + np.float32(header.intercept)
    _check_once(hu)
    unseen = hu < -1024  # outside the field of view scanners write anything
    if header.padding is not None:
        unseen |= _tagged_padding(raw, hu, *header.padding)
    unseen |= _untagged_padding(raw, hu) | _corners(raw, hu)
    hu[unseen] = -1000
    if not is_plausible(hu, unseen):
        raise Unusable("implausible HU")
    transpose, flip_rows, flip_columns = turn(header.orientation)
    upright = lambda a: np.ascontiguousarray((a.T if transpose else a)[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1])
    return upright(hu), upright(unseen)


def _tagged_padding(raw: np.ndarray, hu: np.ndarray, value: int, limit: int) -> np.ndarray:
    """Pixels from the padding value to its limit, in either reading of the 16 bits; of values that tissue has too, those that reach the
    frame's border alone."""
    low, high = sorted((value & 0xFFFF, limit & 0xFFFF))
    bits = raw.astype(np.int64) & 0xFFFF
    padding = (bits >= low) & (bits <= high)
    return padding if not padding.any() or hu[padding].max() < -900 else _from_border(padding)


def _from_border(mask: np.ndarray) -> np.ndarray:
    labels, _ = ndimage.label(mask)
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    return np.isin(labels, border[border > 0])


def _corners(raw: np.ndarray, hu: np.ndarray) -> np.ndarray:
    """Untagged padding of a value that tissue has too: the same in all four corners, unlike air, and far into the frame from there."""
    corners = raw[[0, 0, -1, -1], [0, -1, 0, -1]]
    if (corners != corners[0]).any() or hu[0, 0] < -900:
        return np.zeros(raw.shape, bool)
    padding = _from_border(raw == corners[0])
    return padding if padding.mean() > 0.05 else np.zeros(raw.shape, bool)


def _check_once(hu: np.ndarray) -> None:
    """Unusable where the intercept was subtracted twice: much of the frame is about -2024, and not the one value that padding has."""
    twice = hu[(hu > -2200) & (hu < -1850)]
    if len(twice) > 0.05 * hu.size and len(np.unique(twice)) > 8:
        raise Unusable("implausible HU")


def _untagged_padding(raw: np.ndarray, hu: np.ndarray) -> np.ndarray:
    """Pixels with a value that no scanner writes for tissue, where it is a single value that reaches the frame's border: padding.

    Several such values, or inside the frame alone, come of pixels that were decoded with the wrong sign: Unusable.
    """
    impossible = np.abs(hu) > IMPOSSIBLE
    if impossible.any():
        border = np.concatenate([impossible[0], impossible[-1], impossible[:, 0], impossible[:, -1]])
        if len(np.unique(raw[impossible])) > 1 or not border.any():
            raise Unusable("implausible HU")
    return impossible


def is_plausible(hu: np.ndarray, unseen: np.ndarray) -> bool:
    """Whether what was seen holds air (or lung) and soft tissue: those of a body in air."""
    step = max(1, min(hu.shape) // 128)  # a sixteenth of the pixels of a usual frame tells as much
    some = hu[::step, ::step][~unseen[::step, ::step]]
    return bool(len(some)) and all(((some > low) & (some < high)).mean() >= ENOUGH for low, high in (AIR, TISSUE))


@lru_cache(maxsize=1)  # its frames are asked for one after the other
def _frames(path: Path, _: int) -> np.ndarray:
    stack = _pixels(path, MOST)
    if stack.ndim != 3:
        raise Unusable("damaged pixels")
    return stack


def _pixels(path: Path, most: int = LARGEST) -> np.ndarray:
    if path.stat().st_size > most:
        raise Unusable("implausible size")
    with open(path, "rb") as file:
        ds = read_partial(file, in_order(PIXELS + 1), force=True)
    if "TransferSyntaxUID" not in ds.file_meta:  # no preamble: what the parser found must have been uncompressed
        implicit, little = ds.original_encoding
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    syntax = ds.file_meta.TransferSyntaxUID
    if syntax == RLELossless:
        _check_runs(ds)
    elif syntax.is_encapsulated:
        return decode(path)
    return stored_values(ds)


def _check_runs(ds: Dataset) -> None:
    """Unusable where a segment of RLE data holds more than its frame: decoders inflate it in full, up to 64 times."""
    most = int(ds.Rows) * int(ds.Columns) + 2**20
    for frame in generate_frames(ds.PixelData, number_of_frames=int(ds.get("NumberOfFrames") or 1)):
        if 64 * len(frame) <= 2**26:  # as nearly all: it cannot hold much
            continue
        count, *starts = struct.unpack("<16L", frame[:64])
        for first, end in pairwise([*starts[:count], len(frame)]):
            held = 0
            while first < end and held <= most:
                run = frame[first]
                literal = run <= 128  # 128 says nothing
                held += (run + 1) % 129 if literal else 257 - run
                first += (run + 1) % 129 + 1 if literal else 2
            if held > most:
                raise Unusable("implausible size")
