"""Where notebooks and manifests lie, and where outputs go: in a clone, or where the package is installed."""

from pathlib import Path

import lpdirs

INSTALLED = Path(lpdirs.__file__).resolve().parent / "clone"  # what a wheel brings along of the clone
IS_CLONE = ("pyproject.toml", "notebooks/profiles", "lpdirs/__init__.py")


def clone() -> Path | None:
    """The clone at or above the working folder, else the one that the package is installed from; None where there is none."""
    here = Path.cwd()
    for folder in (here, *here.parents, Path(lpdirs.__file__).resolve().parent.parent):
        if all((folder / part).exists() for part in IS_CLONE):
            return folder
    return None


def home() -> Path:
    """The folder that holds notebooks/, data_manifests/ and outputs/reference/."""
    return clone() or INSTALLED


def workspace() -> Path:
    """What a relative folder of outputs is relative to: the clone, or else the working folder."""
    return clone() or Path.cwd()
