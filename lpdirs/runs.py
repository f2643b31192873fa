"""Runs: where a notebook's files lie, which settings hold, and what is written down about where numbers come from."""

import ast
import hashlib
import json
import os
import platform
import resource
import subprocess
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import torch
import yaml
from safetensors import safe_open

from lpdirs.cluster import threads
from lpdirs.errors import MissingInput, UserError
from lpdirs.files import alone, write_atomic
from lpdirs.progress import note, note_to

COMMON = ("profile", "run", "outputs", "seed")  # parameters that all notebooks have
NOTEBOOKS = {  # notebook: the folder of a run that it writes
    "01_data_preparation": "data",
    "02_train_gan": "gan",
    "03_train_vae": "vae",
    "04_discover_directions": "directions",
    "05_qualitative_analysis": "analysis",
    "06_quantitative_analysis": "analysis",
    "07_compare_runs": "comparison",  # of a sweep's folder, which holds runs
}
SINGLE = tuple(NOTEBOOKS)[:6]  # what one run consists of
PACKAGES = ("lpdirs", "torch", "torchvision", "numpy", "scipy", "pandas", "pydicom", "scikit-image", "scikit-learn")


def project_root() -> Path:
    """The folder that holds notebooks/ and pyproject.toml: at or above the working folder, else where the package lies."""
    for folder in (Path.cwd(), *Path.cwd().parents, Path(__file__).resolve().parent.parent):
        if (folder / "notebooks" / "profiles").is_dir() and (folder / "pyproject.toml").is_file():
            return folder
    raise MissingInput("no lpdirs checkout found: work inside a clone, where notebooks/profiles lies")


def load_profile(name: str) -> dict:
    """The settings of notebooks/profiles/<name>.yaml; UserError lists the profiles there are if it is none."""
    folder = project_root() / "notebooks" / "profiles"
    names = sorted(path.stem for path in folder.glob("*.yaml") if not path.stem.startswith("grid_"))
    if name not in names:
        raise UserError(f"unknown profile {name!r}: choose one of {', '.join(names)}, or add notebooks/profiles/{name}.yaml")
    values = yaml.safe_load((folder / f"{name}.yaml").read_text())
    return {k: v for k, v in values.items() if k != "profile"}


def resolve(profile: str, given: dict) -> dict:
    """The profile's settings with `given` values in their place; None in `given` leaves the profile's."""
    settings = load_profile(profile)
    unknown = sorted(set(given) - set(settings))
    if unknown:
        raise UserError(f"unknown parameter {', '.join(unknown)}: parameters are {', '.join((*COMMON, *settings))}")
    return settings | {k: v for k, v in given.items() if v is not None}


@dataclass(repr=False)
class Stage:
    """One notebook of one run: its settings, its folder, and the files of earlier notebooks."""

    notebook: str
    profile: str
    folder: Path  # of the run
    seed: int
    settings: SimpleNamespace
    given: dict
    began: float

    @property
    def own(self) -> Path:
        """The folder that this notebook writes."""
        path = self.folder / NOTEBOOKS[self.notebook]
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def device(self) -> str:
        """`device` of the settings, where "auto" is the GPU if there is one."""
        choice = self.settings.device
        return choice if choice != "auto" else "cuda" if torch.cuda.is_available() else "cpu"

    def need(self, relative: str) -> Path:
        """A file that an earlier notebook writes; MissingInput says which if it is not there."""
        path = self.folder / relative
        if not path.exists():
            writer = next(n for n, part in NOTEBOOKS.items() if relative.split("/")[0] == part)
            raise MissingInput(
                f"{self.folder.name}/{relative} is missing: run notebooks/{writer}.ipynb with run = {self.folder.name!r} first"
            )
        return path

    def done(self, **results) -> None:
        """Write the stage into run.json: settings, seconds, memory, results, fingerprints of its files, versions, git revision."""
        entry = {
            "profile": self.profile,
            "seed": self.seed,
            "settings": {k: getattr(self.settings, k) for k in self.given},
            "seconds": round(time.time() - self.began, 1),
            "peak_memory_MiB": peak_memory(),
            "device": self.device,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "results": results,
            "files": fingerprints(self.folder, NOTEBOOKS[self.notebook]),
            "provenance": provenance(),
        }
        with alone(self.folder):  # GAN and VAE may end at the same moment
            log = read_log(self.folder) | {self.notebook: entry}
            write_atomic(self.folder / "run.json", lambda partial: partial.write_text(json.dumps(log, indent=1)))
        note("finished", 1, 1)

    def __repr__(self) -> str:
        return f"{self.notebook}, run {self.folder.name}, profile {self.profile}, seed {self.seed}"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{k}</td><td>{getattr(self.settings, k)}</td><td>{'this notebook' if v is not None else self.profile}</td></tr>"
            for k, v in self.given.items()
        )
        return f"<table><thead><tr><th>setting</th><th>value</th><th>from</th></tr></thead><tbody>{rows}</tbody></table>"


def read_log(folder: Path) -> dict:
    """run.json of a run's folder, or {} where there is none yet."""
    path = folder / "run.json"
    return json.loads(path.read_text()) if path.exists() else {}


def start(notebook: str, names: dict) -> Stage:
    """Begin a notebook: `names` is its locals(), of which the parameters are read. Settings that are None are the profile's."""
    _refuse_unknown(names)
    settings = load_profile(names["profile"])
    given = {k: names[k] for k in settings if k in names}
    run = str(names["run"])
    if not run or run != Path(run).name:
        raise UserError(f"run must be a plain folder name, not {run!r}")
    outputs = Path(names["outputs"])
    folder = (outputs if outputs.is_absolute() else project_root() / outputs) / run
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads())
    note_to(folder / f".{notebook}.json")
    values = SimpleNamespace(**resolve(names["profile"], given))
    return Stage(notebook, names["profile"], folder, int(names["seed"]), values, given, time.time())


def open_run(run: str, outputs: str = "outputs") -> Stage:
    """A run to read from: that of outputs/<run>/ or, where there is none, of outputs/reference/<run>/, which comes with the project.

    MissingInput says which runs there are.
    """
    root = Path(outputs) if Path(outputs).is_absolute() else project_root() / outputs
    folder = next((place for place in (root / run, root / "reference" / run) if (place / "directions").is_dir()), None)
    if folder is None:
        runs = sorted({path.parent.name for place in (root, root / "reference") for path in place.glob("*/directions")})
        raise MissingInput(
            f"there is no run {run!r} with directions in {root.name}: there are {', '.join(runs) or 'none yet'}; "
            f"make it with python -m lpdirs run --run {run}"
        )
    entry = next(reversed(read_log(folder).values()), {"profile": "demo", "seed": 0})
    settings = SimpleNamespace(**load_profile(entry["profile"]))
    return Stage("05_qualitative_analysis", entry["profile"], folder, entry["seed"], settings, {}, time.time())


def _refuse_unknown(names: dict) -> None:
    """papermill passes a parameter that no cell declares with a warning alone; here it is an error."""
    for source in names.get("In", []):
        if source.startswith("# Parameters\n"):
            assigned = {t.id for node in ast.parse(source).body if isinstance(node, ast.Assign) for t in node.targets}
            resolve(names["profile"], dict.fromkeys(assigned - set(COMMON)))


def provenance() -> dict:
    """What computed: package versions, git revision and whether the tree was clean, Python, machine."""

    def git(*words: str) -> str | None:
        try:
            return subprocess.run(["git", *words], capture_output=True, text=True, cwd=project_root(), check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None

    status = git("status", "--porcelain", "--untracked-files=no")
    return {
        "packages": {name: version(name) for name in PACKAGES},
        "git": git("rev-parse", "HEAD"),
        "git_dirty": bool(status) if status is not None else None,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def peak_memory() -> dict[str, int]:
    """The most that this process has held, in MiB: of the machine's memory and, where there is one, of the GPU's."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak = {"host": round(kilobytes / (2**20 if platform.system() == "Darwin" else 2**10))}
    return peak | ({"gpu": round(torch.cuda.max_memory_allocated() / 2**20)} if torch.cuda.is_available() else {})


def fingerprints(folder: Path, part: str) -> dict[str, str]:
    """What the results of a stage stand on, {path in the run: fingerprint}: weights, directions, and the array and table of slices."""
    found = {path: fingerprint(path) for path in sorted((folder / part).rglob("*.safetensors"))}
    for name in ("slices.npy", "slices.csv"):
        if (path := folder / part / name).exists():
            with open(path, "rb") as file:
                found[path] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return {path.relative_to(folder).as_posix(): value for path, value in found.items()}


def fingerprint(weights: Path) -> str:
    """A short hash of the tensors in a safetensors file; the file's own bytes differ each time that it is written."""
    digest = hashlib.sha256()
    with safe_open(weights, "pt") as file:
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name).contiguous()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
