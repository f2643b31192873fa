"""The search that a run's settings ask for, what is found by it, and what random sets reach beside it."""

import json
from functools import lru_cache
from pathlib import Path

import pandas as pd
from torch import Tensor

from lpdirs.base.code import fingerprint_of_code
from lpdirs.base.errors import MissingInput, UserError
from lpdirs.base.files import alone, read_json, write_atomic
from lpdirs.data.store import open_dataset
from lpdirs.discovery.directions import Directions
from lpdirs.discovery.methods import discover
from lpdirs.discovery.objective import Discovery
from lpdirs.models.files import fingerprint
from lpdirs.models.generators import Generator
from lpdirs.models.training import encode
from lpdirs.runs.models import check_belongs, directions_files, open_generator, open_vae, weights_of
from lpdirs.runs.records import digest_of, digest_of_text, sealed
from lpdirs.runs.stage import Stage, open_run
from lpdirs.scores.chance import Chance, against, open_chance, random_codes, random_sets
from lpdirs.scores.naming import Named, Rules, judge
from lpdirs.scores.response import respond
from lpdirs.scores.score import SAMPLES, score
from lpdirs.scores.steering import Steering, fit_steering
from lpdirs.show.scene import Models

KNOWN = {"oracle": 2048, "oracle-alone": 2048, "curved": 8192}  # samples whose factors a method is told
CHANCE = "import lpdirs.scores.chance, lpdirs.measures.thorax"


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
    path = _kept(stage, generator, str(k), [samples, s.response_shifts, _seen(generator), fingerprint_of_code(CHANCE)])
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


def steering_of(stage: Stage, generator: Generator, fit: bool = True) -> Steering | None:
    """What was learned of a generator of the run for steering, kept in analysis/; learned where there is none for these weights, measures,
    samples, seed and code, or with fit=False None."""
    samples = stage.settings.analysis.steering_samples
    known = [generator.info.fingerprint, _seen(generator), samples, stage.seed, fingerprint_of_code("import lpdirs.scores.steering")]
    path = stage.folder / "analysis" / f"steering-{generator.info.name}-{digest_of_text(known)[:12]}.safetensors"
    if is_whole(path):
        return Steering.load(path)
    if not fit:
        return None
    steering = fit_steering(generator, samples=samples, seed=stage.seed)
    path.parent.mkdir(exist_ok=True)
    steering.save(path)
    seal(path)
    return steering


def _seen(generator: Generator) -> str:
    """What is measured on a generator's images, and by which function."""
    return generator.measures.sample(generator, 16)[1].round(6).to_csv()


def _kept(stage: Stage, generator: Generator, what: str, known: list) -> Path:
    name = digest_of_text([generator.info.fingerprint, what, *known])[:12]
    path = stage.folder / "directions" / "chance" / f"{generator.info.name}-{what}-{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def seal(path: Path) -> None:
    """Write a file's digest beside it: many runs of a sweep share a table of chance, so that no run.json answers for it."""
    text = json.dumps({path.name: digest_of(path)})
    write_atomic(path.with_suffix(".json"), text)


def is_whole(path: Path) -> bool:
    """Whether a file that `seal` sealed is as it was written; else it is made again."""
    seal = path.with_suffix(".json")
    return path.is_file() and seal.is_file() and seal.read_text() == json.dumps({path.name: digest_of(path)})


PLACED = ("r_chance", "r_z", "r_p", "selectivity_chance", "selectivity_z", "selectivity_p")  # what `Chance.place` says that is kept


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
        "slices": digest_of(slices) if slices.exists() else None, "code": fingerprint_of_code("import lpdirs.runs.search"),
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
        row |= {f"{factor}_{key}": float(value) for factor, values in among.iterrows() for key, value in values.items() if key in PLACED}
        codes = codes_of(stage, generator, len(directions))
        beside = against("", pd.Series(row), codes, len(codes)).drop(columns=["", "_corrected"])
        row |= {f"{score}{key}": float(value) for score, values in beside.iterrows() for key, value in values.items()}
        row["beyond_chance"] = sum(best.beyond_chance for best in directions.info.best.values())
        content = known | {"rca_cotrained": directions.info.cotrained_accuracy} | row
        write_atomic(target, json.dumps(sealed(content), indent=1))
    return target


def read_scores(path: Path) -> dict:
    """What a scores.json says; UserError where it is not what was written."""
    content = read_json(path)
    if content.pop("digest", None) != sealed(content)["digest"]:
        where = f"{path.parent.parent.parent.name}/directions/{path.parent.name}"
        raise UserError(f"{where}/scores.json is not as it was written: the same sweep makes it again")
    return content


@lru_cache(maxsize=2)
def _subject(run: Path, name: str, of: tuple, trust: bool) -> tuple[Stage, Generator, tuple[Tensor, pd.DataFrame]]:
    """A run, its generator, and random slices of it, measured; anew where files are others (`of`)."""
    stage = open_run(run, trust=trust)
    generator = open_generator(stage, name)
    return stage, generator, generator.measures.sample(generator, SAMPLES, 10_000)  # as `codes_of` has it
