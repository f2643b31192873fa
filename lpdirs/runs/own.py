"""What users bring into a run: generators and measures, each made by a function in a file or module of theirs."""

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from torch import nn

from lpdirs.base.errors import MissingInput, UserError
from lpdirs.base.files import check_name, read_json, write_atomic
from lpdirs.base.places import workspace
from lpdirs.data.private import hide, where
from lpdirs.measures.measures import Measures
from lpdirs.models.generators import GeneratorInfo, info_of, latent_dim_of


def is_factory(name: str) -> bool:
    """Whether a name says where a function is: "my_gan.py:make", or "package.module:make"."""
    return ":" in name


def hidden(factory: str) -> str:
    """The same, with the file's folder as a pseudonym (`data.private.hide`), as it stands in what a run writes down."""
    place, _, function = factory.rpartition(":")
    if not place.endswith(".py") or place.startswith("folder-"):
        return factory
    path = next((p for p in (Path(place), workspace() / place) if p.is_file()), None)
    if path is None:
        raise MissingInput(f"there is no file {place}: give FILE.py:FUNCTION, or package.module:FUNCTION, which makes it")
    return f"{hide(path.resolve().parent)}/{path.name}:{function}"


def made_by(factory: str) -> Any:
    """What the function gives when it is called; UserError, in one line, where it is not there or fails."""
    place, _, function = hidden(factory).rpartition(":")
    try:
        module = _from_file(place) if place.endswith(".py") else importlib.import_module(place)
        make = getattr(module, function)
    except (UserError, MissingInput):
        raise
    except Exception as error:  # a user's own file may do anything
        raise UserError(f"{_named(factory)} cannot be imported ({type(error).__name__}: {' '.join(str(error).split())[:200]})") from error
    try:
        return make()
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{_named(factory)} failed ({type(error).__name__}: {' '.join(str(error).split())[:200]})") from error


def _from_file(place: str) -> Any:
    folder, _, name = place.rpartition("/")
    path = where(folder) / name
    if not path.is_file():
        raise MissingInput(f"{name}, which makes this run's own generator or measures, is not on this machine: give it again")
    if str(path.parent) not in sys.path:  # so that it can import what lies beside it
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _named(factory: str) -> str:
    return factory.rpartition("/")[2]


def make_generator(factory: str) -> nn.Module:
    """A user's generator; UserError unless the function gives what lp.as_generator returned, under a name of its own."""
    generator = made_by(factory)
    if not isinstance(generator, nn.Module):
        raise UserError(f"{_named(factory)} must return what lp.as_generator(...) gives, not {type(generator).__name__}")
    latent_dim_of(generator)
    name = check_name(info_of(generator).name, "the name given to as_generator")
    if name in ("gan", "vae"):
        raise UserError(f"{_named(factory)} makes a generator called {name!r}, as a run calls its own: give as_generator another name=")
    return generator


def make_measures(factory: str) -> Measures:
    """A user's measures."""
    measures = made_by(factory)
    if not isinstance(measures, Measures):
        raise UserError(f"{_named(factory)} must return lp.Measures(function, units), not {type(measures).__name__}")
    return measures


def keep(folder: Path, factory: str) -> nn.Module:
    """Make a user's generator and write into the run at `folder` how to make it again; returns it."""
    generator = make_generator(factory)
    info: GeneratorInfo = info_of(generator)
    target = folder / "own" / f"{info.name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"factory": hidden(factory), "fingerprint": info.fingerprint}, indent=1)
    write_atomic(target, lambda partial: partial.write_text(text))
    return generator


def kept(folder: Path) -> dict[str, dict]:
    """The users' generators that the run at `folder` knows: {name: {"factory": ..., "fingerprint": ...}}."""
    return {path.stem: read_json(path) for path in sorted((folder / "own").glob("*.json"))}


def open_own(folder: Path, name: str) -> nn.Module:
    """A user's generator that the run knows, made again; UserError where it is another one by now."""
    known = kept(folder)[name]
    generator = make_generator(str(known.get("factory")))
    if info_of(generator).fingerprint != known.get("fingerprint"):
        raise UserError(
            f"{_named(str(known.get('factory')))} makes another {name} than the one that the run {folder.name} knows (other weights or "
            f"options): run notebook 04 again"
        )
    return generator
