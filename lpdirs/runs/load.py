"""load(): whatever this package, or the original code, has written."""

from pathlib import Path
from typing import Any

from lpdirs.base.errors import MissingInput, UserError
from lpdirs.discovery.deformator import open_old_directions
from lpdirs.discovery.directions import FORMAT, Directions
from lpdirs.models.files import load_generator, read_header
from lpdirs.models.legacy import open_old_generator
from lpdirs.runs.models import open_models
from lpdirs.runs.settings import MachineSettings
from lpdirs.runs.stage import open_run


def load(path: str | Path, device: str = "cpu") -> Any:
    """Open what lies at `path`.

    A file of directions gives Directions, one of weights a generator, and a run's folder {label: (generator, directions)}. Checkpoints
    of the original code (.pt, .pth) give its generator or its directions. UserError, in one line, for anything else.
    """
    if not isinstance(path, str | Path):
        raise UserError(f"load takes a file or a folder, not {type(path).__name__}")
    device, path = MachineSettings(device=device).chosen, Path(path)
    if path.is_dir():
        return open_models(open_run(path.resolve()))
    if not path.exists():
        raise MissingInput(f"there is no file {path}")
    if path.suffix in (".pt", ".pth", ".tar", ".ckpt"):
        try:
            return open_old_directions(path)
        except UserError as no_directions:
            try:
                return open_old_generator(path).to(device)
            except UserError as no_generator:
                raise UserError(f"{no_directions}; {no_generator}") from None
    family = FORMAT.partition("/")[0]
    return Directions.load(path) if read_header(path).get("format", "").startswith(family) else load_generator(path, device)
