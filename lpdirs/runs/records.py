"""What is written down about a run, in run.json: where numbers come from, and the digests of all files that they stand on.

Whether a file is whole is asked here, and whether a result is stale of `notebooks.key`; nothing else answers either.
"""

import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from lpdirs.base.errors import UserError
from lpdirs.base.files import alone, read_json, write_atomic
from lpdirs.base.places import workspace

PASSING = (".pt", ".lock", ".partial")  # endings of files that come and go: checkpoints, locks
PACKAGES = ("lpdirs", "torch", "torchvision", "numpy", "scipy", "pandas", "pydicom", "scikit-image", "scikit-learn")


def read_log(folder: Path) -> dict:
    """run.json of a run's folder, or {} where there is none yet; UserError where it is damaged."""
    log = read_json(folder / "run.json") if (folder / "run.json").exists() else {}
    for name, entry in log.items():
        if not _is_entry(entry):
            raise UserError(f"{folder.name}/run.json is damaged (its entry {name[:40]!r}): delete it, and run the notebooks again")
    return log


def write_log(folder: Path, log: dict) -> None:
    """Write run.json, each notebook's entry sealed: whoever changes a number in it is found out as one who changes a file."""
    write_atomic(folder / "run.json", json.dumps({name: sealed(entry) for name, entry in log.items()}, indent=1))


def sealed(content: dict) -> dict:
    """What JSON can hold, with a digest of the rest in it."""
    rest = json.loads(json.dumps({name: value for name, value in content.items() if name != "digest"}))
    return rest | {"digest": digest_of_text(rest)}


def _is_entry(entry: object) -> bool:
    """Whether a notebook's entry has the shape that `Stage.done` writes."""
    if not isinstance(entry, dict):
        return False
    files, computed, settings = entry.get("files", {}), entry.get("provenance", {}), entry.get("settings", {})
    of_text = isinstance(files, dict) and all(isinstance(v, str) and len(k) < 250 for k, v in files.items())
    packages = computed.get("packages", {}) if isinstance(computed, dict) else None
    of_text = of_text and isinstance(entry.get("answer", ""), str)
    return of_text and isinstance(packages, dict) and isinstance(entry.get("results", {}), dict) and isinstance(settings, dict)


def read_notebook(path: Path) -> dict:
    """An executed notebook, {} where there is none or it is none: it holds cells, all of them mappings."""
    try:
        content = read_json(path)
    except UserError:
        return {}
    cells, metadata = content.get("cells"), content.get("metadata")
    whole = isinstance(cells, list) and cells and all(isinstance(cell, dict) and "cell_type" in cell and "source" in cell for cell in cells)
    return content if whole and isinstance(metadata, dict) and content.get("nbformat") == 4 else {}


def provenance() -> dict:
    """What computed: package versions, git revision and whether the tree was clean, Python, machine."""

    def git(*words: str) -> str | None:
        try:
            return subprocess.run(["git", *words], capture_output=True, text=True, cwd=workspace(), check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    status = git("status", "--porcelain", "--untracked-files=no")
    return {
        "packages": {name: installed(name) for name in PACKAGES},
        "git": git("rev-parse", "HEAD"),
        "git_dirty": bool(status) if status is not None else None,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def peak_memory() -> dict[str, int | None]:
    """The most that this process has held, in MiB: of the machine's memory (None where the system does not tell) and the GPU's."""
    try:
        import resource

        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        host: int | None = round(kilobytes / (2**20 if platform.system() == "Darwin" else 2**10))
    except ImportError:  # Windows: the peak that psutil knows
        import psutil

        host = round(getattr(psutil.Process().memory_info(), "peak_wset", 0) / 2**20) or None
    gpu = {"gpu": round(torch.cuda.max_memory_allocated() / 2**20)} if torch.cuda.is_available() else {}
    return {"host": host} | gpu


def digest_of(path: Path) -> str:
    """A digest of a file's bytes, as run.json keeps it."""
    with open(path, "rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()[:16]


def files_in(folder: Path, parts: Iterable[str], largest: float = float("inf")) -> dict[str, str]:
    """All files of some folders of a run that stay, {path in the run: digest}; of those above `largest` bytes size and time."""
    found = {}
    for path in sorted(path for part in parts for path in (folder / part).rglob("*")):
        inside = path.relative_to(folder).parts
        passing = path.suffix in PASSING or any(part in ("dicom", "exports") or part.startswith(".") for part in inside)
        if path.is_file() and not passing:
            stat = path.stat()
            found["/".join(inside)] = digest_of(path) if stat.st_size <= largest else f"{stat.st_size} {stat.st_mtime_ns}"
    return found


def files_of(folder: Path, notebook: str, parts: tuple[str, ...], log: dict, began: float = 0.0) -> dict[str, str]:
    """All files of a stage's folders that stay, {path in the run: digest}; tables of chance answer for themselves (`search.is_whole`).

    Where two notebooks write into one folder, files that the other one has claimed are left out, unless they are newer than `began`.
    """
    others = {path for name, entry in log.items() if name != notebook for path in entry.get("files", {})}
    own = lambda name: name not in others or (folder / name).stat().st_mtime >= began
    found = files_in(folder, parts)
    return {name: digest for name, digest in found.items() if own(name) and "/chance/" not in name and not name.endswith("scores.json")}


def changed_files(folder: Path, entry: dict, largest: float = float("inf")) -> list[str]:
    """Files of an entry in run.json that are missing or not as they were written, and run.json itself where the entry is not; those above
    `largest` bytes are only looked for."""
    paths = {name: (folder / name, was) for name, was in entry.get("files", {}).items()}
    whole = lambda path, was: path.is_file() and (path.stat().st_size > largest or digest_of(path) == was)
    broken = ["run.json"] if entry and entry.get("digest") != sealed(entry)["digest"] else []
    return broken + [name for name, (path, was) in paths.items() if not whole(path, was)]


def log_executed(folder: Path, notebook: str) -> None:
    """Take the executed notebook, whose numbers are read too, among the files that its entry answers for."""
    with alone(folder):
        log, place = read_log(folder), f"notebooks/{notebook}.ipynb"
        if notebook in log:
            log[notebook].setdefault("files", {})[place] = digest_of(folder / place)
            write_log(folder, log)


def entry_of(began: float, folder: Path, notebook: str, parts: tuple[str, ...], log: dict) -> dict:
    """The part of a notebook's entry in run.json that is the same for all of them."""
    return {
        "seconds": round(time.time() - began, 1),
        "peak_memory_MiB": peak_memory(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "files": files_of(folder, notebook, parts, log, began),
        "provenance": provenance(),
    }


def digest_of_text(content: object) -> str:
    """A digest of what JSON can hold, the same whatever the order of names."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=list).encode()).hexdigest()[:16]
