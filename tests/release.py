"""What comes with the project, taken from runs on this machine: `make release` after `make notebooks` and `make run PROFILE=phantom`.

`python -m tests.release demo` takes this run alone, and leaves all else as it is.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from lpdirs.base.errors import MissingInput
from lpdirs.runs.records import files_of, read_log
from tests.notebooks.refresh import ROOT, sources

LARGEST = 20_000_000  # bytes of a file
MOST = 60_000_000  # of all
SLICES = {"train": 240, "test": 80}  # enough for the regression of z
RUNS = {
    "demo": "the sample of real chest CT in data_manifests/chest_ct",
    "phantom": "the synthetic cohort data_manifests/phantom_demo.json",
}
MODELS = ("gan/generator.safetensors", "vae/vae.safetensors")


def release(outputs: Path, runs: tuple[str, ...] = tuple(RUNS)) -> Path:
    """Fill outputs/reference/ from the runs in outputs/: weights, directions, some slices, tables, figures."""
    reference = outputs / "reference"
    for path in (outputs / run / "run.json" for run in runs):
        if not path.exists():
            raise MissingInput(f"{path.relative_to(outputs.parent)} is missing: run {', '.join(runs)} first")
    for run in runs:
        shutil.rmtree(reference / run, ignore_errors=True)
        _copy_run(outputs / run, reference / run)
        for path in sorted((outputs / run / "analysis").glob("best_*.png")):
            name = path.name.split("-")[0] + path.suffix  # best_gan-unit32-lenet.png: best_gan.png
            shutil.copy(path, reference / run / name)
    _say_what_made_them(reference, runs)
    sizes = {path: path.stat().st_size for path in reference.rglob("*") if path.is_file()}
    large = [path.name for path, size in sizes.items() if size > LARGEST]
    if large or sum(sizes.values()) > MOST:
        raise MissingInput(f"too large to come with the project: {', '.join(large) or sum(sizes.values())}")
    return reference


def _say_what_made_them(reference: Path, runs: tuple[str, ...]) -> None:
    """Write sources.json: for each figure of a run the notebook that drew it, and hashes of its cells and of the code that they import."""
    path, notebook = reference / "sources.json", "06_quantitative_analysis"
    made = json.loads(path.read_text()) if path.exists() else {}
    for figure in sorted(p for run in RUNS for p in (reference / run).rglob("*.png")):
        if figure.parent.name in runs:
            made[figure.relative_to(reference).as_posix()] = {"notebook": notebook, **sources(ROOT / "notebooks" / f"{notebook}.ipynb")}
        else:
            made.setdefault(figure.relative_to(reference).as_posix(), {"notebook": notebook, "cells": None, "code": None})
    path.write_text(json.dumps({name: entry for name, entry in made.items() if (reference / name).exists()}, indent=1))


def _copy_run(run: Path, to: Path) -> None:
    for relative in MODELS:
        (to / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run / relative, to / relative)
    for path in sorted((run / "directions").glob("*/directions.safetensors")):
        (to / "directions" / path.parent.name).mkdir(parents=True)
        shutil.copyfile(path, to / "directions" / path.parent.name / path.name)
        shutil.copyfile(path.with_name("responses.csv"), to / "directions" / path.parent.name / "responses.csv")
    for name in ("against_chance.csv", "prediction.csv"):  # what the README says
        (to / "analysis").mkdir(exist_ok=True)
        shutil.copyfile(run / "analysis" / name, to / "analysis" / name)
    measured = sorted((run / "directions" / "chance").glob("*.csv"), key=lambda path: path.stat().st_mtime)
    for path in {path.name.rpartition("-")[0]: path for path in measured}.values():  # of each the last, which is of the present code
        (to / "directions" / "chance").mkdir(exist_ok=True)
        pd.read_csv(path).to_csv(to / "directions" / "chance" / path.name, index=False, float_format="%.5g")
    copy_slices(run / "data", to / "data", SLICES, RUNS[run.name])
    log = read_log(run)
    log["01_data_preparation"]["files"] = files_of(to, "01_data_preparation", "data", {})
    for entry in log.values():
        entry["files"] = {path: value for path, value in entry.get("files", {}).items() if (to / path).exists()}
    (to / "run.json").write_text(json.dumps(log, indent=1))


def copy_slices(data: Path, to: Path, most_of: dict[str, int], source: str = "") -> None:
    """Some slices of each split, evenly spread, with their rows of the table."""
    to.mkdir(parents=True)
    table, hu = pd.read_csv(data / "slices.csv"), np.load(data / "slices.npy", mmap_mode="r")
    parts = [table[table["split"] == split] for split in most_of]
    spread = lambda n, most: np.linspace(0, n - 1, min(most, n)).astype(int)
    kept = pd.concat(part.iloc[spread(len(part), most)] for part, most in zip(parts, most_of.values(), strict=True))
    np.save(to / "slices.npy", hu[kept["row"].to_numpy()])
    kept.assign(row=range(len(kept))).to_csv(to / "slices.csv", index=False)
    about = json.loads((data / "dataset.json").read_text())
    about["settings"]["source"] = source or about["settings"]["source"]
    about["subset"] = f"{len(kept)} of {len(table)} slices, to predict z-position with"
    (to / "dataset.json").write_text(json.dumps(about, indent=1))


if __name__ == "__main__":
    print(f"written: {release(ROOT / 'outputs', tuple(sys.argv[1:]) or tuple(RUNS))}")
