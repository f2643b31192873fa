"""From a folder of DICOM to a data set on disk: slices.npy, slices.csv, rejected.csv, dataset.json."""

import csv
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from lpdirs.checkpoints import check_settings, write_atomic
from lpdirs.data.body import lung_fraction
from lpdirs.data.dicom import REASONS, Unusable, read_hu, scan
from lpdirs.data.lidc import read_manifest
from lpdirs.errors import UserError

LUNG_SHOWS = 0.02  # share of lung in the body from which a slice counts as within the lung's extent
SPLITS = {"train": 0.8, "validation": 0.1, "test": 0.1}


class NoSlices(UserError):
    """A folder of which no file ended up in the data set."""


@dataclass(frozen=True)
class DataSettings:
    """`size` px a side; `window` in HU; `min_lung` share of lung in the body below which a slice is left out."""

    size: int = 128
    window: tuple[float, float] = (-1000.0, 2000.0)
    min_lung: float = 0.0
    salt: str = "lpdirs"


def split_of(patient: str) -> str:
    """The patient's split: from a hash of the key alone, so that it never changes when others come or go."""
    place = int.from_bytes(hashlib.blake2b(patient.encode(), digest_size=8).digest(), "big") / 2**64
    for name, share in SPLITS.items():
        if place < share:
            return name
        place -= share
    return "test"


def pseudonym(identifier: str, salt: str, prefix: str) -> str:
    """A key that does not give the identifier away to those who lack the salt."""
    return prefix + hashlib.blake2b(identifier.encode(), key=salt.encode()[:64], digest_size=5).hexdigest()


def z_fractions(z_mm: np.ndarray, lung: np.ndarray) -> np.ndarray:
    """Positions as a fraction of the lung's extent, 0 at its top and 1 at its base, from z (N,) and share of lung (N,).

    Beyond the lung below 0 or above 1; NaN for a series with fewer than 5 slices that show lung.
    """
    with_lung = z_mm[lung > LUNG_SHOWS]
    if len(with_lung) < 5:
        return np.full(len(z_mm), np.nan)
    return (with_lung.max() - z_mm) / np.ptp(with_lung)


def shrink(hu: np.ndarray, size: int) -> np.ndarray:
    """The whole frame, anti-aliased, to (size, size) integer HU; frames that are not square are filled up with air."""
    rows, columns = hu.shape
    if rows != columns:
        side = max(rows, columns)
        square = np.full((side, side), -1000, np.float32)
        square[(side - rows) // 2 :, (side - columns) // 2 :][:rows, :columns] = hu
        hu = square
    x = F.interpolate(torch.from_numpy(hu)[None, None], (size, size), mode="bilinear", antialias=True)
    return x[0, 0].round().clamp(-1024, 32767).to(torch.int16).numpy()


def build_dataset(
    source: Path, folder: Path, settings: DataSettings, report: Callable[[int, int], None] = lambda done, total: None
) -> dict:
    """Read all DICOM below `source` and write the data set into `folder`; returns what dataset.json says.

    A data set that is there with the same settings and source is left as it is. Raises NoSlices when nothing can be used.
    """
    described = folder / "dataset.json"
    wanted = json.loads(json.dumps(asdict(settings))) | {"source": str(source)}
    if described.exists():
        there = json.loads(described.read_text())
        check_settings(there["settings"], wanted, folder)
        return there
    if not source.is_dir():
        raise NoSlices(f"data_dir {source} is not a folder: give the folder that holds your DICOM files")
    series, rejected = scan(source)
    total = sum(map(len, series.values()))
    synthetic = (source / "factors.csv").exists()
    truth = _read_truth(source / "factors.csv") if synthetic else {}
    folder.mkdir(parents=True, exist_ok=True)
    public = set(read_manifest()["patient"])  # a collection whose identifiers are no secret, and whose split is written down
    table, seen = [], {}
    with open(folder / "slices.raw", "wb") as raw:
        for uid, headers in series.items():
            usable = []
            for header in headers:
                try:
                    hu = read_hu(header)
                    digest = hashlib.blake2b(hu.tobytes(), digest_size=16).digest()
                    if seen.setdefault(digest, header.path) != header.path:
                        raise Unusable("same pixels")
                    small = shrink(hu, settings.size)
                    lung = lung_fraction(small.astype(np.float32))
                    if lung < settings.min_lung:
                        raise Unusable("no lung")
                    usable.append((header, hu.shape, small, lung))
                except Unusable as reason:
                    rejected.append((header.path, str(reason)))
                report(len(seen), total)
            fractions = z_fractions(np.array([header.z_mm for header, *_ in usable]), np.array([lung for *_, lung in usable]))
            for (header, shape, small, lung), fraction in zip(usable, fractions, strict=True):
                raw.write(np.clip(small, *settings.window).astype("<i2").tobytes())
                known = synthetic or header.patient in public
                patient = header.patient if known else pseudonym(header.patient, settings.salt, "patient-")
                table.append(
                    {
                        "row": len(table),
                        "patient": patient,
                        "series": pseudonym(uid, settings.salt, "series-"),
                        "split": split_of(patient),
                        "z_mm": round(header.z_mm, 3),
                        "z_fraction": round(float(fraction), 5),
                        "pixel_mm": round(header.spacing[1] * max(shape) / settings.size, 5),
                        "lung_fraction": round(lung, 4),
                        **truth.get(header.instance, {}),
                    }
                )
    reasons = Counter(reason for _, reason in rejected)
    with open(folder / "rejected.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "reason", "meaning"])
        writer.writerows([path.relative_to(source), r, REASONS[r]] for path, r in sorted(rejected) if path.name not in OWN)
    for name in OWN:
        reasons["not DICOM"] -= sum(path.name == name and path.parent == source for path, _ in rejected)
    reasons = Counter({r: n for r, n in reasons.most_common() if n > 0})
    if not table:
        (folder / "slices.raw").unlink()
        why = ", ".join(f"{n} {reason}" for reason, n in reasons.items()) or "it holds no files"
        raise NoSlices(f"no usable slice in {source}: {why}; see REASONS in lpdirs/data/dicom.py, or lower min_lung")
    fingerprint = _finish_array(folder, (len(table), settings.size, settings.size))
    frame = pd.DataFrame(table)
    frame.to_csv(folder / "slices.csv", index=False)
    description = {
        "settings": wanted,
        "window": list(settings.window),
        "size": settings.size,
        "pixel_mm": float(frame["pixel_mm"].median()),
        "synthetic": synthetic,
        "slices": len(frame),
        "patients": int(frame["patient"].nunique()),
        "series": int(frame["series"].nunique()),
        "splits": {s: int((frame["split"] == s).sum()) for s in SPLITS},
        "rejected": dict(reasons),
        "fingerprint": fingerprint,
    }
    write_atomic(described, lambda partial: partial.write_text(json.dumps(description, indent=1)))
    return description


OWN = ("factors.csv", "cohort.json")  # files that write_cohort puts beside its DICOM


def _read_truth(path: Path) -> dict[str, dict[str, float]]:
    frame = pd.read_csv(path, dtype={"instance": str}).set_index("instance")
    return frame.add_prefix("true_").to_dict("index")


def _finish_array(folder: Path, shape: tuple[int, int, int]) -> str:
    """Turn slices.raw into slices.npy without holding it in memory; returns its fingerprint."""
    digest = hashlib.blake2b(digest_size=8)

    def write(partial: Path) -> None:
        with open(partial, "wb") as out, open(folder / "slices.raw", "rb") as raw:
            header = {"descr": "<i2", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(out, header)
            shutil.copyfileobj(raw, out)
        with open(partial, "rb") as written:
            while block := written.read(1 << 20):
                digest.update(block)

    write_atomic(folder / "slices.npy", write)
    (folder / "slices.raw").unlink()
    return digest.hexdigest()
