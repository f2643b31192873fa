"""JPEG decoders in a process of their own: a damaged file can end the process that decodes it, or never end, and must not end a build.

Run as `python -m lpdirs.data.decoder` it answers requests on its standard input; `decode` is the other end.
"""

import atexit
import io
import os
import struct
import subprocess
import sys
import tempfile
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import pydicom
from pydicom.uid import JPEG2000TransferSyntaxes, JPEGExtended12Bit

from lpdirs.data.folder import Unusable

PATIENCE = 60  # seconds that a child gets to end
LONGEST = 60.0  # seconds that a file may take, and a second for each MB of it
_children: list[subprocess.Popen] = []


def decode(path: Path) -> np.ndarray:
    """The stored values of a compressed file; Unusable where it cannot be decoded, also where that ends the decoder or would not end."""
    child = _child()
    name = os.fsencode(path.resolve())
    late = threading.Event()

    def stop() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(LONGEST + path.stat().st_size / 1e6, stop)
    timer.start()
    try:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(struct.pack("<q", len(name)) + name)
        child.stdin.flush()
        answer = _take(child.stdout)
    except (OSError, EOFError):
        _end(child)
        _children.remove(child)
        raise Unusable("decoding hangs" if late.is_set() else "damaged pixels") from None
    finally:
        timer.cancel()
    if not answer:
        raise Unusable("damaged pixels")
    return np.load(io.BytesIO(answer))


def stored_values(ds: Any) -> np.ndarray:
    """The pixels of a data set as stored; from where they lie if that is in the upper bits (HighBit), or beside an overlay."""
    allocated, stored, high = (int(ds.get(tag) or 0) for tag in ("BitsAllocated", "BitsStored", "HighBit"))
    overlaid = any(int(ds.get((group, 0x0102), None).value or 0) > 0 for group in range(0x6000, 0x601F, 2) if (group, 0x0102) in ds)
    low = max(high + 1 - stored, 0)
    shared = 0 < stored < allocated and (low > 0 or overlaid)
    plugin = "pylibjpeg" if ds.file_meta.TransferSyntaxUID in JPEG2000TransferSyntaxes else ""
    ds.pixel_array_options(decoding_plugin=plugin, correct_unused_bits=not shared)
    twelve = ds.file_meta.TransferSyntaxUID == JPEGExtended12Bit and stored > 8  # which pydicom leaves to nobody
    raw = _by_gdcm(ds) if twelve else ds.pixel_array
    if not shared or raw.dtype.kind not in "iu":
        return raw
    bits = raw.astype(np.int64) >> low & (1 << stored) - 1
    return np.where(bits >> (stored - 1), bits - (1 << stored), bits) if raw.dtype.kind == "i" else bits


def _by_gdcm(ds: Any) -> np.ndarray:
    """JPEG of 12 bits, where GDCM can: of what it cannot it says so on the terminal alone, and goes on."""
    import gdcm  # here, since it takes a while

    reader = gdcm.ImageReader()
    reader.SetFileName(str(ds.filename))
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            text = reader.GetImage().GetBuffer() if reader.Read() else ""
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
        if said.tell() or not text:
            raise Unusable("damaged pixels")
    kind = "<i2" if ds.PixelRepresentation else "<u2"
    return np.frombuffer(text.encode("utf-8", "surrogateescape"), kind).reshape(ds.Rows, ds.Columns)


def _child() -> subprocess.Popen:
    if _children and _children[0].poll() is not None:
        _children.clear()
    if not _children:
        command = [sys.executable, "-m", "lpdirs.data.decoder"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        _children.append(subprocess.Popen(command, env=environment, start_new_session=True, **pipes))  # type: ignore[call-overload]
        atexit.register(_end, _children[0])
    return _children[0]


def _end(child: subprocess.Popen) -> None:
    child.kill()
    child.wait(PATIENCE)
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with suppress(OSError):  # what was not sent
                pipe.close()


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
                np.save(file, stored_values(pydicom.dcmread(path, force=True)))
        except Exception:  # the codecs raise anything
            file = io.BytesIO()
        answers.write(struct.pack("<q", len(file.getvalue())) + file.getvalue())
        answers.flush()


if __name__ == "__main__":
    _serve()
