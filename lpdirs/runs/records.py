"""What is written down about a run, in run.json: where numbers come from, and the fingerprints of the files that they stand on."""

import hashlib
import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from lpdirs.base.files import read_json
from lpdirs.base.places import workspace
from lpdirs.models.files import fingerprint

PACKAGES = ("lpdirs", "torch", "torchvision", "numpy", "scipy", "pandas", "pydicom", "scikit-image", "scikit-learn")


def read_log(folder: Path) -> dict:
    """run.json of a run's folder, or {} where there is none yet; UserError where it is damaged."""
    return read_json(folder / "run.json") if (folder / "run.json").exists() else {}


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
    peak: dict[str, int | None] = {"host": host}
    return peak | ({"gpu": round(torch.cuda.max_memory_allocated() / 2**20)} if torch.cuda.is_available() else {})


def fingerprints(folder: Path, part: str) -> dict[str, str]:
    """What the results of a stage stand on, {path in the run: fingerprint}: weights, directions, and the array and table of slices."""
    prints = {path: fingerprint(path) for path in sorted((folder / part).rglob("*.safetensors"))}
    for name in ("slices.npy", "slices.csv"):
        if (path := folder / part / name).exists():
            with open(path, "rb") as file:
                prints[path] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return {path.relative_to(folder).as_posix(): value for path, value in prints.items()}


def entry_of(began: float, folder: Path, part: str) -> dict:
    """The part of a notebook's entry in run.json that is the same for all of them."""
    return {
        "seconds": round(time.time() - began, 1),
        "peak_memory_MiB": peak_memory(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "files": fingerprints(folder, part),
        "provenance": provenance(),
    }
