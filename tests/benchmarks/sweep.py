"""What the batch layer costs over running the notebooks by hand, and what two workers bring. python -m tests.benchmarks.sweep"""

import multiprocessing
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lpdirs.base.places import workspace
from lpdirs.runs.grid import DISCOVER, Grid
from lpdirs.runs.notebooks import run_notebook
from lpdirs.runs.sweep import sweep
from tests.benchmarks.bench import write

STEPS = 1500  # of discovery: a configuration then takes about half a minute, less than any that is meant seriously
SEEDS = list(range(12))  # as many configurations as the paper has
ORDER = ("by hand", "1 worker", "2 workers")


def by_hand(grid: Grid, folder: Path) -> None:
    """The same notebooks and scores, one after the other in one process, without Dask."""
    from lpdirs.runs.search import score_run

    for job in grid.jobs():
        if job.notebook == DISCOVER:
            run_notebook(job.notebook, job.profile, folder / job.run, job.given, job.seed, bar=False)
            score_run(folder / job.run, job.settings.analysis.score_steps, job.seed)


def swept(grid: Grid, folder: Path, workers: int) -> None:
    """As the command line does it."""
    sweep(grid, folder.parent, workers, report=lambda text: None)


def timed(side: Callable, *given) -> tuple[float, float]:
    """Seconds on the clock and of the processors for side(*given) in a fresh process, its imports and all processes of it included."""
    used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    process = multiprocessing.get_context("spawn").Process(target=side, args=given)
    before, began = used(), time.perf_counter()
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{side.__name__} ended with {process.exitcode}")
    return time.perf_counter() - began, used() - before


def main() -> None:
    grid = Grid.read(workspace() / "notebooks" / "profiles" / "grid_smoke.yaml", {"direction_steps": STEPS})
    grid = grid.but(generators=["gan"], seeds=SEEDS, train="once", configurations={"lenet-unit-6": {}})
    sides = {"by hand": (by_hand,), "1 worker": (swept, 1), "2 workers": (swept, 2)}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / grid.name
        swept(grid.but(configurations={}), folder, 1)  # data and generator, for all alike
        for name in ORDER:
            for job in grid.jobs():
                if job.notebook == DISCOVER:
                    shutil.rmtree(folder / job.run, ignore_errors=True)
            grid.lay_out(folder)
            side, *workers = sides[name]
            taken[name].append(timed(side, grid, folder, *workers))
        idle, _ = timed(swept, grid, folder, 1)  # all is done before
    seconds, processors = ({name: round(statistics.median(t[i] for t in times), 1) for name, times in taken.items()} for i in (0, 1))
    figures = {
        "configurations": len(SEEDS),
        "seconds": seconds,
        "seconds of the processors": processors,
        "overhead of the batch layer": round(seconds["1 worker"] / seconds["by hand"] - 1, 3),
        "overhead in seconds of the processors": round(processors["1 worker"] / processors["by hand"] - 1, 3),
        "seconds of a sweep in which all was done before": round(idle, 1),
        "2 workers over 1": round(seconds["1 worker"] / seconds["2 workers"], 2),
    }
    write("sweep", figures)


if __name__ == "__main__":
    main()
