"""One series from files to a finished part of the data set: what a worker does, on its own and without knowing the others."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from PIL import Image
from pydantic import model_validator

from lpdirs.base.checked import Settings, Side, setting
from lpdirs.base.files import write_array, write_atomic
from lpdirs.data.body import SIZE, lung_fractions
from lpdirs.data.dicom import Header
from lpdirs.data.folder import TRANSIENT, Unusable
from lpdirs.data.pixels import read_slice
from lpdirs.data.volumes import raw_values, read_values

NARROWEST = 50  # of a window: values are kept as whole numbers
LARGEST = 8192  # px along a side of a frame before it is made smaller
LUNG_SHOWS = 0.02  # share of lung in the body from which a slice counts as within the lungs' extent
LUNG_CUT = 0.18  # share on a series' first or last slice, above which (and half of its largest) the lungs go on beyond the series


class DataSettings(Settings):
    """How slices are made of files; the defaults are the phantom profile's."""

    size: Side = setting(64, "width and height, px")
    window_low: float = setting(-1000.0, "HU that become -1", ge=-32768, le=32767)
    window_high: float = setting(1000.0, "HU that become +1", ge=-32768, le=32767)
    min_lung: float = setting(0.0, "leave out slices with less than this share of lung in the body", ge=0, lt=1)
    fov_mm: float | None = setting(
        None, "side of the field around the frame's centre, mm; null: the whole frame, as in the paper", gt=10, le=2000
    )

    kernel: str = setting("soft", "which of series that show the same: soft, sharp or a kernel's name", min_length=1, max_length=64)
    thickness: float | None = setting(
        None, "slice thickness, mm, to which that of series that show the same is to be nearest; null: the longest series", gt=0, le=100
    )
    patients: Literal["auto", "file", "folder", "image"] = setting(
        "auto", "whose pictures and volumes are: file, folder, or each image its own; auto: of pictures folder, where there are several"
    )

    @model_validator(mode="after")
    def _a_window(self) -> Self:
        if self.window_low >= self.window_high:
            raise ValueError(f"window_low must be less than window_high, not {self.window_low:g} and {self.window_high:g}")
        if self.window_high - self.window_low < NARROWEST:
            raise ValueError(
                f"values are kept as whole numbers, so that the window must be at least {NARROWEST} wide (of pictures, 0 to 255), "
                f"not {self.window_low:g} to {self.window_high:g}"
            )
        return self

    @property
    def window(self) -> tuple[float, float]:
        """HU that become -1 and +1."""
        return self.window_low, self.window_high


def z_fractions(z_mm: np.ndarray, lung: np.ndarray) -> np.ndarray:
    """Positions as a fraction of the lungs' extent, 0 at its top and 1 at its base, from z (N,) and share of lung (N,).

    Beyond the lungs below 0 or above 1. NaN for a series with fewer than 5 slices that show lung, and for one that holds a part of the
    lungs alone (`cut_lungs`): what it shows would be stretched to the whole.
    """
    with_lung = z_mm[lung > LUNG_SHOWS]
    if len(with_lung) < 5 or cut_lungs(z_mm, lung):
        return np.full(len(z_mm), np.nan)
    return (with_lung.max() - z_mm) / np.ptp(with_lung)


def cut_lungs(z_mm: np.ndarray, lung: np.ndarray) -> bool:
    """Whether the lungs of a series go on beyond its first or its last slice."""
    ends = lung[[z_mm.argmax(), z_mm.argmin()]].max()
    return bool(ends > max(LUNG_CUT, lung.max() / 2))


def resample(
    hu: np.ndarray, spacing: tuple[float, float], size: int, fov_mm: float | None = None, beyond: float = -1000
) -> tuple[np.ndarray, float]:
    """Anti-aliased to (size, size) integer HU: the whole frame, or `fov_mm` around its centre; also returns mm a pixel.

    The field is square in mm. What lies outside the frame is air (`beyond`): so are the sides of frames that are not square, and of a
    field wider than the frame. `spacing` is mm between rows and between columns, of which the field's side is a whole number.
    """
    coarse = max(1, *(-(-round((fov_mm or n * mm) / mm) // LARGEST) for n, mm in zip(hu.shape, spacing, strict=True)))
    if coarse > 1:  # a field of very small pixels: blocks of them, so that what is padded stays small
        rows, columns = (n // coarse * coarse for n in hu.shape)
        hu = hu[:rows, :columns].reshape(rows // coarse, coarse, columns // coarse, coarse).mean((1, 3), dtype=np.float32)
        spacing = (spacing[0] * coarse, spacing[1] * coarse)
    side = fov_mm or max(n * mm for n, mm in zip(hu.shape, spacing, strict=True))
    rows, columns = (max(1, round(side / mm)) for mm in spacing)
    picture = Image.fromarray(_centred(hu, rows, columns, beyond))
    small = picture.resize((size, size), Image.Resampling.BILINEAR)  # widens with the reduction
    return np.asarray(small).round().clip(min(-1024, beyond), 32767).astype(np.int16), spacing[1] * columns / size


def _centred(hu: np.ndarray, rows: int, columns: int, beyond: float) -> np.ndarray:
    """The central (rows, columns) of a frame, with `beyond` where it ends."""
    if hu.shape == (rows, columns):
        return hu
    out = np.full((rows, columns), beyond, np.float32)
    overlap = lambda n, other: slice(max((n - other) // 2, 0), max((n - other) // 2, 0) + min(n, other))
    a, b = (overlap(have, want) for have, want in zip(hu.shape, out.shape, strict=True))
    c, d = (overlap(want, have) for have, want in zip(hu.shape, out.shape, strict=True))
    out[c, d] = hu[a, b]
    return out


def write_part(headers: list[Header], settings: DataSettings, folder: Path, name: str) -> tuple[str, int]:
    """Read one series, head to feet, into folder/<name>.npy (n, size, size) and, last, folder/<name>.json; returns (name, files).

    The JSON says, for each slice that is used, which of `headers` it is and what its table row needs, and which were rejected and why.
    Nothing in it names a patient or a path.
    """
    pixels, looked, unseen = [], [], []
    rows: list[dict[str, Any]] = []
    rejected: list[tuple[int, str]] = []
    for index, header in enumerate(headers):
        try:
            if not header.in_hu:
                values = read_values(header, settings.window)
                fov_mm = settings.fov_mm if header.kind == "volume" else None
                small, pixel_mm = resample(values, header.spacing, settings.size, fov_mm, settings.window_low)
                pixels.append(np.clip(small, *settings.window).astype("<i2"))
                digest = hashlib.blake2b(raw_values(header).tobytes(), digest_size=16).hexdigest()
                known = pixel_mm if header.kind == "volume" else None
                rows.append({"index": index, "z_mm": header.z_mm, "digest": digest, "pixel_mm": known, "lung": None, "fraction": None})
                continue
            hu, beyond = read_slice(header, raw_values(header) if header.kind == "volume" else None)
            small, pixel_mm = resample(hu, header.upright_spacing, settings.size, settings.fov_mm)
            look = small if settings.size == SIZE else resample(hu, header.upright_spacing, SIZE, settings.fov_mm)[0]
            outside = resample(beyond.astype(np.float32), header.upright_spacing, SIZE, settings.fov_mm, beyond=1)[0] > 0
        except (Unusable, MemoryError, OSError, IndexError) as reason:  # the latter two where a file went or changed meanwhile
            rejected.append((index, str(reason) if isinstance(reason, Unusable) else "cannot be read"))
            continue
        looked.append(look)
        unseen.append(outside)
        pixels.append(np.clip(small, *settings.window).astype("<i2"))
        digest = hashlib.blake2b(hu.tobytes(), digest_size=16).hexdigest()
        marks = {"kernel": header.mark("ConvolutionKernel"), "thickness": header.mark("SliceThickness")}
        rows.append({"index": index, "z_mm": header.z_mm, "digest": digest, "pixel_mm": pixel_mm, **marks})
    if looked:
        lung = lung_fractions(np.stack(looked).astype(np.float32), np.stack(unseen), rows[0]["pixel_mm"] * settings.size / SIZE)
        for row, share, fraction in zip(rows, lung, z_fractions(np.array([row["z_mm"] for row in rows]), lung), strict=True):
            row |= {"lung": float(share), "fraction": None if np.isnan(fraction) else float(fraction)}
        few = {i for i, row in enumerate(rows) if row["lung"] < settings.min_lung}
        rejected += [(rows[i]["index"], "no lung") for i in sorted(few)]
        rows, pixels = [rows[i] for i in range(len(rows)) if i not in few], [pixels[i] for i in range(len(rows)) if i not in few]
    stack = np.stack(pixels) if pixels else np.empty((0, settings.size, settings.size), "<i2")
    write_array(folder / f"{name}.npy", stack)
    part = json.dumps({"rows": rows, "rejected": rejected})
    write_atomic(folder / f"{name}.json", part)
    return name, len(headers)


def is_finished(part: Path, least: int = 0) -> bool:
    """Whether the part of a series is there with at least so many slices, and nothing in it failed for a reason that may be mended."""
    try:
        content = json.loads(part.read_text())
        whole = len(np.load(part.with_suffix(".npy"), mmap_mode="r")) == len(content["rows"])
        return whole and len(content["rows"]) >= least and all(reason not in TRANSIENT for _, reason in content["rejected"])
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return False
