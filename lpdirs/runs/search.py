"""The search that a run's settings ask for, what is found by it, and what random sets reach beside it."""

import json
from pathlib import Path

import pandas as pd
from torch import Tensor

from lpdirs.base.code import fingerprint_of_code
from lpdirs.base.errors import UserError
from lpdirs.base.files import alone, write_atomic
from lpdirs.data.store import open_dataset
from lpdirs.discovery.directions import Directions
from lpdirs.discovery.methods import discover
from lpdirs.discovery.objective import Discovery
from lpdirs.models.generators import Generator
from lpdirs.models.training import encode
from lpdirs.runs.models import open_vae
from lpdirs.runs.records import digest_of, digest_of_text
from lpdirs.runs.stage import Stage
from lpdirs.scores.chance import Chance, open_chance, random_codes, random_sets
from lpdirs.scores.naming import Named, Rules, judge
from lpdirs.scores.response import respond
from lpdirs.scores.score import SAMPLES
from lpdirs.show.scene import Models

KNOWN = {"oracle": 2048, "oracle-alone": 2048, "curved": 8192}  # samples whose factors a method is told
CHANCE = "import lpdirs.scores.chance, lpdirs.measures.thorax, lpdirs.measures.moments"


def search_of(stage: Stage, name: str, generator: Generator) -> Discovery:
    """The search of a generator's directions, which `train` runs; A is frozen where directions are computed."""
    choice, settings = stage.settings.choice, stage.settings.discovery
    learned = choice.method == "reconstructor"
    if not learned:
        settings = settings.but(basis="unit", freeze=True)
    start = None
    if not learned or choice.start != "random":
        first = choice.start if learned else choice.method
        start = discover(generator, first, settings.n_directions, seed=stage.seed, known=known_for(stage, generator, first))
        settings = settings.but(n_directions=len(start))
    return Discovery(generator, settings, start)


def known_for(stage: Stage, generator: Generator, method: str) -> Tensor | tuple | None:
    """What some methods need besides the generator: encoded slices (of the VAE), or factors of its samples."""
    if method == "pca-encoded":
        return encode(open_vae(stage), open_dataset(stage.need("data"), "train").tensor())[0]
    return generator.measures.sample(generator, KNOWN[method], stage.seed) if method in KNOWN else None


def found_by(stage: Stage, search: Discovery, accuracy: float | None = None) -> Directions:
    """What a search found, with how, and the co-trained R's accuracy."""
    choice = stage.settings.choice
    if choice.method == "reconstructor":
        return search.directions(start=choice.start, cotrained_accuracy=accuracy)
    return search.directions(method=choice.method, basis="", reconstructor="", cotrained_accuracy=accuracy)


def file_of(stage: Stage, directions: Directions) -> Path:
    """Where a set of the run lies."""
    return stage.folder / "directions" / directions.id.label / "directions.safetensors"


def name_set(stage: Stage, generator: Generator, directions: Directions) -> Named:
    """Measure along a set of directions of the run, and write it with all that is said of it: names, words, the best for each factor.

    What was measured lies beside it: responses.csv, and chance.csv, each factor's best direction among random sets.
    """
    path, s, measures = file_of(stage, directions), stage.settings.analysis, generator.measures
    responses = respond(generator, directions, measures, s.response_shifts, s.response_samples, stage.seed)
    named = judge(generator, directions, responses, measures, chance_of(stage, generator, len(directions)), Rules(), stage.seed)
    named.directions.save(path)
    write_atomic(path.with_name("responses.csv"), named.table.to_csv(index=False))
    write_atomic(path.with_name("chance.csv"), named.placed.to_csv())
    return named


def beside(stage: Stage, models: Models) -> Models:
    """The same sets and, after them, for each of their generators as many directions by `motion`, named as `name_set` names; a generator
    that motion cannot work on is left out with a line. For the explorer and the page to share: nothing is written."""
    shown, done = dict(models), {pair[1].info.generator for pair in models.values() if pair[1].info.method == "motion"}
    for generator, directions in models.values():
        if directions.info.generator in done:
            continue
        done.add(directions.info.generator)
        k, measures = min(len(directions), directions.latent_dim), generator.measures
        try:
            found = discover(generator, "motion", k, seed=stage.seed)
        except UserError as error:
            print(f"without motion: {error}")
            continue
        chance = chance_of(stage, generator, k)
        responses = respond(generator, found, measures, chance.shifts, chance.samples, chance.seed)
        named = judge(generator, found, responses, measures, chance, Rules(), stage.seed).directions
        shown.setdefault(named.id.label, (generator, named))
    return shown


def chance_of(stage: Stage, generator: Generator, k: int) -> Chance:
    """What random sets of k reach on a generator of the run, measured once a generator and k, and kept in directions/chance/.

    Measured as the run measures, from at most 32 starting images, with the same random directions whatever the seed of the search.
    """
    s, measures = stage.settings.analysis, generator.measures
    samples = min(32, s.response_samples)
    seen = measures.sample(generator, 16)[1].round(6).to_csv()  # what is measured, and by which function
    path = _kept(stage, generator, str(k), [samples, s.response_shifts, seen, fingerprint_of_code(CHANCE)])
    with alone(path.parent):  # searches side by side on one generator wait for the first
        if not is_whole(path):
            random_sets(generator, measures, k, shifts=s.response_shifts, samples=samples).save(path)
            seal(path)
    return open_chance(path, k)


def codes_of(stage: Stage, generator: Generator, k: int) -> pd.DataFrame:
    """What random sets of k reach by MIG and DCI on a generator of the run, kept beside what `chance_of` keeps."""
    path = _kept(stage, generator, f"{k}-codes", [fingerprint_of_code("import lpdirs.scores.chance, lpdirs.measures.thorax")])
    with alone(path.parent):
        if not is_whole(path):
            table = random_codes(generator.measures.sample(generator, SAMPLES, 10_000), k)
            write_atomic(path, table.to_csv(index=False))
            seal(path)
    return pd.read_csv(path)


def _kept(stage: Stage, generator: Generator, what: str, known: list) -> Path:
    name = digest_of_text([generator.info.fingerprint, what, *known])[:12]
    path = stage.folder / "directions" / "chance" / f"{generator.info.name}-{what}-{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def seal(path: Path) -> None:
    """Write a table's digest beside it: many runs of a sweep share it, so that no run.json answers for it."""
    text = json.dumps({path.name: digest_of(path)})
    write_atomic(path.with_suffix(".json"), text)


def is_whole(path: Path) -> bool:
    """Whether a table of chance is as it was written; else it is measured again."""
    seal = path.with_suffix(".json")
    return path.is_file() and seal.is_file() and seal.read_text() == json.dumps({path.name: digest_of(path)})
