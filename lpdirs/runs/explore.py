"""explore(): the explorer on a run, or on one's own generator."""

from pathlib import Path
from typing import TYPE_CHECKING

from lpdirs.base.errors import UserError
from lpdirs.measures.display import Display
from lpdirs.measures.measures import Measures
from lpdirs.runs.models import Models, measures_of, open_models
from lpdirs.runs.stage import open_run

if TYPE_CHECKING:
    from lpdirs.show.explorer import Explorer


def explore(
    what: str | Path | Models = "demo",
    measures: Measures | None = None,
    display: Display | None = None,
    outputs: str = "outputs",
    reach: float = 6.0,
) -> "Explorer":
    """Sliders on all direction sets of a run, `explore("demo")`, or on one's own, `explore({"mine": (generator, directions)})`.

    With `measures` the factors are read before and after; a run brings its own. Where outputs/<run>/ is not there, the run of that
    name that comes with the project is opened. MissingInput says what there is.
    """
    from lpdirs.show.explorer import Explorer

    if not isinstance(what, dict | str | Path):
        raise UserError(f"explore takes the name of a run, or {{'mine': (generator, directions)}}, not {type(what).__name__}")
    if isinstance(what, dict):
        return Explorer(what, measures, display, reach)
    stage = open_run(what, outputs)
    models = open_models(stage)
    for generator, _ in models.values():
        generator.measures = measures or measures_of(stage, generator)  # type: ignore[assignment]
    return Explorer(models, measures, display, reach, folder=stage.folder / "exports")
