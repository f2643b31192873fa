"""Files that are whole or absent, and folders that are resumed only under the settings that began them."""

import errno
import io
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from lpdirs.base.errors import SettingsDiffer, UserError

ROOM = 2**20  # bytes of a disk below which a writer's own error is taken for a full disk


def write_atomic(path: str | Path, content: bytes | memoryview | str | Iterable[bytes], rights: int = 0o666) -> None:
    """Write bytes, text (UTF-8) or blocks of bytes to a temporary file beside `path`, flush it to disk, then rename it to `path`.

    `rights` hold from the first byte, less the umask. UserError, in one line, where the disk is full or the folder is not there or
    not to be written; what was at `path` before stays. Bytes alone: what torch and NumPy write themselves fails in their own words.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    blocks = [content.encode()] if isinstance(content, str) else [content] if isinstance(content, bytes | memoryview) else content
    try:
        partial.unlink(missing_ok=True)
        with open(partial, "wb", opener=lambda name, flags: os.open(name, flags, rights)) as file:
            for block in blocks:
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        reason = why_not_written(path.parent, error)
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if reason is None:
            raise
        raise UserError(f"{path} cannot be written: {reason}; what was there before is as it was") from error


def write_array(path: Path, array: np.ndarray) -> None:
    """An array as .npy, whole or not at all."""
    file = io.BytesIO()
    np.save(file, array)
    write_atomic(path, file.getbuffer())


def read_array(path: Path) -> np.ndarray | None:
    """The array in a .npy file; None where it is torn."""
    try:
        return np.load(path)
    except (OSError, EOFError, ValueError):
        return None


def why_not_written(folder: Path, error: BaseException) -> str | None:
    """What keeps files from being written, with what to do; None where the error is about something else."""
    number = getattr(error, "errno", None)
    if number == errno.EFBIG:
        return "a limit on the size of files is in force (ulimit -f): raise it"
    if number in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "the folder is read-only for you: change its rights, or choose another with outputs"
    if not folder.is_dir():
        return "its folder is gone: make it again, and run the same once more"
    if number in (errno.ENOSPC, errno.EDQUOT) or shutil.disk_usage(folder).free < ROOM:
        return "the disk is full, or your share of it: make room, and run the same once more"
    return f"{error.strerror}: see to the disk, and run the same once more" if isinstance(error, OSError) and error.strerror else None


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
    except (ValueError, OSError, RecursionError) as error:
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


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """UserError, with who and since when, where another process is at work on `folder`; it is free again when that one ends."""
    lock, holder = FileLock(folder / ".busy.lock"), folder / ".busy.json"
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        who = holder.read_text(encoding="utf-8") if holder.exists() else "another process"
        raise UserError(f"{folder.name} is being worked on by {who}: wait for it to end, or choose another run name") from error
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        holder.write_text(f"process {os.getpid()} on {platform.node()}, since {since}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
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
