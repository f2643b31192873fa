"""How time and memory grow: with latent_dim, K, size, starting slices, patients and searches of a sweep. python -m tests.benchmarks.growth

Each measurement runs in a process of its own; `exponent` is the slope of log(seconds) over log(size) between the two largest sizes. About
25 minutes on two cores; `--only NAME` takes some of the series and leaves the others as they were written.
"""

import argparse
import json
import math
import multiprocessing
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

import lpdirs as lp
from lpdirs.base.compute import cores
from lpdirs.base.places import workspace
from lpdirs.data.build import build_dataset
from lpdirs.data.series import DataSettings
from lpdirs.data.store import open_dataset
from lpdirs.discovery.closed_form import random
from lpdirs.discovery.directions import Directions
from lpdirs.discovery.methods import discover
from lpdirs.discovery.objective import Discovery, DiscoverySettings
from lpdirs.measures.thorax import fit_z
from lpdirs.models.generators import Generator
from lpdirs.models.networks import GeneratorNetwork
from lpdirs.models.training import GANSettings, GANTraining, VAESettings, VAETraining
from lpdirs.phantom.cohort import Cohort, write_cohort
from lpdirs.runs.comparison import collect, pairs_to_test, tested
from lpdirs.runs.grid import Grid
from lpdirs.runs.sweep import sweep
from lpdirs.scores.chance import random_sets
from lpdirs.scores.naming import Rules, image_changes, name_directions
from tests.benchmarks.bench import write

METHODS = ("pca", "sefa", "jacobian", "local-basis", "ica", "sparse", "motion", "hessian", "latentclr", "disco")
QUICK = 5.0  # seconds below which a measurement is made again
SAMPLES = 16  # starting slices, where their number is not what grows


def generator_of(latent_dim: int = 32, size: int = 64) -> Generator:
    """The phantom profile's GAN, with statistics of its own layers, so that it draws something."""
    torch.manual_seed(0)
    generator = GeneratorNetwork(size, latent_dim, 16)
    with torch.no_grad():
        for _ in range(3):
            generator(torch.randn(32, latent_dim))
    return Generator(generator.eval(), generator.latent_dim)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measures(size: int = 64) -> lp.Measures:
    return lp.thorax((-1000.0, 1000.0), 420 / size)


def of_method(latent_dim: int, method: str) -> float:
    generator = generator_of(latent_dim)
    return seconds(lambda: discover(generator, method, 32))


def search_steps(latent_dim: int, k: int = 32, basis: str = "unit", size: int = 64) -> float:
    """Ten steps of the paper's method, 16 pairs each."""
    settings = DiscoverySettings(n_directions=k, batch=16, basis=basis)
    search = Discovery(generator_of(latent_dim, size), settings)
    search.step(0)
    return seconds(lambda: [search.step(i) for i in range(1, 11)])


def responses(k: int, samples: int = SAMPLES, size: int = 64) -> float:
    generator, directions = generator_of(512, size), Directions(random(k, 512))
    return seconds(lambda: lp.respond(generator, directions, measures(size), samples=samples).table())


def names(k: int) -> float:
    """Names and duplicates, without what is measured before them."""
    generator, directions, of = generator_of(512), Directions(random(k, 512)), measures()
    band = random_sets(generator, of, k, shifts=(-2, 0, 2), samples=2)
    table = band.measure(generator, directions, of)
    judged = table, band.place(generator, directions, of, table=table)
    return seconds(lambda: name_directions(directions, table, image_changes(generator, directions), of.units, judged, Rules()))


def chance(k: int) -> float:
    return seconds(lambda: Rules().beyond(random_sets(generator_of(512), measures(), k, samples=4)))


def training_steps(size: int, model: str, folder: str) -> float:
    """Five steps of 16 slices, at the phantom profile's width."""
    slices = open_dataset(Path(folder) / f"data{size}")
    training = (
        GANTraining(slices, GANSettings(size=size, batch=16)) if model == "gan" else VAETraining(slices, VAESettings(size=size, batch=16))
    )
    training.step(0)
    return seconds(lambda: [training.step(i) for i in range(1, 6)])


def build(patients: int, folder: str) -> float:
    """Two slices of 64 px a patient from DICOM to a store, with split and tables."""
    place = Path(folder) / f"patients{patients}"
    write_cohort(Cohort("growth", patients, 2, matrix=64), place / "dicom")
    return seconds(lambda: build_dataset(place / "dicom", place / "data", DataSettings(size=64), workers=cores()))


def use(patients: int, folder: str) -> float:
    """To open the store, fit z, and read ten batches of 64."""
    place = Path(folder) / f"patients{patients}" / "data"

    def work() -> None:
        train, test = (open_dataset(place, split) for split in ("train", "test"))
        fit_z(train, test)
        training = VAETraining(train, VAESettings(batch=64))
        for i in range(10):
            training.loader[i]

    return seconds(work)


def compare(searches: int, folder: str) -> float:
    """To collect and test the scores of a sweep of so many searches."""

    def work() -> None:
        rows = collect(Path(folder) / f"sweep{searches}")
        assert len(rows) == searches, len(rows)
        tested(rows, pairs_to_test(["lenet-unit-6", "random"]), ["selectivity", "kappa_fresh"])

    return seconds(work)


def lay_out_sweeps(folder: Path, counts: tuple[int, ...]) -> None:
    """One search of each of two configurations, made by `sweep`, and copied into sweeps of as many as wanted."""
    grid = Grid.read(workspace() / "notebooks" / "profiles" / "grid_smoke.yaml", {"direction_steps": 5})
    known = {"generators": ["gan"], "train": "once", "profile": grid.profile, "threads": 1, "settings": dict(grid.settings)}
    configurations = {"lenet-unit-6": {"n_directions": 6}, "random": {"n_directions": 6, "method": "random"}}
    one = Grid(name="one", configurations=configurations, seeds=[0], **known)
    sweep(one, folder, 1, report=lambda text: None)
    for n in counts:
        grid = Grid(name=f"sweep{n}", configurations=configurations, seeds=list(range(n // 2)), **known)
        grid.lay_out(folder / grid.name)
        for name in configurations:
            for seed in grid.seeds:
                source, target = folder / "one" / one.run_of("gan", name, 0, 0), folder / grid.name / grid.run_of("gan", name, 0, seed)
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(source, target, symlinks=True)


def in_child(pipe, work: Callable[..., float], given: tuple, times: int) -> None:
    torch.set_num_threads(cores())
    taken = [work(*given)]
    while len(taken) < times and taken[0] < QUICK:
        taken.append(work(*given))
    peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
    pipe.send((statistics.median(taken), peak / 1024))


def name_of(work: Callable[..., float]) -> str:
    return (work.func if isinstance(work, partial) else work).__name__


def cost(work: Callable[..., float], *given: object, times: int = 1) -> dict:
    """Seconds and peak MiB (with Python and torch) of one call in a process of its own; of quick ones the median of `times`."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=in_child, args=(theirs, work, given, times))
    process.start()
    theirs.close()
    try:
        taken, peak = ours.recv()
    except EOFError:
        raise SystemExit(f"{name_of(work)}{given} ended without a result") from None
    process.join()
    return {"seconds": round(taken, 3), "peak_MiB": round(peak)}


def series(work: Callable[..., float], sizes: tuple[int, ...], *given: object, times: int = 3) -> dict:
    rows = [{"size": size} | cost(work, size, *given, times=times) for size in sizes]
    (a, s), (b, t) = ((row["size"], row["seconds"]) for row in rows[-2:])
    found = {"rows": rows, "exponent": round(math.log(t / s) / math.log(b / a), 2)}
    print(name_of(work), *(text for text in given if len(str(text)) < 20), json.dumps(found), flush=True)
    return found


def over_latent_dim(_: Path) -> dict:
    dims = (32, 64, 128, 256, 512)
    found = {method: series(of_method, dims, method) for method in METHODS}
    return found | {f"ten steps of search, {basis}": series(search_steps, dims, 32, basis) for basis in ("unit", "orthonormal")}


def over_k(_: Path) -> dict:
    wanted = {"ten steps of search": partial(search_steps, 512), "responses": responses, "names and duplicates": names, "chance": chance}
    return {name: series(work, (32, 64, 128, 256, 512)) for name, work in wanted.items()}


def over_size(folder: Path) -> dict:
    sizes = (32, 64, 128, 256)
    write_cohort(Cohort("growth", 12, 4, matrix=256), folder / "dicom")
    for size in sizes:
        build_dataset(folder / "dicom", folder / f"data{size}", DataSettings(size=size))
    found = {f"five steps of the {m.upper()}": series(training_steps, sizes, m, str(folder)) for m in ("gan", "vae")}
    search, measured = partial(search_steps, 32, 32, "unit"), partial(responses, 8, SAMPLES)
    return found | {"ten steps of search": series(search, sizes), "responses of 8 directions": series(measured, sizes)}


def over_samples(_: Path) -> dict:
    return {"responses of 8 directions": series(partial(responses, 8), (16, 64, 256, 1024))}


def over_patients(folder: Path) -> dict:
    counts = (10, 100, 1000, 10_000)
    return {
        "from DICOM to a store": series(build, counts, str(folder), times=1),
        "opened, z fitted, ten batches": series(use, counts, str(folder)),
    }


def over_searches(folder: Path) -> dict:
    counts = (4, 12, 50, 200)
    lay_out_sweeps(folder, counts)
    return {"collected and tested": series(compare, counts, str(folder))}


SERIES = {
    "latent_dim": over_latent_dim,
    "K": over_k,
    "size": over_size,
    "starting slices": over_samples,
    "patients": over_patients,
    "searches of a sweep": over_searches,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="*", choices=list(SERIES), default=list(SERIES))
    words = parser.parse_args()
    before = workspace() / "outputs" / "reference" / "bench" / "growth.json"
    figures = json.loads(before.read_text()) if before.exists() else {}
    for name in words.only:
        with tempfile.TemporaryDirectory() as folder:
            figures[name] = SERIES[name](Path(folder))
    write("growth", {name: figures[name] for name in SERIES if name in figures})


if __name__ == "__main__":
    main()
