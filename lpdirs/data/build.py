"""From a folder of DICOM to a data set on disk: slices.npy, slices.csv, rejected.csv, dataset.json."""

import csv
import hashlib
import io
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lpdirs.base.checked import Side
from lpdirs.base.code import fingerprint_of_code
from lpdirs.base.compute import cluster, cores, each
from lpdirs.base.errors import UserError
from lpdirs.base.files import alone, check_settings, read_json, write_atomic
from lpdirs.base.progress import Progress
from lpdirs.data.dicom import Header
from lpdirs.data.folder import REASONS, TRANSIENT, inventory_of, list_files
from lpdirs.data.lidc import written_splits
from lpdirs.data.private import KNOWN, pseudonym, salt, write_key
from lpdirs.data.reading import notes_on_kinds, one_unit, read_headers, shared_series, whose
from lpdirs.data.series import DataSettings, is_finished, write_part
from lpdirs.data.stacks import arrange, preferences
from lpdirs.data.store import SPLITS, Slices, notes_on, open_dataset, split_patients

OWN = ("factors.csv", "patients.csv", "cohort.json")  # files that write_cohort puts beside its DICOM
STAMP = ".source"  # beside the data set: names, sizes and times of the files that it was made of
MANY = 5000  # files from which a cluster of processes is worth its start


class NoSlices(UserError):
    """A folder of which no file ended up in the data set."""


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
    away since have it built again. A build that was killed goes on with the series that are missing; a second one in the same folder
    waits for the first. `workers` processes read side by side (None: one a core where there are more than 5,000 files), or those of
    the Dask cluster at `scheduler`, which must see both folders; the result does not depend on them. Patients, series and files
    appear under pseudonyms, but for those of synthetic data and of the public collection in data_manifests; what pseudonyms stand for
    is written to the private folder (`lpdirs.data.private`). Raises NoSlices when nothing can be used.
    """
    source, folder = Path(source).resolve(), Path(folder).resolve()
    if folder == source or (folder / "salt").is_file():
        raise UserError("the data set needs a folder of its own, which is neither the data folder nor the private one")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder.name} is a file: choose another folder for the data set")
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        return _build(source, folder, settings, report, workers, scheduler)


def _build(
    source: Path, folder: Path, settings: DataSettings, report: Callable[[int, int], None], workers: int | None, scheduler: str | None
) -> dict:
    described, parts, stamped = folder / "dataset.json", folder / "parts", folder / STAMP
    inside = source in folder.parents  # then what is written there is no input
    own = source == folder / "dicom"  # where a cohort is written
    secret = KNOWN if own else salt()
    wanted = settings.model_dump() | {"code": fingerprint_of_code("import lpdirs.data.build")}
    wanted["source"] = "dicom" if own else pseudonym(str(source), secret, "folder-")
    before: dict[str, Any] = read_json(described) if described.exists() else {}
    if before and not isinstance(before.get("settings"), dict):
        raise UserError(f"{folder.parent.name}/{folder.name}/dataset.json is damaged: delete it to have the data set built again")
    current = bool(before) and before["settings"].get("code") == wanted["code"]  # other code may read the same files otherwise
    if before:
        check_settings(before["settings"] | {"code": wanted["code"]}, wanted, folder)
    if not source.is_dir():
        if before:
            return before
        raise NoSlices(f"the data folder is {'one file' if source.exists() else 'not there'}: give the folder that holds your DICOM files")
    files, refused = list_files(source)
    if inside:
        files = [path for path in files if folder not in path.parents]
        refused = [(path, why) for path, why in refused if folder not in path.parents]
    every = [*files, *(path for path, _ in refused)]
    inventory, stamp = inventory_of(source, every, secret), inventory_of(source, every, secret, times=True)
    if current and before["inventory"] == inventory and stamped.exists() and stamped.read_text() == stamp and _whole(folder, before):
        report(before["slices"], before["slices"])
        return before
    parts.mkdir(exist_ok=True)
    with cluster(workers or (cores() if len(files) > MANY else 1), scheduler) as client:
        rejected, headers = [*refused], list[Header]()
        for read, others in each(client, read_headers, ((files[i : i + 500],) for i in range(0, len(files), 500))):
            headers += read
            rejected += others
        name_of = lambda path: path.relative_to(source).as_posix()
        headers, left_out = one_unit(whose(headers, name_of, settings.patients))
        rejected += left_out
        arranged = arrange(headers, settings.kernel, settings.thickness)
        series = arranged.series
        rejected += arranged.rejected
        extra = json.dumps(wanted)
        names = {uid: inventory_of(source, [h.path for h in members], secret, extra + uid, True) for uid, members in series.items()}
        total = sum(map(len, series.values()))
        missing = [uid for uid in series if not is_finished(parts / f"{names[uid]}.json")]
        done = total - sum(len(series[uid]) for uid in missing)
        for _, count in each(client, write_part, ((series[uid], settings, parts, names[uid]) for uid in missing)):
            done += count
            report(done, total)
        replaced, slices_of = set[str](), lambda uid: len(read_json(parts / f"{names[uid]}.json")["rows"])
        for last, spare in arranged.spare.items():  # a series that cannot be decoded does not cost the others that show the same
            for group, members in spare:
                if is_finished(parts / f"{names[last]}.json", least=max(1, len(series[last]) // 2)):
                    break
                again = {header.listed for header in members}
                rejected = [(path, why) for path, why in rejected if path not in again]
                series[group], names[group] = members, inventory_of(source, [h.path for h in members], secret, extra + group, True)
                write_part(members, settings, parts, names[group])
                worse, last = sorted((last, group), key=slices_of)
                replaced.add(worse)
    synthetic = bool(headers) and all(header.synthetic for header in headers)
    if synthetic:
        rejected = [(path, why) for path, why in rejected if not (path.name in OWN and path.parent == source)]
    public = {} if synthetic else written_splits()  # identifiers that are no secret
    proven = {header.path for header in headers if synthetic or header.patient in public}
    open_names = bool(headers) and len(proven) == len(headers)
    key: dict[str, str] = {}
    own_salt = cache(salt)  # made at the first need: synthetic data has nothing to hide

    def shown(identifier: str, prefix: str, known: bool) -> str:
        if known:
            return identifier
        name = pseudonym(identifier, own_salt(), prefix)
        key[name] = identifier
        return name

    truth = _read_truth(source / "factors.csv") if synthetic else {}
    table, kept, doubled = _table(series, {uid: parts / f"{names[uid]}.json" for uid in series}, truth, replaced)
    rejected += doubled
    for row in table:
        row["patient"] = shown(row["patient"], "patient-", synthetic or row["patient"] in public)
        row["series"] = pseudonym(row["series"], KNOWN, "series-") if open_names else shown(row["series"], "series-", False)
    listed = [(shown(name_of(path), "file-", path in proven), why) for path, why in sorted(rejected)]
    reasons = Counter(why for _, why in rejected)
    if any(name.startswith(("patient-", "file-")) for name in key):
        write_key(pseudonym(str(source), salt(), "folder-"), sorted(key.items()))
    if not table:
        if not before:
            _write_rejected(folder / "rejected.csv", listed)
        shutil.rmtree(parts)
        raise NoSlices(f"no usable slice: {_said(reasons)}" + ("" if before else f"; rejected.csv in {folder.name} says why, file by file"))
    _write_rejected(folder / "rejected.csv", listed)
    frame = pd.DataFrame(table)
    frame.insert(3, "split", frame["patient"].map(split_patients(list(frame["patient"]), public)))
    described.unlink(missing_ok=True)  # not before: what cannot be read today leaves the data set of yesterday
    write_atomic(folder / "slices.csv", frame.to_csv(index=False))
    pixels = _join(folder / "slices.npy", [(parts / f"{names[uid]}.npy", kept[uid]) for uid in series], settings.size)
    studies = {header.study for members in series.values() for header in members}
    more = [*notes_on_kinds(headers, settings.patients), *preferences(arranged.preferred)]
    description = {
        "settings": wanted,
        "window": list(settings.window),
        "unit": "HU" if all(header.in_hu for header in headers) else "",
        "size": settings.size,
        "pixel_mm": float(frame["pixel_mm"].median()) if frame["pixel_mm"].notna().any() else None,
        "z_length_mm": _z_length(frame),
        "synthetic": synthetic,
        "names": "as in the files" if open_names else "pseudonyms",
        "slices": len(frame),
        "patients": int(frame["patient"].nunique()),
        "series": int(frame["series"].nunique()),
        "splits": {s: int((frame["split"] == s).sum()) for s in SPLITS},
        "rejected": dict(reasons.most_common()),
        "notes": [*notes_on(frame, len(studies), shared_series(series), reasons), *more],
        "inventory": inventory,
        "array": pixels,
        "fingerprint": hashlib.blake2b((pixels + ",".join(frame["split"])).encode(), digest_size=8).hexdigest(),  # of what is trained on
    }
    if any(why in TRANSIENT for why in reasons):
        stamped.unlink(missing_ok=True)  # so that the next build tries again
    else:
        write_atomic(stamped, stamp)
    write_atomic(described, json.dumps(description, indent=1))
    shutil.rmtree(parts)
    return description


def _whole(folder: Path, description: dict) -> bool:
    """Whether array and table are those that the description speaks of: what was damaged since is made again, never stamped as right."""
    try:
        with open(folder / "slices.npy", "rb") as file:
            if hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest() != description["array"]:
                return False
        splits = pd.read_csv(folder / "slices.csv", usecols=["split"])["split"]
    except (OSError, ValueError, KeyError):
        return False
    return hashlib.blake2b((description["array"] + ",".join(splits)).encode(), digest_size=8).hexdigest() == description["fingerprint"]


def _z_length(table: pd.DataFrame) -> float | None:
    """mm of the unit of z, median over series: of the phantom's length where the truth is known, else of the lungs' extent."""
    z = "true_z" if "true_z" in table else "z_fraction"
    lengths = [np.ptp(part["z_mm"]) / np.ptp(part[z]) for _, part in table.dropna(subset=[z]).groupby("series") if np.ptp(part[z]) > 0]
    return round(float(np.median(lengths)), 1) if lengths else None


def _said(reasons: Counter) -> str:
    """The reasons for which there is nothing, the most frequent one with its meaning, as a clause."""
    if not reasons:
        return "the data folder holds no files"
    counts = ", ".join(f"{n} {why}" for why, n in reasons.most_common())
    first = reasons.most_common(1)[0][0]
    return f"{counts} ({first}: {REASONS[first]})" + ("; or lower min_lung" if "no lung" in reasons else "")


def _write_rejected(path: Path, rows: list[tuple[str, str]]) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["file", "reason", "meaning"])
    writer.writerows(["'" + name if name[0] in "=+-@\t\r" else name, why, REASONS[why]] for name, why in rows)  # no formula
    write_atomic(path, file.getvalue().encode(errors="backslashreplace"))


def _table(
    series: dict[str, list[Header]], parts: dict[str, Path], truth: dict[str, dict[str, float]], replaced: set[str]
) -> tuple[list[dict], dict[str, list[int]], list[tuple[Path, str]]]:
    """Rows of slices.csv; for each series which slices of its part are kept; and what was rejected, in the parts, as a double, or since
    most of its series could not be decoded and another that shows the same took its place (`replaced`)."""
    table: list[dict] = []
    kept: dict[str, list[int]] = {}
    rejected: list[tuple[Path, str]] = []
    seen: set[str] = set()
    for uid, headers in series.items():
        part = read_json(parts[uid])
        rejected += [(headers[index].listed, reason) for index, reason in part["rejected"]]
        kept[uid] = []
        for index, row in enumerate(part["rows"]):
            header = headers[row["index"]]
            if uid in replaced:
                rejected.append((header.listed, "repeated series"))
                continue
            if row["digest"] in seen:
                rejected.append((header.listed, "same pixels"))
                continue
            seen.add(row["digest"])
            kept[uid].append(index)
            table.append(
                {
                    "row": len(table),
                    "patient": header.patient,
                    "series": uid,
                    "z_mm": round(row["z_mm"], 3),
                    "z_fraction": None if row["fraction"] is None else round(row["fraction"], 5),
                    "pixel_mm": None if row["pixel_mm"] is None else round(row["pixel_mm"], 5),
                    "lung_fraction": None if row["lung"] is None else round(row["lung"], 4),
                    **{mark: row[mark] for mark in ("kernel", "thickness") if row.get(mark)},
                    **truth.get(header.instance, {}),
                }
            )
    return table, kept, rejected


def _read_truth(path: Path) -> dict[str, dict[str, float]]:
    if not path.exists():
        return {}
    frame = pd.read_csv(path, dtype={"instance": str}).set_index("instance")
    return frame.add_prefix("true_").to_dict("index")


def _join(path: Path, parts: list[tuple[Path, list[int]]], size: int) -> str:
    """Write the kept slices of all parts as one array, a part in memory at a time; returns the file's fingerprint."""
    digest = hashlib.blake2b(digest_size=8)

    head = io.BytesIO()
    shape = (sum(len(rows) for _, rows in parts), size, size)
    np.lib.format.write_array_header_1_0(head, {"descr": "<i2", "fortran_order": False, "shape": shape})

    def noted() -> Iterator[bytes]:
        for block in chain([head.getvalue()], (np.load(part)[rows].tobytes() for part, rows in parts)):
            digest.update(block)
            yield block

    write_atomic(path, noted())
    return digest.hexdigest()


def read_slices(
    source: str | Path,
    size: Side = 128,
    window: tuple[float, float] = (-1000.0, 1000.0),
    folder: str | Path | None = None,
    kernel: str = "soft",
    thickness: float | None = None,
) -> Slices:
    """All usable slices of the files below `source` (DICOM, and what data_manifests/README.md lists besides), at `size` px.

    Values beyond `window` (HU) are clipped to it. Of series that show the same one is taken, by `kernel` (soft, sharp, or a kernel's own
    name) and by slice `thickness` in mm. What `Slices` holds: `hu` (N, size, size), `table` (a row a slice) and `tensor(rows)`,
    (n, 1, size, size) in [-1, 1], as models take them. The data set is written to `folder` (slices.npy, slices.csv, rejected.csv with a
    reason for each file that is not used) where one is given. What there is to know of the files is printed. UserError where nothing
    can be used.
    """
    if not isinstance(source, str | Path) or not str(source):
        raise UserError(f"read_slices takes the folder that holds your files, not {source!r}")
    if not isinstance(window, tuple | list) or len(window) != 2:
        raise UserError(f"window must be (lowest, highest) in HU, not {window!r}")
    settings = DataSettings(size=size, window_low=window[0], window_high=window[1], kernel=kernel, thickness=thickness)
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(folder or temporary)
        try:
            about = build_dataset(Path(source), target, settings, Progress("reading slices"))
        except NoSlices as error:
            kept = f"rejected.csv in {target.name}" if folder is None else ""
            raise NoSlices(str(error).replace(kept, "rejected.csv (give folder= to keep it)") if kept else str(error)) from None
        left_out = [f"left out: {', '.join(f'{n} {why}' for why, n in about['rejected'].items())}"] if about["rejected"] else []
        print(*[f"{about['slices']} slices of {about['patients']} patients", *left_out, *about["notes"]], sep="; ")
        slices = open_dataset(target)
        return slices if folder else replace(slices, hu=np.array(slices.hu))
