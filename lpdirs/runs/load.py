"""load(): whatever this package has written; explore(): the explorer on a run, or on one's own generator."""

from pathlib import Path
from typing import Any

from pydantic import InstanceOf

from lpdirs.base.checked import Positive, checked
from lpdirs.base.errors import MissingInput, UserError
from lpdirs.discovery.directions import Directions
from lpdirs.measures.display import Display
from lpdirs.measures.measures import Measures
from lpdirs.models.files import load_generator, read_header
from lpdirs.runs.models import open_models
from lpdirs.runs.settings import MachineSettings
from lpdirs.runs.stage import open_run


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
) -> Any:
    """Sliders on all direction sets of a run, `explore("demo")`, or on one's own, `explore({"mine": (generator, directions)})`.

    With `measures` the factors are read before and after; a run and a generator bring their own. `furthest` is the sliders' end, in units
    of z. Where outputs/<run>/ is not there, the run of that name that comes with the project is opened; `trust` as in `load`.
    MissingInput says what there is.
    """
    from lpdirs.show.explorer import Explorer

    if isinstance(what, dict):
        return Explorer(what, measures, display, furthest)
    if not isinstance(what, str | Path):
        raise UserError(f"explore takes the name of a run, or {{'mine': (generator, directions)}}, not {type(what).__name__}")
    stage = open_run(what, outputs, trust)
    return Explorer(open_models(stage), measures, display, furthest, folder=Path.cwd() / "exports")
