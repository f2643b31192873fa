"""What all benchmarks share: alternating the two sides, the machine's description, and the file that the figures go to."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable

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


def alternate(*sides: Callable[[], object], rounds: int = 5) -> list[float]:
    """Median seconds of each side, run in turns so that a busy machine burdens all alike; the first turn is not counted."""
    taken: list[list[float]] = [[] for _ in sides]
    for turn in range(rounds + 1):
        for side, seconds in zip(sides, taken, strict=True):
            began = time.perf_counter()
            side()
            if turn:
                seconds.append(time.perf_counter() - began)
    return [statistics.median(seconds) for seconds in taken]


def write(name: str, figures: dict) -> None:
    """Print the figures and put them, with the machine's description, into outputs/bench/<name>.json."""
    folder = workspace() / "outputs" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(figures | {"machine": machine()}, indent=1)
    (folder / f"{name}.json").write_text(text + "\n")
    print(text, f"\nwritten to outputs/bench/{name}.json")
