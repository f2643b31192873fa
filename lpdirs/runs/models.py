"""The generators and direction sets of a run, and what its slices are measured and shown with."""

import json
from pathlib import Path

from torch import nn

from lpdirs.base.errors import MissingInput, UserError
from lpdirs.data.store import open_dataset
from lpdirs.discovery.directions import Directions
from lpdirs.measures.measures import Measures
from lpdirs.measures.thorax import thorax
from lpdirs.measures.zposition import fit_z
from lpdirs.models.files import load_generator
from lpdirs.models.generators import info_of, latent_dim_of
from lpdirs.runs.records import read_log
from lpdirs.runs.stage import Stage

GENERATORS = {"gan": "gan/generator.safetensors", "vae": "vae/vae.safetensors"}
Models = dict[str, tuple[nn.Module, Directions]]


def generator_file(name: str) -> str:
    """Where a run keeps the generator called `name` (gan or vae), relative to the run's folder."""
    if name not in GENERATORS:
        raise UserError(f"generators must be some of {', '.join(GENERATORS)}, not {name!r}")
    return GENERATORS[name]


def generator_of(path: Path, directions: Directions) -> str:
    """The name of the generator that the directions in the file at `path` belong to: as they say, or as their folder is called.

    UserError where neither is one that a run has.
    """
    for name in (directions.info.generator, path.parent.name.partition("-")[0]):
        if name in GENERATORS:
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


def open_models(stage: Stage, names: tuple[str, ...] | list[str] = tuple(GENERATORS)) -> Models:
    """All direction sets of the run for the generators in `names`: {folder name: (generator, directions)}.

    Sets of a generator that the run has not are left out, with a line. MissingInput when there is none, UserError when a generator was
    trained again since its directions were found.
    """
    models: Models = {}
    generators: dict[str, nn.Module] = {}
    for path in directions_files(stage.folder):
        directions = Directions.load(path)
        try:
            name = generator_of(path, directions)
        except UserError as error:
            print(f"left out: {error}")
            continue
        if name not in names:
            continue
        if name not in generators:
            generators[name] = load_generator(stage.need(generator_file(name)), stage.device)
        check_belongs(path, directions, generators[name])
        models[path.parent.name] = (generators[name], directions)
    if not models:
        raise MissingInput(
            f"{stage.folder.name} has no directions for {', '.join(names)}: "
            f"run notebooks/04_discover_directions.ipynb with run = {stage.folder.name!r} first"
        )
    return models


def check_belongs(path: Path, directions: Directions, generator: nn.Module) -> None:
    """UserError unless the directions in the file at `path` were found on this very generator, as far as they say."""
    info, of_generator = directions.info, info_of(generator)
    if directions.latent_dim != latent_dim_of(generator) or info.generator_fingerprint not in ("", of_generator.fingerprint):
        raise UserError(
            f"directions/{path.parent.name} belongs to another {of_generator.name} than {generator_file(of_generator.name)}: "
            f"delete that folder and run notebooks/04_discover_directions.ipynb again"
        )


def measures_of(stage: Stage) -> Measures:
    """What the run's slices are measured with: the thorax's measures, with z where the data set lets it be learned."""
    data = json.loads(stage.need("data/dataset.json").read_text(encoding="utf-8"))
    train, test = (open_dataset(stage.need("data"), split) for split in ("train", "test"))
    return thorax(tuple(data["window"]), data["pixel_mm"], fit_z(train, test, seed=stage.seed))
