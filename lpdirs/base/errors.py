"""Mistakes that a user can mend: one line that says what, where, and what to do."""

from importlib import import_module
from types import ModuleType


class UserError(ValueError):
    """Shown in a notebook as its message alone, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class MissingInput(UserError):
    """A file of an earlier stage, or the user's data, is not there."""


class SettingsDiffer(UserError):
    """A run was asked to go on with other settings than it began with."""


def optional(module: str, extra: str) -> ModuleType:
    """A library that the core does without; UserError names the extra that installs it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(f"this needs {module.split('.')[0]}, which is not installed: pip install 'lpdirs[{extra}]'") from error


def first_line(error: BaseException, most: int = 160) -> str:
    """What an error says, as one line."""
    return " ".join(str(error).split())[:most] or type(error).__name__
