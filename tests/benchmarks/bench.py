"""What all benchmarks share: alternating the two sides, the machine's description, and the file that the figures go to."""

import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from lpdirs.base.places import workspace
from lpdirs.runs.records import provenance


def machine() -> dict:
    """What computed: processor, cores, memory, GPU, versions."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), model)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"processor": model, "memory_GiB": round(memory, 1), "threads": torch.get_num_threads()} | provenance()


def alternate(*sides: Callable[[], object], rounds: int = 5, block: int = 1) -> list[float]:
    """Median seconds of each side, run in turns so that a busy machine burdens all alike; the first turn is not counted.

    With `block` each turn is so many calls after one that is not counted: for sides in processes of their own, which have to wake up.
    """
    taken: list[list[float]] = [[] for _ in sides]
    for turn in range(rounds + 1):
        for side, seconds in zip(sides, taken, strict=True):
            found = side.timed(block) if isinstance(side, Apart) else timed(side, block)
            seconds += found if turn else []
    return [statistics.median(seconds) for seconds in taken]


def timed(side: Callable[[], object], block: int = 1) -> list[float]:
    """Seconds of each of `block` calls, after one more where there are several."""
    found = []
    for _ in range(block + (block > 1)):
        began = time.perf_counter()
        side()
        found.append(time.perf_counter() - began)
    return found[-block:]


class Apart:
    """A side in a process of its own, in which malloc is as the system has it and lpdirs' own setting does not reach: each call makes one
    step there, `make(*given)()`, and returns what it gave; `timed` times steps there."""

    def __init__(self, make: Callable[..., Callable[[], object]], *given: object):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        os.environ["LPDIRS_KEEP_MEMORY"] = "0"
        try:
            context.Process(target=_serve, args=(theirs, torch.get_num_threads(), make, given), daemon=True).start()
        finally:
            del os.environ["LPDIRS_KEEP_MEMORY"]
        theirs.close()
        self._pipe.recv()

    def __call__(self) -> Any:
        self._pipe.send(0)
        return self._pipe.recv()

    def timed(self, block: int) -> list[float]:
        self._pipe.send(block)
        return self._pipe.recv()


def _serve(pipe: Any, threads: int, make: Callable[..., Callable[[], object]], given: tuple) -> None:
    torch.set_num_threads(threads)
    step = make(*given)
    pipe.send(None)
    while True:
        try:
            block = pipe.recv()
        except EOFError:
            return
        pipe.send(timed(step, block) if block else step())


def write(name: str, figures: dict) -> None:
    """Print the figures and put them, with the machine's description, into outputs/reference/bench/<name>.json."""
    folder = workspace() / "outputs" / "reference" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(figures | {"machine": machine()}, indent=1)
    (folder / f"{name}.json").write_text(text + "\n")
    print(text, f"\nwritten to outputs/reference/bench/{name}.json")
