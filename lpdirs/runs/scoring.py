"""One line of scores for each set of directions of a run, beside the directions: what notebook 07 compares."""

import json
from functools import lru_cache
from pathlib import Path

import pandas as pd
from torch import Tensor

from lpdirs.base.code import fingerprint_of_code
from lpdirs.base.errors import MissingInput, UserError
from lpdirs.base.files import read_json, write_atomic
from lpdirs.discovery.directions import Directions
from lpdirs.models.files import fingerprint
from lpdirs.models.generators import Generator
from lpdirs.runs.models import check_belongs, directions_files, open_generator, weights_of
from lpdirs.runs.records import digest_of, digest_of_text
from lpdirs.runs.search import codes_of
from lpdirs.runs.stage import Stage, open_run
from lpdirs.scores.chance import against
from lpdirs.scores.score import SAMPLES, score

CHANCE = ("r_chance", "r_z", "r_p", "selectivity_chance", "selectivity_z", "selectivity_p")  # what `Chance.place` says that is kept


def score_run(folder: Path, steps: int, seed: int, trust: bool = False) -> list[Path]:
    """Write scores.json beside each directions.safetensors of the run at `folder`; `steps` is the budget of the fresh R.

    Scores that are there for the same directions, generator, budget and code are left as they are. Returns the files.
    """
    paths = directions_files(folder)
    if not paths:
        raise MissingInput(f"{folder.name} has no directions: run notebooks/04_discover_directions.ipynb with run = {folder.name!r} first")
    return [_score(path, steps, seed, trust) for path in paths]


def _score(path: Path, steps: int, seed: int, trust: bool) -> Path:
    directions, target, run = Directions.load(path), path.with_name("scores.json"), path.parent.parent.parent
    measured, placed, slices = path.with_name("responses.csv"), path.with_name("chance.csv"), run / "data" / "slices.csv"
    if not measured.exists() or not placed.exists():
        raise MissingInput(f"{run.name}/directions/{path.parent.name} was not measured: run notebooks/04_discover_directions.ipynb again")
    name, which = directions.info.generator, directions.id
    known = {
        "title": which.search, "method": which.method, "basis": which.basis, "reconstructor": which.reconstructor, "start": which.start,
        "generator": name, "weights": weights_of(run, name), "directions_fingerprint": fingerprint(path), "K": len(directions),
        "seed": seed, "score_steps": steps, "responses": digest_of(measured), "placed": digest_of(placed),
        "slices": digest_of(slices) if slices.exists() else None, "code": fingerprint_of_code("import lpdirs.runs.scoring"),
    }  # fmt: skip
    try:
        before = read_scores(target) if target.exists() else {}
    except UserError:  # torn, or changed by hand: computed again
        before = {}
    if {key: before.get(key) for key in known} != known:
        stage, generator, sample = _subject(run.resolve(), name, (known["weights"], known["slices"]), trust)
        check_belongs(path, directions, generator)
        row = score(generator, directions, responses=pd.read_csv(measured), steps=steps, seed=seed, sample=sample)
        among = pd.read_csv(placed, index_col="factor")
        row |= {f"{factor}_{key}": float(value) for factor, values in among.iterrows() for key, value in values.items() if key in CHANCE}
        codes = codes_of(stage, generator, len(directions))
        beside = against("", pd.Series(row), codes, len(codes)).drop(columns=["", "_corrected"])
        row |= {f"{score}{key}": float(value) for score, values in beside.iterrows() for key, value in values.items()}
        row["beyond_chance"] = sum(best.beyond_chance for best in directions.info.best.values())
        content = known | {"rca_cotrained": directions.info.cotrained_accuracy} | row
        text = json.dumps(content | {"digest": digest_of_text(json.loads(json.dumps(content)))}, indent=1)
        write_atomic(target, text)
    return target


def read_scores(path: Path) -> dict:
    """What a scores.json says; UserError where it is not what was written."""
    content = read_json(path)
    digest = content.pop("digest", None)
    if digest != digest_of_text(content):
        where = f"{path.parent.parent.parent.name}/directions/{path.parent.name}"
        raise UserError(f"{where}/scores.json is not as it was written: the same sweep makes it again")
    return content


@lru_cache(maxsize=2)
def _subject(run: Path, name: str, of: tuple, trust: bool) -> tuple[Stage, Generator, tuple[Tensor, pd.DataFrame]]:
    """A run, its generator, and random slices of it, measured; anew where files are others (`of`)."""
    stage = open_run(run, trust=trust)
    generator = open_generator(stage, name)
    return stage, generator, generator.measures.sample(generator, SAMPLES, 10_000)  # as `codes_of` has it
