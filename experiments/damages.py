"""How many damages of a run's files are found? `python -m experiments.damages RUN`

RUN is a run's folder, of a smoke run, say; it is copied. Each of its files is damaged in four ways (a bit flipped in the middle, cut in
half, emptied, deleted), one at a time, and `lpdirs verify` is asked. Prints what was found, and which damages of which files were silent.
"""

import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from lpdirs.base.errors import UserError
from lpdirs.runs.verify import verify


def flipped(content: bytes) -> bytes:
    """With one bit in the middle the other way round."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


WAYS = {"flip": flipped, "cut": lambda content: content[: len(content) // 2], "empty": lambda content: b"", "delete": None}


def kind(path: Path) -> str:
    """What sort of file it is, for counting."""
    if path.suffix == ".dcm" or "dicom" in path.parts:
        return "inputs"
    if path.suffix in (".pt", ".lock") or path.name.startswith(".") or path.suffix == ".partial":
        return "progress, locks, checkpoints and stamps, which check themselves or carry no number"
    return "results"


def main(run: Path) -> None:
    found, silent = Counter(), []
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / run.name
        shutil.copytree(run, copy, symlinks=True)
        assert not any(line.broken for line in verify(copy)), "the run is whole to begin with"
        files = [path for path in sorted(copy.rglob("*")) if path.is_file() and path.stat().st_size]
        inputs = [path for path in files if kind(path) == "inputs"]
        for path in [*(p for p in files if kind(p) != "inputs"), *inputs[:8]]:
            content = path.read_bytes()
            for name, way in WAYS.items():
                path.unlink() if way is None else path.write_bytes(way(content))
                try:
                    broken = any(line.broken for line in verify(copy))
                except UserError:  # said in a line as well
                    broken = True
                path.write_bytes(content)
                found[kind(path), broken] += 1
                if not broken and kind(path) == "results":
                    silent.append(f"{name} {path.relative_to(copy)}")
    for (what, broken), n in sorted(found.items()):
        print(f"{n} damages of {what} {'found' if broken else 'silent'}")
    print("silent among results:", ", ".join(silent) or "none")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
