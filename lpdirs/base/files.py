"""Files that are whole or absent, and folders that are gone on with only under the settings that began them."""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lpdirs.base.errors import SettingsDiffer, UserError


def write_atomic(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk, then rename it to `path`."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    write(partial)
    with open(partial, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def check_name(name: object, what: str = "run") -> str:
    """The name of a folder inside another, as text; UserError for anything that could lead out of it or hide."""
    text = str(name)
    if not re.fullmatch(r"[\w][\w .+-]{0,99}", text) or text.endswith((".", " ")):
        raise UserError(f"{what} must be a plain folder name of letters, digits, - and _, not {text!r}")
    return text


def read_json(path: Path) -> dict:
    """The mapping in a JSON file; UserError, in one line, where it holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}): it is damaged; delete it to have it written again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no mapping: it is damaged; delete it to have it written again")
    return content


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Others who enter `alone` for the same folder wait until this one has left, and say so."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=1)
    except Timeout:
        print(f"another process is at work in {folder.parent.name}/{folder.name}: waiting for it to end", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def check_settings(before: dict, now: dict, folder: Path) -> None:
    """Raise SettingsDiffer, naming what differs, unless both are the same; None stands for a setting that is absent."""
    before, now = json.loads(json.dumps(before)), json.loads(json.dumps(now))
    names = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
    if names:
        changes = ", ".join(f"{k} was {before.get(k)} and is now {now.get(k)}" for k in names)
        raise SettingsDiffer(
            f"{folder.parent.name}/{folder.name} was made with other settings: {changes}; "
            f"choose another run name, or delete that folder to begin again"
        )
