"""What the batch layer costs over running the notebooks by hand, and what two workers bring. python -m tests.benchmarks.sweep"""

import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from lpdirs.pipeline.grid import DISCOVER, Grid
from lpdirs.pipeline.notebooks import run_notebook
from lpdirs.pipeline.scoring import score_run
from lpdirs.pipeline.sweep import sweep
from lpdirs.runs import project_root, resolve
from tests.benchmarks.bench import write

STEPS = 800  # of discovery: a configuration then takes about a minute, as short as anyone's will be


def main(rounds: int = 2) -> None:
    grid = Grid.read(project_root() / "notebooks" / "profiles" / "grid_smoke.yaml", {"direction_steps": STEPS})
    grid = replace(grid, generators=["gan"], seeds=[0, 1], train="once", configurations={"lenet-unit-6": {}})
    jobs = [job for job in grid.jobs() if job.notebook == DISCOVER]
    with tempfile.TemporaryDirectory() as temporary:
        folder, taken = Path(temporary) / grid.name, {"by hand": [], "sweep, 1 worker": [], "sweep, 2 workers": []}
        sweep(replace(grid, configurations={}), folder.parent, 1)  # data and generator, for all alike

        def by_hand() -> None:
            for job in jobs:
                run_notebook(job.notebook, job.profile, folder / job.run, job.given, job.seed, job.before, bar=False)
                score_run(folder / job.run, resolve(job.profile, job.given)["score_steps"], job.seed)

        sides = {
            "by hand": by_hand,
            "sweep, 1 worker": lambda: sweep(grid, folder.parent, 1),
            "sweep, 2 workers": lambda: sweep(grid, folder.parent, 2),
        }
        for _ in range(rounds):
            for name, side in sides.items():
                for job in jobs:
                    shutil.rmtree(folder / job.run, ignore_errors=True)
                grid.lay_out(folder)
                began = time.perf_counter()
                side()
                taken[name].append(time.perf_counter() - began)
    seconds = {name: round(statistics.median(values), 1) for name, values in taken.items()}
    hand, one, two = seconds.values()
    figures = {
        "seconds for 2 configurations": seconds,
        "overhead of the batch layer": round(one / hand - 1, 3),
        "2 workers over 1": round(one / two, 2),
    }
    write("sweep", figures)


if __name__ == "__main__":
    main()
