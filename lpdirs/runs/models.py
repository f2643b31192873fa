"""The generators and direction sets of a run, what its slices are measured and shown with; load() and explore()."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import InstanceOf
from torch import nn

from lpdirs.base.checked import Positive, checked
from lpdirs.base.errors import MissingInput, UserError
from lpdirs.base.files import read_json
from lpdirs.base.places import home
from lpdirs.base.progress import Progress
from lpdirs.data.private import where
from lpdirs.data.store import open_dataset
from lpdirs.discovery.curved import fit_path
from lpdirs.discovery.directions import Directions
from lpdirs.measures.measures import Display, Measures, moments
from lpdirs.measures.thorax import fit_z, known_z, thorax
from lpdirs.models.files import fingerprint, load_generator, load_model, read_header, save_model
from lpdirs.models.generators import Generator
from lpdirs.models.networks import VAE
from lpdirs.models.training import GANSettings, VAESettings, encode
from lpdirs.phantom.cohort import Cohort, write_cohort
from lpdirs.runs.own import is_factory, keep, kept, make_measures, open_own
from lpdirs.runs.records import read_log
from lpdirs.runs.settings import SAMPLE, MachineSettings, SourceSettings
from lpdirs.runs.stage import Stage, open_run
from lpdirs.scores.inversion import Inversion, invert, invert_by_encoder
from lpdirs.scores.third_dimension import Walk
from lpdirs.show.scene import Models

GENERATORS = {"gan": "gan/generator.safetensors", "vae": "vae/vae.safetensors"}


class NotTrusted(UserError):
    """Something can be had only by calling a function that a run names, and nobody said that it may be called."""


def open_generator(stage: Stage, name: str) -> Generator:
    """A generator of the run: gan, vae, one of the user's own that it knows, or a new one ("file.py:make"), which it then knows.

    With the measures of the run. NotTrusted for one that a function makes which the run alone names.
    """
    if name in GENERATORS:
        generator = load_generator(stage.need(GENERATORS[name]), stage.device)
    elif is_factory(name):
        generator = keep(stage.folder, name).to(stage.device)
    elif name not in kept(stage.folder):
        known = ", ".join([*GENERATORS, *kept(stage.folder)])
        raise UserError(f"{stage.folder.name} knows no generator {name!r}: there are {known}; give your own as file.py:function")
    else:
        factory = str(kept(stage.folder)[name].get("factory"))
        if not stage.trust:
            raise NotTrusted(f"{stage.folder.name} names {factory.rpartition('/')[2]}, which was not run: trust=True opens it")
        generator = open_own(stage.folder, name).to(stage.device)
    return generator.but(measures=measures_of(stage, generator))


def save_trained(stage: Stage, name: str, model: nn.Module, settings: GANSettings | VAESettings, data: dict, steps: int) -> Generator:
    """Write the run's GAN or VAE with all that opens it again, and open its generator, frozen. `data` is what dataset.json says."""
    kind = {"size": settings.size, "latent_dim": settings.latent_dim, "width": settings.width}
    window = list(data["window"]) if data["unit"] == "HU" else None
    about = {"model": name, "window": window, "pixel_mm": data["pixel_mm"], "data": data["fingerprint"], "steps": steps}
    save_model(model, stage.folder / GENERATORS[name], {"gan": "dcgan"}.get(name, name), about, **kind)
    return load_generator(stage.folder / GENERATORS[name])


def open_vae(stage: Stage) -> VAE:
    """The run's VAE with its encoder."""
    vae, _ = load_model(stage.need(GENERATORS["vae"]), stage.device)
    assert isinstance(vae, VAE)
    return vae


def open_generators(stage: Stage) -> dict[str, Generator]:
    """The generators of the settings, under their names."""
    opened: dict[str, Generator] = {}
    for name in stage.settings.choice.generators:
        generator = open_generator(stage, name)
        own = name if name in GENERATORS else generator.info.name
        if own in opened:
            raise UserError(f"two generators of the run are called {own!r}: give each its own name= in as_generator")
        opened[own] = generator
    return opened


def weights_of(folder: Path, name: str) -> str:
    """The fingerprint of the weights of a generator of the run at `folder`."""
    return fingerprint(folder / GENERATORS[name]) if name in GENERATORS else str(kept(folder)[name].get("fingerprint"))


def directions_files(folder: Path) -> list[Path]:
    """All files of directions of the run at `folder`."""
    return sorted((folder / "directions").glob("*/directions.safetensors"))


def sets_of(folder: Path) -> list[str]:
    """The direction sets that the run's notebook 04 last wrote, by the names of their folders; all that lie there where it does not say."""
    written = read_log(folder).get("04_discover_directions", {}).get("results", {}).get("sets")
    present = [path.parent.name for path in directions_files(folder)]
    return [name for name in present if name in written] if written else present


def open_models(stage: Stage, names: tuple[str, ...] | list[str] | None = None) -> Models:
    """All direction sets of the run for the generators in `names` (default: all it has): {folder name: (generator, directions)}.

    Sets of a generator that the run has not, or that nobody trusts, are left out, with a line. Those that do one thing come first, then
    the paper's. MissingInput when there is none, UserError when a generator was trained again since its directions were found.
    """
    generators: dict[str, Generator] = {}
    known = kept(stage.folder)
    factories = {entry.get("factory"): name for name, entry in known.items()}
    wanted = None if names is None else {factories.get(name, name) for name in names}
    opened = [(path, Directions.load(path)) for path in directions_files(stage.folder)]
    rank = {"motion": 0, "reconstructor": 1}
    models: Models = {}
    for path, directions in sorted(opened, key=lambda one: (rank.get(one[1].info.method, 2), one[0].parent.name)):
        label, name = path.parent.name, directions.info.generator
        if name not in GENERATORS and name not in known:
            print(f"left out: directions/{label} belongs to a generator {name!r}, which this run has not")
        elif wanted is None or name in wanted:
            try:
                generators[name] = generators.get(name) or open_generator(stage, name)
            except NotTrusted as error:
                print(f"left out: {error}")
                continue
            check_belongs(path, directions, generators[name])
            models[label] = (generators[name], directions)
    if not models:
        raise MissingInput(
            f"{stage.folder.name} has no directions for {', '.join(names or ['any generator'])}: "
            f"run notebooks/04_discover_directions.ipynb with run = {stage.folder.name!r} first"
        )
    return models


def check_belongs(path: Path, directions: Directions, generator: Generator) -> None:
    """UserError unless the directions in the file at `path` were found on this very generator, as far as they say."""
    other = directions.info.generator_fingerprint not in ("", generator.info.fingerprint)
    if directions.latent_dim != generator.latent_dim or other:
        raise UserError(
            f"directions/{path.parent.name} belongs to another {generator.info.name} than the run has now: "
            f"delete that folder and run notebooks/04_discover_directions.ipynb again"
        )


def data_of(stage: Stage) -> dict | None:
    """What dataset.json says of the run's slices; None for a run of the user's own generators alone, which has none."""
    if not (stage.folder / "data").exists() and kept(stage.folder):
        return None
    data = read_json(stage.need("data/dataset.json"))
    number = lambda value: isinstance(value, int | float) and not isinstance(value, bool)
    window, pixel = data.get("window"), data.get("pixel_mm")
    whole = isinstance(window, list) and len(window) == 2 and all(map(number, window)) and window[0] < window[1]
    if not (
        whole and (pixel is None or number(pixel)) and isinstance(data.get("fingerprint"), str) and isinstance(data.get("unit", "HU"), str)
    ):
        raise UserError(f"{stage.folder.name}/data/dataset.json is damaged: run notebook 01 again")
    return data


def measures_of(stage: Stage, generator: Generator) -> Measures:
    """What a generator's images are measured with: as the settings say, else its own measures, else by its data.

    Those of chest slices in HU are the thorax's (its shape, as "inner" that by what lies inside, or as "tissue" what it is made of), with z
    where the data set lets it be learned; those of any other images `moments`.
    """
    chosen = stage.settings.choice.measures
    if chosen is not None and is_factory(chosen):
        if stage.trust:
            return make_measures(chosen)
        print(f"{chosen.rpartition('/')[2]}, with which {stage.folder.name} measures, was not run: trust=True opens it")
        chosen = None
    data, window = data_of(stage), generator.info.window
    if chosen == "moments":
        return moments(generator.info.channels)
    if chosen is None and (data is None or window is None):
        return generator.measures
    if data is None or window is None:
        raise UserError(f"{generator.info.name} says nothing of HU: give it measures=lp.thorax(window, pixel_mm) in as_generator")
    group = chosen if chosen in ("tissue", "inner") else "shape"
    return _of_chest(stage.folder, data["fingerprint"], tuple(data["window"]), data["pixel_mm"], stage.seed, group)


@lru_cache(maxsize=4)
def _of_chest(folder: Path, _: str, window: tuple[float, float], pixel_mm: float, seed: int, group: str) -> Measures:
    train, test = (open_dataset(folder / "data", split) for split in ("train", "test"))
    return thorax(window, pixel_mm, fit_z(train, test, seed=seed), group)


def walk_of(stage: Stage, generator: Generator) -> Walk:
    """The walk of the run's GAN or VAE through the levels of the body: its path is fitted to encoded training slices, or to the GAN's own
    samples, of measured level."""
    train = open_dataset(stage.need("data"), "train")
    if generator.info.name == "vae":
        vae = open_vae(stage)
        path = fit_path(encode(vae, train.tensor())[0], known_z(train.table), train.table["patient"].to_numpy())
        return Walk(generator, path, lambda x: invert_by_encoder(vae, generator, x, train.window).z)
    z, factors = generator.measures.sample(generator, 2000, stage.seed + 7)
    steps = stage.settings.analysis.inversion_steps
    return Walk(
        generator, fit_path(z, factors["z_position"].to_numpy()), lambda x: invert(generator, x, train.window, steps, 2, stage.seed).z
    )


def starts_path(stage: Stage, generator: Generator) -> Path:
    """The file of held-out slices that were put into a generator's latent space, from which the explorer starts."""
    return stage.folder / "analysis" / f"starts-{generator.info.name}-{generator.info.fingerprint[:12]}.safetensors"


def source_of(settings: SourceSettings, own: Path) -> Path:
    """The folder of DICOM files; a synthetic cohort is written to own/dicom first."""
    if settings.data_dir is not None:
        return where(settings.data_dir).resolve()
    if settings.cohort == SAMPLE:
        return home() / "data_manifests" / SAMPLE / "dicom"
    write_cohort(Cohort.read(home() / "data_manifests" / f"{settings.cohort}.json"), own / "dicom", Progress("writing patients"))
    return own / "dicom"


def about(data: dict) -> str:
    """What a data set says of itself: whose names stand in it, and what to know before its numbers are believed."""
    names = {
        "pseudonyms": "Patients, series and files appear under pseudonyms; what these stand for is in the private folder (~/.lpdirs), "
        "which is not to be shared. Pictures and the values of pixels are as they are: whoever knows the patient may know the slice.",
        "as in the files": "Names are as in the files: they are synthetic, or those of a public collection.",
    }
    return "\n".join([names[data["names"]], *(f"Note: {note}" for note in data["notes"])])


@checked
def load(path: str | Path, device: str = "cpu", trust: bool = False) -> Any:
    """Open what lies at `path`.

    A file of directions gives Directions, one of weights a generator, and a run's folder {label: (generator, directions)}. Nothing that
    lies in a run, or that it names, is executed; a run of somebody's own generator needs `trust`, which calls the function that makes it.
    UserError, in one line, for anything else.
    """
    device, path = MachineSettings(device=device).chosen, Path(path)
    if path.is_dir():
        return open_models(open_run(path.resolve(), trust=trust))
    if not path.exists():
        raise MissingInput(f"there is no file {path}")
    if path.suffix in (".pt", ".pth", ".tar", ".ckpt"):
        raise UserError(
            f"{path.name} is a checkpoint: of the original code, examples/convert.py opens it; else build its module and wrap it"
        )
    is_directions = read_header(path).get("format", "").startswith("lpdirs.directions")
    return Directions.load(path) if is_directions else load_generator(path, device)


@checked
def explore(
    what: Any = "demo",
    measures: InstanceOf[Measures] | None = None,
    display: InstanceOf[Display] | None = None,
    outputs: str = "outputs",
    furthest: Positive = 6.0,
    trust: bool = False,
    starts: Mapping[str, InstanceOf[Inversion]] | None = None,
) -> Any:
    """Sliders on all direction sets of a run, `explore("demo")`, or on one's own, `explore({"mine": (generator, directions)})`.

    With `measures` the factors are read before and after; a run and a generator bring their own. `furthest` is the sliders' end, in units
    of z. `starts`, a label to what `lp.invert` gave, are slices that exist; a run brings those of its notebook 05. Where outputs/<run>/
    is not there, the run of that name that comes with the project is opened; `trust` as in `load`.
    MissingInput says what there is.
    """
    from lpdirs.show.explorer import Explorer

    if isinstance(what, dict):
        return Explorer(what, measures, display, furthest, starts=starts)
    if not isinstance(what, str | Path):
        raise UserError(f"explore takes the name of a run, or {{'mine': (generator, directions)}}, not {type(what).__name__}")
    from lpdirs.runs.search import steering_of

    stage = open_run(what, outputs, trust)
    models = open_models(stage)
    kept = {label: starts_path(stage, generator) for label, (generator, _) in models.items()}
    known = {label: Inversion.load(path) for label, path in kept.items() if path.exists()}
    explorer = Explorer(models, measures, display, furthest, folder=Path.cwd() / "exports", starts=known | dict(starts or {}))
    for generator, _ in explorer.scene.models.values() if measures is None else ():
        if generator not in explorer.scene.learned and (steering := steering_of(stage, generator, fit=False)):
            explorer.scene.learned[generator] = steering
    return explorer
