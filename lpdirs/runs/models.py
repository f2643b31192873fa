"""The generators and direction sets of a run, and what its slices are measured and shown with."""

import json
from functools import lru_cache
from pathlib import Path

from torch import nn

from lpdirs.base.errors import MissingInput, UserError
from lpdirs.data.store import open_dataset
from lpdirs.discovery.directions import Directions
from lpdirs.measures.measures import Measures
from lpdirs.measures.moments import measures_for, moments
from lpdirs.measures.thorax import thorax
from lpdirs.measures.zposition import fit_z
from lpdirs.models.files import fingerprint, load_generator, save_model
from lpdirs.models.generators import channels_of, info_of, latent_dim_of, window_of
from lpdirs.models.training import GANSettings, VAESettings
from lpdirs.runs.own import is_factory, keep, kept, make_measures, open_own
from lpdirs.runs.records import read_log
from lpdirs.runs.stage import Stage

GENERATORS = {"gan": "gan/generator.safetensors", "vae": "vae/vae.safetensors"}
Models = dict[str, tuple[nn.Module, Directions]]


def open_generator(stage: Stage, name: str) -> nn.Module:
    """A generator of the run: gan, vae, one of the user's own that it knows, or a new one ("file.py:make"), which it then knows."""
    if name in GENERATORS:
        return load_generator(stage.need(GENERATORS[name]), stage.device)
    if is_factory(name):
        return keep(stage.folder, name).to(stage.device)
    if name not in kept(stage.folder):
        known = ", ".join([*GENERATORS, *kept(stage.folder)])
        raise UserError(f"{stage.folder.name} knows no generator {name!r}: there are {known}; give your own as file.py:function")
    return open_own(stage.folder, name).to(stage.device)


def save_trained(stage: Stage, name: str, model: nn.Module, settings: GANSettings | VAESettings, data: dict, steps: int) -> nn.Module:
    """Write the run's GAN or VAE with all that opens it again, and open its generator, frozen. `data` is what dataset.json says."""
    kind = {"size": settings.size, "latent_dim": settings.latent_dim, "width": settings.width}
    window = list(data["window"]) if data["unit"] == "HU" else None
    about = {"model": name, "window": window, "pixel_mm": data["pixel_mm"], "data": data["fingerprint"], "steps": steps}
    save_model(model, stage.folder / GENERATORS[name], {"gan": "dcgan"}.get(name, name), about, **kind)
    return load_generator(stage.folder / GENERATORS[name])


def open_generators(stage: Stage) -> dict[str, nn.Module]:
    """The generators of the settings, under their names."""
    opened: dict[str, nn.Module] = {}
    for name in stage.settings.choice.generators:
        generator = open_generator(stage, name)
        own = name if name in GENERATORS else info_of(generator).name
        if own in opened:
            raise UserError(f"two generators of the run are called {own!r}: give each its own name= in as_generator")
        opened[own] = generator
    return opened


def weights_of(folder: Path, name: str) -> str:
    """The fingerprint of the weights of a generator of the run at `folder`."""
    return fingerprint(folder / GENERATORS[name]) if name in GENERATORS else str(kept(folder)[name].get("fingerprint"))


def generator_of(path: Path, directions: Directions) -> str:
    """The name of the generator that the directions in the file at `path` belong to: as they say, or as their folder is called.

    UserError where neither is one that the run has.
    """
    known = [*GENERATORS, *kept(path.parent.parent.parent)]
    for name in (directions.info.generator, path.parent.name.partition("-")[0]):
        if name in known:
            return name
    raise UserError(
        f"directions/{path.parent.name} belongs to a generator {directions.info.generator!r}, which this run has not: "
        f"call its folder gan-... or vae-..., or keep it elsewhere"
    )


def directions_files(folder: Path) -> list[Path]:
    """All files of directions of the run at `folder`."""
    return sorted((folder / "directions").glob("*/directions.safetensors"))


def sets_of(folder: Path) -> list[str]:
    """The direction sets that the run's notebook 04 last wrote, by the names of their folders; all that lie there where it does not say."""
    written = read_log(folder).get("04_discover_directions", {}).get("results", {}).get("sets")
    there = [path.parent.name for path in directions_files(folder)]
    return [name for name in there if name in written] if written else there


def open_models(stage: Stage, names: tuple[str, ...] | list[str] | None = None) -> Models:
    """All direction sets of the run for the generators in `names` (default: all it has): {folder name: (generator, directions)}.

    Sets of a generator that the run has not are left out, with a line. MissingInput when there is none, UserError when a generator was
    trained again since its directions were found.
    """
    models: Models = {}
    generators: dict[str, nn.Module] = {}
    factories = {entry.get("factory"): name for name, entry in kept(stage.folder).items()}
    wanted = None if names is None else {factories.get(name, name) for name in names}
    for path in sorted(directions_files(stage.folder), key=_rank):
        directions = Directions.load(path)
        try:
            name = generator_of(path, directions)
        except UserError as error:
            print(f"left out: {error}")
            continue
        if wanted is not None and name not in wanted:
            continue
        if name not in generators:
            generators[name] = open_generator(stage, name)
        check_belongs(path, directions, generators[name])
        models[path.parent.name] = (generators[name], directions)
    if not models:
        raise MissingInput(
            f"{stage.folder.name} has no directions for {', '.join(names or ['any generator'])}: "
            f"run notebooks/04_discover_directions.ipynb with run = {stage.folder.name!r} first"
        )
    return models


def _rank(path: Path) -> tuple:
    """Sets that do one thing first, then the paper's, then the others; of each kind in the order of their names."""
    method = path.parent.name.partition("-")[2]
    return not method.startswith("motion"), not method.endswith(("lenet", "resnet18", "resnet18-224")), path.parent.name


def check_belongs(path: Path, directions: Directions, generator: nn.Module) -> None:
    """UserError unless the directions in the file at `path` were found on this very generator, as far as they say."""
    info, of_generator = directions.info, info_of(generator)
    if directions.latent_dim != latent_dim_of(generator) or info.generator_fingerprint not in ("", of_generator.fingerprint):
        raise UserError(
            f"directions/{path.parent.name} belongs to another {of_generator.name} than the run has now: "
            f"delete that folder and run notebooks/04_discover_directions.ipynb again"
        )


def data_of(stage: Stage) -> dict | None:
    """What dataset.json says of the run's slices; None for a run of the user's own generators alone, which has none."""
    if not (stage.folder / "data").exists() and kept(stage.folder):
        return None
    return json.loads(stage.need("data/dataset.json").read_text(encoding="utf-8"))


def measures_of(stage: Stage, generator: nn.Module) -> Measures:
    """What a generator's images are measured with: as the settings say, else its own measures, else by its data.

    Those of chest slices in HU are the thorax's, with z where the data set lets it be learned; those of any other images `moments`.
    """
    chosen = stage.settings.choice.measures
    if chosen is not None and is_factory(chosen):
        return make_measures(chosen)
    data, window = data_of(stage), window_of(generator)
    if chosen == "moments":
        return moments(channels_of(generator))
    if chosen is None and (data is None or window is None):
        return measures_for(generator)
    if chosen not in (None, "thorax"):
        raise UserError(f"measures must be thorax, moments or file.py:function, not {chosen!r}")
    if data is None or window is None:
        raise UserError(f"{info_of(generator).name} says nothing of HU: give it measures=lp.thorax(window, pixel_mm) in as_generator")
    return _of_chest(stage.folder, data["fingerprint"], tuple(data["window"]), data["pixel_mm"], stage.seed)


@lru_cache(maxsize=4)
def _of_chest(folder: Path, _: str, window: tuple[float, float], pixel_mm: float, seed: int) -> Measures:
    train, test = (open_dataset(folder / "data", split) for split in ("train", "test"))
    return thorax(window, pixel_mm, fit_z(train, test, seed=seed))
