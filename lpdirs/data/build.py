"""From a folder of DICOM to a data set on disk: slices.npy, slices.csv, rejected.csv, dataset.json."""

import csv
import hashlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from lpdirs.base.code import fingerprint_of_code
from lpdirs.base.compute import cluster, cores, each
from lpdirs.base.errors import UserError
from lpdirs.base.files import check_settings, read_json, write_atomic
from lpdirs.base.progress import Progress
from lpdirs.data.dicom import REASONS, Header, arrange, find_files, read_headers
from lpdirs.data.lidc import read_manifest
from lpdirs.data.series import DataSettings, write_part
from lpdirs.data.store import Slices, open_dataset

SPLITS = {"train": 0.8, "validation": 0.1, "test": 0.1}
OWN = ("factors.csv", "patients.csv", "cohort.json")  # files that write_cohort puts beside its DICOM
STAMP = ".source"  # beside the data set: names, sizes and times of the files that it was made of
MANY = 5000  # files from which a cluster of processes is worth its start


class NoSlices(UserError):
    """A folder of which no file ended up in the data set."""


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


def build_dataset(
    source: Path,
    folder: Path,
    settings: DataSettings,
    report: Callable[[int, int], None] = lambda done, total: None,
    workers: int | None = None,
    scheduler: str | None = None,
) -> dict:
    """Read all DICOM below `source` and write the data set into `folder`; returns what dataset.json says.

    A data set that is there, with the same settings, code and files, is left as it is; files that were added, changed or taken
    away since have it built again. A build that was killed goes on with the series that are missing. `workers` processes read
    side by side (None: one a core where there are more than 5,000 files), or those of the Dask cluster at `scheduler`, which
    must see both folders; the result does not depend on them. Raises NoSlices when nothing can be used.
    """
    described, parts = folder / "dataset.json", folder / "parts"
    wanted: dict[str, Any] = {
        "size": settings.size,
        "window": list(settings.window),
        "min_lung": settings.min_lung,
        "fov_mm": settings.fov_mm,
    }
    wanted |= {"source": str(source), "code": fingerprint_of_code("import lpdirs.data.build")}
    wanted["salt"] = hashlib.blake2b(settings.salt.encode(), digest_size=4).hexdigest()  # whoever has it could try identifiers
    described_before: dict[str, Any] = read_json(described) if described.exists() else {}
    current = (
        bool(described_before) and described_before["settings"].get("code") == wanted["code"]
    )  # other code may read the same files otherwise
    if described_before:
        check_settings(described_before["settings"] | {"code": wanted["code"]}, wanted, folder)
    if not source.is_dir():
        if described_before:
            return described_before
        raise NoSlices(f"data_dir {source} is not a folder: give the folder that holds your DICOM files")
    inside = source in folder.parents  # then what is written there is no input
    own = lambda path: (path.name in OWN and path.parent == source) or (inside and folder in path.parents)
    files = [path for path in find_files(source) if not own(path)]
    inventory, stamp = _inventory(source, files), _inventory(source, files, times=True)
    stamped = folder / STAMP
    if current and described_before["inventory"] == inventory and stamped.exists() and stamped.read_text() == stamp:
        report(described_before["slices"], described_before["slices"])
        return described_before
    parts.mkdir(parents=True, exist_ok=True)
    with cluster(workers or (cores() if len(files) > MANY else 1), scheduler) as client:
        headers: list[Header] = []
        rejected: list[tuple[Path, str]] = []
        for read, refused in each(client, read_headers, ((files[i : i + 500],) for i in range(0, len(files), 500))):
            headers += read
            rejected += refused
        series, repeated = arrange(headers)
        rejected += repeated
        names = {uid: _inventory(source, [h.path for h in members], json.dumps(wanted), True) for uid, members in series.items()}
        total = sum(map(len, series.values()))
        missing = [uid for uid in series if not (parts / f"{names[uid]}.json").exists()]
        done = total - sum(len(series[uid]) for uid in missing)
        for _, count in each(client, write_part, ((series[uid], settings, parts, names[uid]) for uid in missing)):
            done += count
            report(done, total)
    table, kept, doubled = _table(source, series, {uid: parts / f"{names[uid]}.json" for uid in series}, settings)
    rejected += doubled
    reasons = Counter(reason for _, reason in rejected)
    if not table:
        if not described_before:
            _write_rejected(folder / "rejected.csv", source, rejected)
        shutil.rmtree(parts)
        why = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common()) or "it holds no files"
        way_out = ", or lower min_lung" if "no lung" in reasons else ""
        raise NoSlices(f"no usable slice in {source}: {why}; see REASONS in lpdirs/data/dicom.py{way_out}")
    _write_rejected(folder / "rejected.csv", source, rejected)
    frame = pd.DataFrame(table)
    described.unlink(missing_ok=True)  # not before: what cannot be read today leaves the data set of yesterday
    write_atomic(folder / "slices.csv", lambda partial: frame.to_csv(partial, index=False))
    pixels = _join(folder / "slices.npy", [(parts / f"{names[uid]}.npy", kept[uid]) for uid in series], settings.size)
    description = {
        "settings": wanted,
        "window": list(settings.window),
        "size": settings.size,
        "pixel_mm": float(frame["pixel_mm"].median()),
        "synthetic": (source / "factors.csv").exists(),
        "slices": len(frame),
        "patients": int(frame["patient"].nunique()),
        "series": int(frame["series"].nunique()),
        "splits": {s: int((frame["split"] == s).sum()) for s in SPLITS},
        "rejected": dict(reasons.most_common()),
        "inventory": inventory,
        "fingerprint": hashlib.blake2b((pixels + ",".join(frame["split"])).encode(), digest_size=8).hexdigest(),  # of what is trained on
    }
    write_atomic(stamped, lambda partial: partial.write_text(stamp))
    write_atomic(described, lambda partial: partial.write_text(json.dumps(description, indent=1)))
    shutil.rmtree(parts)
    return description


def _write_rejected(path: Path, source: Path, rejected: list[tuple[Path, str]]) -> None:
    with open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "reason", "meaning"])
        writer.writerows([file.relative_to(source), reason, REASONS[reason]] for file, reason in sorted(rejected))


def read_slices(
    source: str | Path, size: Literal[32, 64, 128] = 128, window: tuple[float, float] = (-1000.0, 1000.0), folder: str | Path | None = None
) -> Slices:
    """All usable CT slices of the DICOM files below `source`, at `size` px; values beyond `window` (HU) are clipped to it.

    The data set is written to `folder` (slices.npy, slices.csv, rejected.csv with a reason for each file that is not used) where one
    is given. UserError where nothing can be used.
    """
    settings = DataSettings(size=size, window_low=window[0], window_high=window[1])
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(folder or temporary)
        target.mkdir(parents=True, exist_ok=True)
        build_dataset(Path(source), target, settings, Progress("reading slices"))
        slices = open_dataset(target)
        return slices if folder else replace(slices, hu=np.array(slices.hu))


def _inventory(source: Path, files: list[Path], extra: str = "", times: bool = False) -> str:
    """A fingerprint of names and sizes of files and, with `times`, of when they were last changed."""
    digest = hashlib.blake2b(extra.encode(), digest_size=12)
    for path in files:
        stat = path.lstat()
        changed = f"\0{stat.st_mtime_ns} {stat.st_ctime_ns}" if times else ""
        digest.update(f"{path.relative_to(source)}\0{stat.st_size}{changed}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _table(
    source: Path, series: dict[str, list[Header]], parts: dict[str, Path], settings: DataSettings
) -> tuple[list[dict], dict[str, list[int]], list[tuple[Path, str]]]:
    """Rows of slices.csv; for each series which slices of its part are kept; and what was rejected, in the parts or as a double."""
    synthetic = (source / "factors.csv").exists()
    truth = _read_truth(source / "factors.csv") if synthetic else {}
    public = set(read_manifest()["patient"])  # a collection whose identifiers are no secret, and whose split is written down
    table: list[dict] = []
    kept: dict[str, list[int]] = {}
    rejected: list[tuple[Path, str]] = []
    seen: set[str] = set()
    for uid, headers in series.items():
        part = json.loads(parts[uid].read_text())
        rejected += [(Path(path), reason) for path, reason in part["rejected"]]
        identifier, kept[uid] = headers[0].patient, []
        patient = identifier if synthetic or identifier in public else pseudonym(identifier, settings.salt, "patient-")
        for index, row in enumerate(part["rows"]):
            if row["digest"] in seen:
                rejected.append((Path(row["path"]), "same pixels"))
                continue
            seen.add(row["digest"])
            kept[uid].append(index)
            table.append(
                {
                    "row": len(table),
                    "patient": patient,
                    "series": pseudonym(uid, settings.salt, "series-"),
                    "split": split_of(patient),
                    "z_mm": round(row["z_mm"], 3),
                    "z_fraction": None if row["fraction"] is None else round(row["fraction"], 5),
                    "pixel_mm": round(row["pixel_mm"], 5),
                    "lung_fraction": round(row["lung"], 4),
                    **truth.get(row["instance"], {}),
                }
            )
    return table, kept, rejected


def _read_truth(path: Path) -> dict[str, dict[str, float]]:
    frame = pd.read_csv(path, dtype={"instance": str}).set_index("instance")
    return frame.add_prefix("true_").to_dict("index")


def _join(path: Path, parts: list[tuple[Path, list[int]]], size: int) -> str:
    """Write the kept slices of all parts as one array, a part in memory at a time; returns the file's fingerprint."""
    digest = hashlib.blake2b(digest_size=8)

    def write(partial: Path) -> None:
        with open(partial, "wb") as out:
            header = {"descr": "<i2", "fortran_order": False, "shape": (sum(len(rows) for _, rows in parts), size, size)}
            np.lib.format.write_array_header_1_0(out, header)
            for part, rows in parts:
                out.write(np.load(part)[rows].tobytes())
        with open(partial, "rb") as written:
            while block := written.read(1 << 20):
                digest.update(block)

    write_atomic(path, write)
    return digest.hexdigest()
