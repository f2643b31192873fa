"""The direction sets of a run, each with the generator that it belongs to."""

from torch import nn

from lpdirs.discovery.directions import Directions
from lpdirs.errors import MissingInput, UserError
from lpdirs.generative.generators import load_generator
from lpdirs.runs import Stage, fingerprint

GENERATORS = {"gan": "gan/generator.safetensors", "vae": "vae/vae.safetensors"}


def generator_file(name: str) -> str:
    """Where a run keeps the generator called `name` (gan or vae), relative to the run's folder."""
    if name not in GENERATORS:
        raise UserError(f"generators must be some of {', '.join(GENERATORS)}, not {name!r}")
    return GENERATORS[name]


def open_models(stage: Stage, names: list[str]) -> dict[str, tuple[nn.Module, Directions]]:
    """All direction sets of the run for the generators in `names`: {folder name: (generator, directions)}.

    Raises MissingInput when there is none, and UserError when a generator was trained again since its directions were found.
    """
    models = {}
    for path in sorted((stage.folder / "directions").glob("*/directions.safetensors")):
        directions = Directions.load(path)
        name = directions.metadata["generator"]
        if name not in names:
            continue
        weights = stage.need(generator_file(name))
        if fingerprint(weights) != directions.metadata["generator_fingerprint"]:
            raise UserError(
                f"directions/{path.parent.name} belongs to another {name} than {generator_file(name)}: "
                f"delete that folder and run notebooks/04_discover_directions.ipynb again"
            )
        models[path.parent.name] = (load_generator(weights, stage.device)[0], directions)
    if not models:
        raise MissingInput(
            f"{stage.folder.name} has no directions for {', '.join(names)}: "
            f"run notebooks/04_discover_directions.ipynb with run = {stage.folder.name!r} first"
        )
    return models
