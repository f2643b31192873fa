"""Steps on a GPU at the paper's size: seconds and peak memory, in fp32 and bf16, compiled and not.

python -m tests.benchmarks.gpu [--seconds 3]      needs a CUDA device
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from lpdirs.data.store import Slices
from lpdirs.discovery.objective import Discovery
from lpdirs.models.training import GANTraining, VAETraining
from lpdirs.runs.settings import resolve
from tests.benchmarks.bench import write
from tests.benchmarks.training import PAPER, lively_generator

WAYS = (("fp32", "off"), ("bf16", "off"), ("bf16", "default"))


def noise(size: int, n: int = 2048) -> Slices:
    """Slices of noise: what a step takes does not depend on what they show."""
    hu = np.random.default_rng(0).integers(-1000, 1000, (n, size, size)).astype(np.int16)
    return Slices(hu, pd.DataFrame({"row": np.arange(n)}), (-1000.0, 1000.0))


def measured(make: Callable[[], object], seconds: float) -> dict:
    """Median seconds of a step, after ten (compiled: until they are done), and the peak of memory."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    task = make()
    for i in range(10):
        task.step(i)
    torch.cuda.synchronize()
    started, taken, i = time.perf_counter() - began, [], 10
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        one = time.perf_counter()
        task.step(i)
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - one)
        i += 1
    peak = torch.cuda.max_memory_allocated() / 2**30
    return {"ms": round(1000 * statistics.median(taken), 2), "GiB": round(peak, 2), "first_ten_steps_s": round(started, 1)}


def figures(seconds: float) -> dict:
    chest, slices = resolve("chest", {}), noise(128)
    generator = lively_generator().to("cuda")
    tasks = {
        "gan, width 128, batch 128": lambda **how: GANTraining(slices, PAPER.gan.but(**how), "cuda"),
        "vae, width 64, batch 128": lambda **how: VAETraining(slices, PAPER.vae.but(**how), "cuda"),
        "gan, chest profile": lambda **how: GANTraining(slices, chest.gan.but(**how), "cuda"),
        "vae, chest profile": lambda **how: VAETraining(slices, chest.vae.but(**how), "cuda"),
    }
    for kind in ("lenet", "resnet18"):
        for batch in (8, 128):
            of = PAPER.discovery.but(n_directions=100, batch=batch, reconstructor=kind)
            tasks[f"discovery, {kind}, K = 100, batch {batch}"] = lambda of=of, **how: Discovery(generator, of.but(**how))
    found: dict = {}
    for name, make in tasks.items():
        for precision, compile in WAYS if "128" in name.split("batch")[-1] else WAYS[:2]:  # compiling takes most of the time
            how = f"{precision}, compile {compile}"
            try:
                found.setdefault(name, {})[how] = measured(lambda make=make, p=precision, c=compile: make(precision=p, compile=c), seconds)
            except Exception as error:  # the next one can still be measured
                found[name][how] = {"error": " ".join(str(error).split())[:200]}
            print(name, how, found[name][how], flush=True)
    return {"what": "128 px; a step with all that belongs to it", "gpu": torch.cuda.get_device_name(), "steps": found}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="for each (default 3)")
    write("gpu", figures(parser.parse_args().seconds))
