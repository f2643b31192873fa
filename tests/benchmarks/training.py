"""Discovery: a step at paper size against the recipe written plainly, time to a reconstructor accuracy, closed forms, memory.

python -m tests.benchmarks.training [--run phantom] [--patience 150]      needs the generators of a run (make run)
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from lpdirs.base.compute import cores
from lpdirs.base.places import workspace
from lpdirs.data.build import build_dataset
from lpdirs.data.series import DataSettings
from lpdirs.discovery.methods import discover
from lpdirs.discovery.objective import Discovery, DiscoverySettings
from lpdirs.models.files import load_generator
from lpdirs.models.generators import Generator
from lpdirs.models.networks import GeneratorNetwork
from lpdirs.phantom.cohort import Cohort, write_cohort
from lpdirs.runs.settings import resolve
from tests.benchmarks.bench import Apart, alternate, write
from tests.benchmarks.naive import NaiveDiscovery

PAPER = resolve("paper", {})
TARGET = 0.8  # reconstructor accuracy
OURS = {"basis": "orthonormal", "batch": 32, "lr_directions": 0.01, "lr_reconstructor": 0.005}


def lively_generator() -> Generator:
    torch.manual_seed(0)
    generator = GeneratorNetwork(128, 32, 128)
    with torch.no_grad():
        for _ in range(2):
            generator(torch.randn(8, 32))
    return Generator(generator.eval(), generator.latent_dim)


def products_a_second(side: int = 3072, times: int = 5) -> float:
    """GFLOP/s of a product of two matrices: about what these cores can do in fp32."""
    a, b = torch.randn(2, side, side).unbind()
    (seconds,) = alternate(lambda: a @ b, rounds=times)
    return 2 * side**3 / seconds / 1e9


def at_paper_size(kind: str, precision: str = "fp32") -> DiscoverySettings:
    return PAPER.discovery.but(n_directions=100, batch=8, reconstructor=kind, precision=precision)


def plainly(kind: str) -> Callable[[], float]:
    """Steps of the recipe as it is written plainly, one after the other; each gives its loss."""
    search, turn = NaiveDiscovery(lively_generator(), at_paper_size(kind)), iter(range(10**6))
    return lambda: search.step(next(turn))["loss"]


def giving_back(kind: str) -> Callable[[], float]:
    """Steps of this package without keep_memory."""
    search, turn = Discovery(lively_generator(), at_paper_size(kind)), iter(range(10**6))
    return lambda: search.step(next(turn))["loss"]


def discovery_steps(rounds: int) -> dict:
    figures = {"matrix_products_gflops": round(products_a_second())}
    for kind in ("lenet", "resnet18"):
        ours, naive, giving = Discovery(lively_generator(), at_paper_size(kind)), Apart(plainly, kind), Apart(giving_back, kind)
        differences = [abs(ours.step(i)["loss"] - naive()) for i in range(5)]
        with FlopCounterMode(display=False) as counted:
            ours.step(5)
        turn = iter(range(6, 10**6))
        chosen = Discovery(lively_generator(), at_paper_size(kind, "auto"))
        step = lambda search, t=turn: lambda: search.step(next(t))
        ours_s, chosen_s, naive_s, giving_s = alternate(step(ours), step(chosen), naive, giving, rounds=rounds, block=3)
        figures[kind] = {
            "seconds": round(ours_s, 3),
            "precision": chosen.precision,
            "seconds_chosen": round(chosen_s, 3),
            "ratio_chosen": round(naive_s / chosen_s, 2),
            "naive_seconds": round(naive_s, 3),
            "seconds_where_memory_is_given_back": round(giving_s, 3),
            "ratio": round(naive_s / ours_s, 2),
            "gflops": round(counted.get_total_flops() / ours_s / 1e9),
            "differences of losses, step by step": differences,
        }
    return figures | {"what": "128 px, width 128, K = 100, batch 8, CPU, fp32"}


MEMORY = """
import sys, torch
from pathlib import Path
from lpdirs.data.store import open_dataset
from lpdirs.discovery.objective import Discovery, DiscoverySettings
from lpdirs.models.networks import GeneratorNetwork
from lpdirs.models.generators import Generator
from lpdirs.models.training import GANTraining, VAETraining
from lpdirs.runs.settings import resolve
PAPER = resolve("paper", {})
if __name__ == "__main__":
    which, slices = sys.argv[1], open_dataset(Path(sys.argv[2]))
    task = {
        "gan": lambda: GANTraining(slices, PAPER.gan.but(batch=8)),
        "vae": lambda: VAETraining(slices, PAPER.vae.but(batch=8)),
        "discovery": lambda: Discovery(GeneratorNetwork(128, 32, 128).eval(), PAPER.discovery.but(n_directions=100, batch=8)),
    }[which]()
    for index in range(2):
        task.step(index)
    print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def memory_at_paper_size() -> dict:
    """Peak MiB of two steps of batch 8 at 128 px, each in a process of its own, with Python and torch."""
    figures = {}
    with tempfile.TemporaryDirectory() as name:
        write_cohort(Cohort("bench", 2, 16), Path(name) / "dicom")
        build_dataset(Path(name) / "dicom", Path(name) / "data", DataSettings(size=128))
        for which in ("gan", "vae", "discovery"):
            words = [sys.executable, "-c", MEMORY, which, str(Path(name) / "data")]
            ran = subprocess.run(words, capture_output=True, text=True, check=True)
            figures[which] = round(int(ran.stdout.split()[-1]) / 1024)
    return figures


def curve(search, judge, patience: float, every: int) -> list[tuple[float, float]]:
    """(seconds of training, accuracy on 512 fresh pairs) every so many steps, until TARGET is reached or patience is over."""
    spent, points, index = 0.0, [], 0
    while spent < patience:
        began = time.perf_counter()
        search.step(index)
        spent += time.perf_counter() - began
        index += 1
        if index % every == 0:
            points.append((round(spent, 2), round(judge(), 4)))
            if points[-1][1] >= TARGET:
                break
    return points


def time_to_accuracy(generator, patience: float) -> dict:
    ours = Discovery(generator, PAPER.discovery.but(**OURS))
    naive = NaiveDiscovery(generator, PAPER.discovery)
    judge = Discovery(generator, PAPER.discovery)  # the same measure for both: fresh pairs, R in eval mode
    judge.matrix, judge.reconstructor = naive.matrix, naive.reconstructor
    quick = curve(ours, lambda: ours.accuracy(512), patience, 25)
    slow = curve(naive, lambda: judge.accuracy(512), patience, 25)
    reached = lambda points: points[-1][0] if points and points[-1][1] >= TARGET else None
    a, b = reached(quick), reached(slow)
    return {
        "what": f"seconds of training to an accuracy of {TARGET}, K = 32, LeNet, the phantom's VAE; None: not within {patience:.0f} s",
        "settings": OURS,
        "seconds": a,
        "naive_seconds": b,
        "naive_ended_at": slow[-1] if slow else None,
        "ratio": round((b or slow[-1][0]) / a, 1) if a and slow else None,
        "ratio_is_a_lower_bound": b is None,
        "accuracy_over_seconds": {"lpdirs": quick, "recipe, written plainly": slow},
    }


def sharing_a_plain_image(generator, patience: float) -> dict:
    """Seconds to TARGET with 1, 2 and 4 pairs that share a z and its plain image, three seeds each, and the curves."""
    found = {}
    for shared in (1, 2, 4):
        curves = []
        for seed in range(3):
            search = Discovery(generator, PAPER.discovery.but(**OURS, shifts_per_z=shared, seed=seed))
            curves.append(curve(search, lambda one=search: one.accuracy(512), patience, 25))
        ended = [points[-1][0] if points[-1][1] >= TARGET else None for points in curves]
        found[f"{shared} pairs of one z"] = {"seconds": ended, "accuracy_over_seconds": curves}
    return {"what": f"seconds of training to an accuracy of {TARGET}, as in time_to_accuracy, for seeds 0, 1 and 2"} | found


def closed_forms(generators: dict) -> dict:
    seconds = {}
    for name, generator in generators.items():
        for method in ("pca", "sefa", "jacobian", "random", "coordinate"):
            began = time.perf_counter()
            discover(generator, method, 32)
            seconds[f"{name} {method}"] = round(time.perf_counter() - began, 2)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="phantom", help="a run with gan/ and vae/")
    parser.add_argument("--patience", type=float, default=150, help="seconds of training for each side of the race")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps-alone", action="store_true", help="a discovery step alone; the rest stays as it was written")
    words = parser.parse_args()
    torch.set_num_threads(cores())
    folder = workspace() / "outputs" / words.run
    figures = {"discovery_step": discovery_steps(words.rounds)}
    if words.steps_alone:
        before = json.loads((workspace() / "outputs" / "reference" / "bench" / "training.json").read_text())
        return write("training", before | figures)
    figures["peak_MiB_at_paper_size"] = memory_at_paper_size()
    files = {"gan": folder / "gan" / "generator.safetensors", "vae": folder / "vae" / "vae.safetensors"}
    if all(path.exists() for path in files.values()):
        generators = {name: load_generator(path) for name, path in files.items()}
        figures["closed_form_seconds"] = closed_forms(generators)
        figures["time_to_accuracy"] = time_to_accuracy(generators["vae"], words.patience)
        figures["sharing_a_plain_image"] = sharing_a_plain_image(generators["vae"], words.patience)
    else:
        print(f"outputs/{words.run} holds no generators: make run first, for the closed forms and the race")
    write("training", figures)


if __name__ == "__main__":
    main()
