"""JPEG decoders in a process of their own: a damaged file can end the process that decodes it, and must not end a build.

Run as `python -m lpdirs.data.decoder` it answers requests on its standard input; `decode` is the other end.
"""

import atexit
import io
import os
import struct
import subprocess
import sys
import warnings
from pathlib import Path
from typing import IO

import numpy as np
import pydicom

from lpdirs.data.reasons import Unusable

PATIENCE = 60  # seconds that a child gets to end
_children: list[subprocess.Popen] = []


def decode(path: Path) -> np.ndarray:
    """The stored values of a compressed file; Unusable where it cannot be decoded, also where that ends the decoder."""
    child = _child()
    name = os.fsencode(path.resolve())
    try:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(struct.pack("<q", len(name)) + name)
        child.stdin.flush()
        answer = _take(child.stdout)
    except (OSError, EOFError):
        child.kill()
        child.wait(PATIENCE)
        _children.remove(child)
        raise Unusable("damaged pixels") from None
    if not answer:
        raise Unusable("damaged pixels")
    return np.load(io.BytesIO(answer))


def _child() -> subprocess.Popen:
    if _children and _children[0].poll() is not None:
        _children.clear()
    if not _children:
        command = [sys.executable, "-m", "lpdirs.data.decoder"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        _children.append(subprocess.Popen(command, env=environment, start_new_session=True, **pipes))  # type: ignore[call-overload]
        atexit.register(_children[0].kill)
    return _children[0]


def _take(stream: IO[bytes]) -> bytes:
    head = stream.read(8)
    if len(head) < 8:
        raise EOFError
    (length,) = struct.unpack("<q", head)
    content = stream.read(length)
    if len(content) < length:
        raise EOFError
    return content


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what decoders print is no answer
    while True:
        try:
            path = Path(os.fsdecode(_take(sys.stdin.buffer)))
        except EOFError:
            return
        file = io.BytesIO()
        try:
            with warnings.catch_warnings(action="ignore"):
                np.save(file, pydicom.dcmread(path, force=True).pixel_array)
        except Exception:  # the codecs raise anything
            file = io.BytesIO()
        answers.write(struct.pack("<q", len(file.getvalue())) + file.getvalue())
        answers.flush()


if __name__ == "__main__":
    _serve()
