"""What must not get out: the salt of pseudonyms, and the tables that turn pseudonyms back, in a folder of the user's own."""

import csv
import hashlib
import io
import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from lpdirs.base.errors import UserError
from lpdirs.base.files import alone, read_json, write_atomic

KNOWN = b"lpdirs"  # the salt of synthetic data, which has nothing to hide
PRIVATE = 0o600  # rights of files that the user alone may read
SHORTEST = 32  # characters of a salt that cannot be guessed


def private_folder() -> Path:
    """Where salt and tables lie, readable by the user alone: $LPDIRS_PRIVATE or ~/.lpdirs; never in a run."""
    folder = Path(os.environ.get("LPDIRS_PRIVATE") or Path.home() / ".lpdirs")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}): set LPDIRS_PRIVATE to a folder of your own") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder} cannot be written: set LPDIRS_PRIVATE to a folder of your own")
    return folder


def salt() -> bytes:
    """The user's salt: random, made at the first need. Who has it can try identifiers; who copies it gets the same pseudonyms."""
    path = private_folder() / "salt"
    with alone(path.parent):
        if not path.exists():
            write_atomic(path, secrets.token_hex(32), PRIVATE)
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as text: put your copy of it back, or delete it to have a new one made") from error
    if len(text) < SHORTEST:
        raise UserError(f"{path} holds fewer than {SHORTEST} characters, which can be guessed: delete it to have a random one made")
    return hashlib.blake2b(text.encode(), digest_size=64).digest()


def pseudonym(identifier: str, salt: bytes, prefix: str) -> str:
    """A key that does not give the identifier away to those who lack the salt."""
    return prefix + hashlib.blake2b(identifier.encode(errors="surrogateescape"), key=salt, digest_size=5).hexdigest()


def hide(folder: Path) -> str:
    """A pseudonym for a folder, whose name may be a patient's; `where` gives the folder back on this machine."""
    name = pseudonym(str(folder.resolve()), salt(), "folder-")
    path = private_folder() / "folders.json"
    with alone(path.parent):
        known = read_json(path) if path.exists() else {}
        if known.get(name) != str(folder.resolve()):
            write_atomic(path, json.dumps(known | {name: str(folder.resolve())}, indent=1), PRIVATE)
    return name


def where(folder: str) -> Path:
    """The folder that is meant: a path, or the pseudonym of one that was hidden here."""
    path = private_folder() / "folders.json"
    known = read_json(path) if folder.startswith("folder-") and path.exists() else {}
    return Path(str(known.get(folder, folder)).replace("\0", ""))


def write_key(name: str, rows: Iterable[tuple[str, str]]) -> Path:
    """The table of pseudonyms and what they stand for, <private folder>/<name>.csv."""
    path = private_folder() / f"{name}.csv"

    def shown(identifier: str) -> str:  # patient, study and series apart; and no formula for a spreadsheet
        text = identifier.replace("\0", " / ")
        return "'" + text if text[:1] in "=+-@\t\r" else text

    file = io.StringIO(newline="")
    csv.writer(file).writerows([("pseudonym", "stands for"), *((name, shown(identifier)) for name, identifier in rows)])
    write_atomic(path, file.getvalue().encode(errors="backslashreplace"), PRIVATE)
    return path
