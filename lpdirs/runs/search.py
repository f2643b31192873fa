"""The search that a run's settings ask for: the paper's, or directions that are computed, of which R alone is trained."""

import hashlib
import json
from pathlib import Path

import pandas as pd
from torch import Tensor, nn

from lpdirs.base.code import fingerprint_of_code
from lpdirs.base.errors import UserError
from lpdirs.base.files import alone, write_atomic
from lpdirs.data.store import open_dataset
from lpdirs.discovery.directions import Directions
from lpdirs.discovery.methods import discover
from lpdirs.discovery.objective import Discovery
from lpdirs.measures.measures import Measures
from lpdirs.models.files import load_model
from lpdirs.models.generators import info_of
from lpdirs.models.training import encode
from lpdirs.models.vae import VAE
from lpdirs.runs.models import GENERATORS, Models, measures_of
from lpdirs.runs.stage import Stage
from lpdirs.scores.chance import Chance, open_chance, random_codes, random_sets
from lpdirs.scores.chance import name as name_of
from lpdirs.scores.naming import Rules, image_changes, name_directions, with_names
from lpdirs.scores.response import respond
from lpdirs.scores.score import SAMPLES

KNOWN = {"oracle": 2048, "oracle-alone": 2048, "curved": 8192}  # samples whose factors a method is told
CHANCE = "import lpdirs.scores.chance, lpdirs.measures.thorax, lpdirs.measures.moments"


def search_of(stage: Stage, name: str, generator: nn.Module) -> tuple[str, Discovery]:
    """The folder name of the set, such as gan-unit32-lenet, and the search, which `train` runs; A is frozen where it was computed."""
    choice, settings = stage.settings.choice, stage.settings.discovery
    learned = choice.method == "reconstructor"
    if not learned:
        settings = settings.but(basis="unit", freeze=True)
    start = None
    if not learned or choice.start != "random":
        first = choice.start if learned else choice.method
        start = discover(generator, first, settings.n_directions, seed=stage.seed, known=known_for(stage, name, generator, first))
        settings = settings.but(n_directions=len(start))
    label = f"{settings.basis}{settings.n_directions}-{settings.reconstructor}" if learned else f"{choice.method}{settings.n_directions}"
    label += f"-from-{choice.start}" if learned and choice.start != "random" else ""
    return f"{name}-{label}", Discovery(generator, settings, start)


def known_for(stage: Stage, name: str, generator: nn.Module, method: str) -> Tensor | tuple | None:
    """What some methods need besides the generator: encoded slices (of the VAE), or factors of its samples."""
    if method == "pca-encoded":
        vae, _ = load_model(stage.need(GENERATORS["vae"]), stage.device)
        assert isinstance(vae, VAE)
        return encode(vae, open_dataset(stage.need("data"), "train").tensor().to(stage.device))[0].cpu()
    return measures_of(stage, generator).sample(generator, KNOWN[method], stage.seed) if method in KNOWN else None


def save_found(stage: Stage, label: str, search: Discovery, accuracy: float) -> Path:
    """Write what a search found to directions/<label>/, with how it was found and the co-trained R's accuracy; returns the file."""
    choice = stage.settings.choice
    start = choice.start if choice.method == "reconstructor" else None
    directions = search.directions(method=label.partition("-")[2], start=start, cotrained_accuracy=accuracy)
    path = stage.folder / "directions" / label / "directions.safetensors"
    directions.save(path)
    return path


def name_set(stage: Stage, generator: nn.Module, label: str) -> tuple[pd.DataFrame, Rules]:
    """Measure along a set of directions of the run, and name those that earn it by rules that random directions of the same generator do
    not meet. Names go into the set's file, what was measured beside it; returns a row a direction (`name_directions`) and the rules."""
    path, s = stage.folder / "directions" / label / "directions.safetensors", stage.settings.analysis
    directions, measures = Directions.load(path), measures_of(stage, generator)
    responses = respond(generator, directions, measures, s.response_shifts, s.response_samples, stage.seed)
    band = chance_of(stage, generator, measures, len(directions))
    table, changes, rules = responses.table(stage.seed), image_changes(generator, directions, seed=stage.seed), band.rules()
    judged = band.measure(generator, directions, measures)
    named = name_directions(table, directions, changes, measures.units, rules, judged)
    with_names(directions, named, responses).save(path)
    table.to_csv(path.with_name("responses.csv"), index=False)
    return named, rules


def beside(stage: Stage, models: Models) -> Models:
    """The same sets and, after them, for each of their generators as many directions by `motion`, named as `name_set` names; a generator
    that motion cannot work on is left out with a line. For the explorer and the page to share: nothing is written."""
    shown, done = dict(models), set[int]()
    for label, (generator, directions) in models.items():
        if id(generator) in done or "-motion" in label:
            continue
        done.add(id(generator))
        k, measures = min(len(directions), directions.latent_dim), measures_of(stage, generator)
        try:
            found = discover(generator, "motion", k, seed=stage.seed)
        except UserError as error:
            print(f"without motion: {error}")
            continue
        band = chance_of(stage, generator, measures, k)
        responses = respond(generator, found, measures, band.shifts, band.samples, band.seed)
        name = f"{directions.info.generator or label.partition('-')[0]}-motion{k}"
        shown.setdefault(name, (generator, name_of(generator, found, responses, measures, band.rules(), stage.seed)))
    return shown


def chance_of(stage: Stage, generator: nn.Module, measures: Measures, k: int) -> Chance:
    """What random sets of k reach on a generator of the run, measured once a generator and k, and kept in directions/chance/.

    Measured as the run measures, from at most 32 starting images, with the same random directions whatever the seed of the search.
    """
    s = stage.settings.analysis
    samples = min(32, s.response_samples)
    seen = measures.sample(generator, 16)[1].round(6).to_csv()  # what is measured, and by which function
    path = _kept(stage, generator, str(k), [samples, s.response_shifts, seen, fingerprint_of_code(CHANCE)])
    with alone(path.parent):  # searches side by side on one generator wait for the first
        if not path.exists():
            random_sets(generator, measures, k, shifts=s.response_shifts, samples=samples).save(path)
    return open_chance(path, k)


def codes_of(stage: Stage, generator: nn.Module, measures: Measures, k: int) -> pd.DataFrame:
    """What random sets of k reach by MIG, SAP and DCI on a generator of the run, kept beside what `chance_of` keeps."""
    path = _kept(stage, generator, f"{k}-codes", [fingerprint_of_code("import lpdirs.scores.chance, lpdirs.measures.thorax")])
    with alone(path.parent):
        if not path.exists():
            table = random_codes(measures.sample(generator, SAMPLES, 10_000), k)
            write_atomic(path, lambda partial: table.to_csv(partial, index=False))
    return pd.read_csv(path)


def _kept(stage: Stage, generator: nn.Module, what: str, known: list) -> Path:
    about = [info_of(generator).fingerprint, what, *known]
    name = hashlib.sha256(json.dumps(about, default=list).encode()).hexdigest()[:12]
    path = stage.folder / "directions" / "chance" / f"{info_of(generator).name}-{what}-{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
