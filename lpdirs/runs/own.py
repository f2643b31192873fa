"""What users bring into a run: generators and measures, each made by a function in a file or module of theirs."""

import ast
import importlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lpdirs.base.errors import MissingInput, UserError, first_line
from lpdirs.base.files import check_name, read_json, write_atomic
from lpdirs.base.places import workspace
from lpdirs.data.private import hide, where
from lpdirs.measures.measures import Measures
from lpdirs.models.generators import Generator


def is_factory(name: str) -> bool:
    """Whether a name says where a function is: "my_gan.py:make", or "package.module:make"."""
    return ":" in name


def hidden(factory: str) -> str:
    """The same, with the file's folder as a pseudonym (`data.private.hide`), as it stands in what a run writes down."""
    place, _, function = factory.rpartition(":")
    if not place.endswith(".py"):
        _check_module(place, factory)
        return factory
    if place.startswith("folder-"):
        return factory
    path = next((p for p in (Path(place), workspace() / place) if p.is_file()), None)
    if path is None:
        raise MissingInput(f"there is no file {place}: give FILE.py:FUNCTION, or package.module:FUNCTION, which makes it")
    try:
        names = {node.name for node in ast.parse(path.read_bytes()).body if isinstance(node, ast.FunctionDef)}
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{path.name} is not Python ({error})") from error
    if function not in names and function not in path.read_text(encoding="utf-8", errors="replace"):
        raise UserError(f"{path.name} holds no function {function!r}: it has {', '.join(sorted(names)) or 'none'}")
    return f"{hide(path.resolve().parent)}/{path.name}:{function}"


def _check_module(place: str, factory: str) -> None:
    try:
        known = bool(place) and importlib.util.find_spec(place) is not None
    except (ImportError, ValueError):
        known = False
    except (Exception, SystemExit) as error:  # a package of the user's is begun to be imported, and may do anything
        raise UserError(f"{factory}: {place} cannot be imported ({type(error).__name__}: {first_line(error)})") from error
    if not known:
        raise UserError(f"{factory}: there is no module {place!r}: give FILE.py:FUNCTION, or package.module:FUNCTION, which makes it")


def made_by(factory: str) -> Any:
    """What the function gives when it is called; UserError, in one line, where it is not there or fails."""
    place, _, function = hidden(factory).rpartition(":")
    doing = "cannot be imported"
    try:
        with _beside(place):
            make = getattr(_from_file(place) if place.endswith(".py") else importlib.import_module(place), function)
            doing = "failed"
            return make()
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # a user's own file may do anything
        raise UserError(f"{_named(factory)} {doing} ({type(error).__name__}: {first_line(error, 200)})") from error


def _from_file(place: str) -> Any:
    path = _path_of(place)
    spec = importlib.util.spec_from_file_location(f"lpdirs_own_{abs(hash(path))}_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # under a name of its own: a file may be called like a library
    spec.loader.exec_module(module)
    return module


def _path_of(place: str) -> Path:
    folder, _, name = place.rpartition("/")
    path = where(folder) / name
    if not path.is_file():
        raise MissingInput(f"{name}, which makes this run's own generator or measures, is not on this machine: give it again")
    return path


@contextmanager
def _beside(place: str) -> Iterator[None]:
    """While a file is imported, modules that lie beside it come first, and are forgotten after: another file's may have the same names."""
    if not place.endswith(".py"):
        yield
        return
    folder = _path_of(place).parent
    siblings = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    own = lambda name: name.partition(".")[0] in siblings
    others = {name: sys.modules.pop(name) for name in list(sys.modules) if own(name) and not _is_of(sys.modules[name], folder)}
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name not in before and own(name)]:
            del sys.modules[name]
        sys.modules.update(others)


def _is_of(module: Any, folder: Path) -> bool:
    return str(getattr(module, "__file__", None) or "").startswith(str(folder))


def files_beside(factory: str) -> list[Path]:
    """The user's file and all that lie beside it, as code or weights that it may read; [] where it is no file of this machine."""
    place = hidden(factory).rpartition(":")[0]
    if not place.endswith(".py"):
        return []
    path = where(place.rpartition("/")[0]) / place.rpartition("/")[2]
    return sorted(p for p in path.parent.iterdir() if p.is_file())[:1000] if path.is_file() else []


def _named(factory: str) -> str:
    return factory.rpartition("/")[2]


def make_generator(factory: str) -> Generator:
    """A user's generator; UserError unless the function gives what lp.as_generator returned, under a name of its own."""
    generator = made_by(factory)
    if not isinstance(generator, Generator):
        raise UserError(f"{_named(factory)} must return what lp.as_generator(...) gives, not {type(generator).__name__}")
    name = check_name(generator.info.name, "the name given to as_generator")
    if name in ("gan", "vae"):
        raise UserError(f"{_named(factory)} makes a generator called {name!r}, as a run calls its own: give as_generator another name=")
    return generator


def make_measures(factory: str) -> Measures:
    """A user's measures."""
    measures = made_by(factory)
    if not isinstance(measures, Measures):
        raise UserError(f"{_named(factory)} must return lp.Measures(function, units), not {type(measures).__name__}")
    return measures


def keep(folder: Path, factory: str) -> Generator:
    """Make a user's generator and write into the run at `folder` how to make it again; returns it."""
    generator = make_generator(factory)
    target = folder / "own" / f"{generator.info.name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"factory": hidden(factory), "fingerprint": generator.info.fingerprint}, indent=1)
    write_atomic(target, text)
    return generator


def kept(folder: Path) -> dict[str, dict]:
    """The users' generators that the run at `folder` knows: {name: {"factory": ..., "fingerprint": ...}}."""
    return {path.stem: read_json(path) for path in sorted((folder / "own").glob("*.json"))}


def open_own(folder: Path, name: str) -> Generator:
    """A user's generator that the run knows, made again; UserError where it is another one by now."""
    known = kept(folder)[name]
    generator = make_generator(str(known.get("factory")))
    if generator.info.fingerprint != known.get("fingerprint"):
        raise UserError(
            f"{_named(str(known.get('factory')))} makes another {name} than the one that the run {folder.name} knows (other weights or "
            f"options): run notebook 04 again"
        )
    return generator
