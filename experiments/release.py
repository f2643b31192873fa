"""What comes with the project, taken from runs on this machine: `make release` after `make notebooks` and `make run PROFILE=phantom`.

`python -m experiments.release demo` takes this run alone, and leaves all else as it is.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from experiments import FACTORS, MODELS
from experiments.chest_figures import save_greys, with_interval
from lpdirs.base.errors import MissingInput
from lpdirs.discovery.directions import Directions
from lpdirs.measures.measures import factor_words
from lpdirs.measures.thorax import UNITS
from lpdirs.models.files import load_generator
from lpdirs.runs.models import GENERATORS
from lpdirs.runs.records import files_of, read_log, write_log
from lpdirs.scores.response import best_directions
from lpdirs.show.plots import film_strips, set_style, shift_heads, strip
from tests.notebooks.refresh import ROOT

LARGEST = 20_000_000  # bytes of a file
MOST = 60_000_000  # of all
SLICES = {"train": 240, "test": 80}  # enough for the regression of z
RUNS = {
    "demo": "the sample of real chest CT in data_manifests/chest_ct",
    "phantom": "the synthetic cohort data_manifests/phantom_demo.json",
}


def release(outputs: Path, runs: tuple[str, ...] = tuple(RUNS)) -> Path:
    """Fill outputs/reference/ from the runs in outputs/: weights, directions, some slices, tables, figures."""
    reference = outputs / "reference"
    for path in (outputs / run / "run.json" for run in runs):
        if not path.exists():
            raise MissingInput(f"{path.relative_to(outputs.parent)} is missing: run {', '.join(runs)} first")
    for run in runs:
        for old in (reference / run).glob("*"):
            shutil.rmtree(old) if old.is_dir() else old.name == "README.md" or old.unlink()
        _copy_run(outputs / run, reference / run)
        draw_best(reference / run)
    sizes = {path: path.stat().st_size for path in reference.rglob("*") if path.is_file()}
    large = [path.name for path, size in sizes.items() if size > LARGEST]
    if large or sum(sizes.values()) > MOST:
        raise MissingInput(f"too large to come with the project: {', '.join(large) or sum(sizes.values())}")
    return reference


def draw_best(run: Path, to: Path | None = None) -> None:
    """best_<model>.png of a run that is here: each factor's best direction of the paper's method, with intervals and its p."""
    set_style()
    shifts, against = np.linspace(-4.5, 4.5, 7), pd.read_csv(run / "analysis" / "against_chance.csv").set_index("factor")
    of, extent = ("real chest CT", "the lungs' extent") if run.name == "demo" else ("the synthetic thorax", "the phantom's length")
    for name, words in MODELS.items():
        (path,) = (run / "directions").glob(f"{name}-*/directions.safetensors")
        generator, directions = load_generator(run / GENERATORS[name]), Directions.load(path)
        best, chance = best_directions(pd.read_csv(path.with_name("responses.csv"))), against[against["set"] == path.parent.name]
        labels, pictures = [], []
        for factor, row in best.loc[[factor for factor in FACTORS if factor in chance.index]].iterrows():
            unit = f"of {extent}" if factor == "z_position" else UNITS[factor]
            p = chance.loc[factor, "selectivity_corrected"]
            labels.append(
                f"{factor_words(factor)}\n{row['slope']:+.2g} {unit} per unit of shift\n|r| {with_interval(row, 'r', '')}\n"
                f"selectivity {with_interval(row, 'selectivity', '')}\n"
                f"against chance: p {p:.2f}, corrected"
            )
            pictures.append(strip(generator, directions, generator.typical(), int(row["direction"]), shifts))
        title = f"{words} of {of}: the best of {len(directions)} directions of the paper's method for each factor"
        save_greys(film_strips(np.stack(pictures), shift_heads(shifts), labels, title), (to or run) / f"best_{name}.png")


def _copy_run(run: Path, to: Path) -> None:
    for relative in GENERATORS.values():
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
    log["01_data_preparation"]["files"] = files_of(to, "01_data_preparation", ("data",), {})
    for entry in log.values():
        entry["files"] = {path: value for path, value in entry.get("files", {}).items() if (to / path).exists()}
    write_log(to, log)


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
