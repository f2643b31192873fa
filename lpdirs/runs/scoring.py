"""One line of scores for each set of directions of a run, beside the directions: what notebook 07 compares."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path

import pandas as pd
from torch import Tensor, nn

from lpdirs.base.code import fingerprint_of_code
from lpdirs.base.errors import MissingInput, UserError
from lpdirs.base.files import read_json, write_atomic
from lpdirs.discovery.directions import Directions
from lpdirs.measures.measures import Measures
from lpdirs.models.files import fingerprint
from lpdirs.runs.models import check_belongs, directions_files, generator_of, measures_of, open_generator, weights_of
from lpdirs.runs.search import chance_of, codes_of
from lpdirs.runs.stage import open_run
from lpdirs.scores.chance import against
from lpdirs.scores.naming import image_changes, name_directions
from lpdirs.scores.response import HALVES, respond
from lpdirs.scores.score import SAMPLES, counts, score

CHANCE = ("r_chance", "r_z", "r_p", "selectivity_chance", "selectivity_z", "selectivity_p")  # what `Chance.place` says that is kept


def score_run(folder: Path, steps: int, seed: int) -> list[Path]:
    """Write scores.json beside each directions.safetensors of the run at `folder`; `steps` is the budget of the fresh R.

    Scores that are there for the same directions, generator, budget and code are left as they are. Returns the files.
    """
    paths = directions_files(folder)
    if not paths:
        raise MissingInput(f"{folder.name} has no directions: run notebooks/04_discover_directions.ipynb with run = {folder.name!r} first")
    return [_score(path, steps, seed) for path in paths]


def _score(path: Path, steps: int, seed: int) -> Path:
    directions, target, run = Directions.load(path), path.with_name("scores.json"), path.parent.parent.parent
    name = generator_of(path, directions)
    which = {"directions": directions.info.method, "generator": name, "weights": weights_of(run, name),
             "directions_fingerprint": fingerprint(path), "K": len(directions), "seed": seed, "score_steps": steps,
             "responses": _hash(path.with_name("responses.csv")), "slices": _hash(run / "data" / "slices.csv"),
             "code": fingerprint_of_code("import lpdirs.runs.scoring")}  # fmt: skip
    try:
        before = read_scores(target) if target.exists() else {}
    except UserError:  # torn, or changed by hand: computed again
        before = {}
    if {key: before.get(key) for key in which} != which:
        generator, measures, sample = _subject(run.resolve(), name, (which["weights"], which["slices"]))
        check_belongs(path, directions, generator)
        measured = path.with_name("responses.csv")
        # notebook 04 writes responses after the directions: older ones belong to others
        current = measured.exists() and measured.stat().st_mtime_ns >= path.stat().st_mtime_ns - 10**9
        responses = pd.read_csv(measured) if current else pd.DataFrame()
        if f"r_{HALVES[0]}" not in responses:  # of another set, or of an earlier version
            responses = respond(generator, directions, measures, seed=seed).table(seed)
        band = chance_of(open_run(run), generator, measures, len(directions))
        row = score(generator, directions, measures, responses, steps, seed, sample)
        changes = image_changes(generator, directions, seed=seed)
        judged = band.measure(generator, directions, measures)
        row |= counts(name_directions(responses, directions, changes, measures.units, band.rules(), judged))
        placed = band.place(generator, directions, measures, table=judged)
        row |= {
            f"{factor}_{name}": float(value) for factor, values in placed.iterrows() for name, value in values.items() if name in CHANCE
        }
        row |= against(row, codes_of(open_run(run), generator, measures, len(directions)))
        row["beyond_chance"] = int((placed["selectivity_corrected"] <= 0.05).sum())
        known = {"rca_cotrained": directions.info.cotrained_accuracy}
        content = which | known | row
        text = json.dumps(content | {"digest": _digest(content)}, indent=1)
        write_atomic(target, lambda partial: partial.write_text(text))
    return target


def read_scores(path: Path) -> dict:
    """What a scores.json says; UserError where it is not what was written."""
    content = read_json(path)
    digest = content.pop("digest", None)
    if digest != _digest(content):
        where = f"{path.parent.parent.parent.name}/directions/{path.parent.name}"
        raise UserError(f"{where}/scores.json is not as it was written: the same sweep makes it again")
    return content


def _digest(content: dict) -> str:
    return hashlib.sha256(json.dumps(json.loads(json.dumps(content)), sort_keys=True).encode()).hexdigest()[:16]


def _hash(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else None


@lru_cache(maxsize=2)
def _subject(run: Path, name: str, of: tuple) -> tuple[nn.Module, Measures, tuple[Tensor, pd.DataFrame]]:
    """A run's generator, what its slices are measured with, and random slices of it, measured; anew where files are others (`of`)."""
    stage = open_run(run)
    generator = open_generator(stage, name)
    measures = measures_of(stage, generator)
    return generator, measures, measures.sample(generator, SAMPLES, 10_000)  # as `codes_of` has it
