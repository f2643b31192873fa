"""One line of scores for each set of directions of a run, beside the directions: what notebook 07 compares."""

import json
from functools import lru_cache
from pathlib import Path

import pandas as pd

from lpdirs.analysis.comparison import Subject, score_set, subject
from lpdirs.analysis.zposition import fit_z
from lpdirs.data.store import open_dataset
from lpdirs.discovery.collection import GENERATORS
from lpdirs.discovery.directions import Directions
from lpdirs.errors import MissingInput
from lpdirs.files import write_atomic
from lpdirs.generative.generators import load_generator


def score_run(folder: Path, steps: int, seed: int) -> list[Path]:
    """Write scores.json beside each directions.safetensors of the run at `folder`; `steps` is the budget of the fresh R.

    Scores that are there for the same directions and budget are left as they are. Returns the files.
    """
    sets = sorted((folder / "directions").glob("*/directions.safetensors"))
    if not sets:
        raise MissingInput(f"{folder.name} has no directions: run notebooks/04_discover_directions.ipynb with run = {folder.name!r} first")
    return [_score(path, steps, seed) for path in sets]


def _score(path: Path, steps: int, seed: int) -> Path:
    directions, target = Directions.load(path), path.with_name("scores.json")
    about = directions.metadata
    which = {"directions": about["method"], "generator": about["generator"], "weights": about["generator_fingerprint"],
             "K": len(directions), "seed": seed, "score_steps": steps}  # fmt: skip
    before = json.loads(target.read_text()) if target.exists() else {}
    if {name: before.get(name) for name in which} != which:
        run = path.parent.parent.parent
        table = pd.read_csv(path.with_name("responses.csv"))
        row = score_set(_subject(run.resolve(), about["generator"], seed), directions, table, steps, seed)
        text = json.dumps(which | about["scores"] | row, indent=1)
        write_atomic(target, lambda partial: partial.write_text(text))
    return target


@lru_cache(maxsize=2)
def _subject(run: Path, name: str, seed: int) -> Subject:
    generator, metadata = load_generator(run / GENERATORS[name])
    train, test = (open_dataset(run / "data", split) for split in ("train", "test"))
    return subject(
        generator, generator.latent_dim, tuple(metadata["window"]), metadata["pixel_mm"], fit_z(train, test, seed=seed), seed=seed
    )
