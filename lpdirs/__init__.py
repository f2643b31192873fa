"""Latent-path directions: what a generative model of medical images has learned, found without labels and measured.

    import lpdirs as lp

    generator = lp.as_generator(module, 512)           # any torch module that maps z to images
    directions = lp.discover(generator, "jacobian", k=32)
    responses = lp.respond(generator, directions, measures)
    named = lp.name(generator, directions, responses)  # against random directions; measures: lp.thorax(...), or lp.Measures(...)
    lp.score(generator, named, measures)
    lp.strips(generator, named)
    lp.explore({"mine": (generator, named)}, measures)

Everything below is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

WHERE = {  # public name: its module
    "as_generator": "lpdirs.models.wrapping",
    "Generator": "lpdirs.models.generators",
    "Prior": "lpdirs.models.priors",
    "load": "lpdirs.runs.models",
    "read_slices": "lpdirs.data.build",
    "discover": "lpdirs.discovery.methods",
    "method": "lpdirs.discovery.registry",
    "DiscoverySettings": "lpdirs.discovery.objective",
    "Directions": "lpdirs.discovery.directions",
    "Measures": "lpdirs.measures.measures",
    "thorax": "lpdirs.measures.thorax",
    "Display": "lpdirs.measures.measures",
    "respond": "lpdirs.scores.response",
    "random_sets": "lpdirs.scores.chance",
    "Rules": "lpdirs.scores.naming",
    "name": "lpdirs.scores.naming",
    "score": "lpdirs.scores.score",
    "steer": "lpdirs.scores.steering",
    "fit_steering": "lpdirs.scores.steering",
    "invert": "lpdirs.scores.inversion",
    "edit": "lpdirs.scores.inversion",
    "strips": "lpdirs.show.plots",
    "gif": "lpdirs.show.plots",
    "explore": "lpdirs.runs.models",
    "share": "lpdirs.show.share",
}

if TYPE_CHECKING:
    from lpdirs.data.build import read_slices as read_slices
    from lpdirs.discovery.directions import Directions as Directions
    from lpdirs.discovery.methods import discover as discover
    from lpdirs.discovery.objective import DiscoverySettings as DiscoverySettings
    from lpdirs.discovery.registry import method as method
    from lpdirs.measures.measures import Display as Display
    from lpdirs.measures.measures import Measures as Measures
    from lpdirs.measures.thorax import thorax as thorax
    from lpdirs.models.generators import Generator as Generator
    from lpdirs.models.priors import Prior as Prior
    from lpdirs.models.wrapping import as_generator as as_generator
    from lpdirs.runs.models import explore as explore
    from lpdirs.runs.models import load as load
    from lpdirs.scores.chance import random_sets as random_sets
    from lpdirs.scores.inversion import edit as edit
    from lpdirs.scores.inversion import invert as invert
    from lpdirs.scores.naming import Rules as Rules
    from lpdirs.scores.naming import name as name
    from lpdirs.scores.response import respond as respond
    from lpdirs.scores.score import score as score
    from lpdirs.scores.steering import fit_steering as fit_steering
    from lpdirs.scores.steering import steer as steer
    from lpdirs.show.plots import gif as gif
    from lpdirs.show.plots import strips as strips
    from lpdirs.show.share import share as share

__all__ = [*WHERE]


def __getattr__(attribute: str) -> Any:
    if attribute not in WHERE:
        raise AttributeError(f"module 'lpdirs' has no attribute {attribute!r}")
    value = getattr(import_module(WHERE[attribute]), attribute)
    globals()[attribute] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *WHERE])
