"""What Dask takes of a sweep of 12 configurations with 10 seeds, and what 64 workers would wait for. python -m tests.benchmarks.cluster

Notebooks are replaced by a sleep of one second, so that what is measured is the batch layer alone: its start, and what it adds to each
job, on 1, 2 and 4 workers. From these, and from the seconds that a sweep's notebooks took here (`--sweep`), the time of the same sweep is
computed for more workers. About five minutes.
"""

import argparse
import heapq
import statistics
import tempfile
import time
from pathlib import Path

import lpdirs.runs.sweep
from lpdirs.base.files import read_json
from lpdirs.base.places import workspace
from lpdirs.runs.grid import DISCOVER, Grid, Job
from lpdirs.runs.sweep import Outcome, sweep
from tests.benchmarks.bench import write

SLEEP = 1.0
WORKERS = (1, 2, 4, 16, 64)


def asleep(job: Job, folder: Path, threads: int, *needed: Outcome) -> Outcome:
    """In place of lpdirs.runs.sweep.do."""
    time.sleep(SLEEP)
    return Outcome(job.name, SLEEP)


def twelve_by_ten() -> Grid:
    """Two reconstructors, two bases and three K, on one generator: as many as the paper has on two."""
    of = lambda kind, basis, k: {"reconstructor": kind, "basis": basis, "n_directions": k}
    kinds = [(kind, basis, k) for kind in ("lenet", "resnet18") for basis in ("unit", "orthonormal") for k in (16, 24, 32)]
    configurations = {f"{kind}-{basis}-{k}": of(kind, basis, k) for kind, basis, k in kinds}
    return Grid(
        name="simulated", profile="phantom", configurations=configurations, generators=("gan",), seeds=tuple(range(10)), train="once"
    )


def measured(folder: Path) -> dict[int, float]:
    """Seconds of the whole sweep on each number of workers, its start included."""
    grid, taken = twelve_by_ten(), {}
    real, lpdirs.runs.sweep.do = lpdirs.runs.sweep.do, asleep
    try:
        for workers in (1, 2, 4):
            began = time.perf_counter()
            sweep(grid, folder / str(workers), workers, report=lambda text: None)
            taken[workers] = time.perf_counter() - began
    finally:
        lpdirs.runs.sweep.do = real
    return taken


def kind_of(notebook: str, settings: dict) -> str:
    """What takes alike: a notebook, of searches with their reconstructor."""
    return f"{notebook}, {settings['reconstructor']}" if notebook == DISCOVER else notebook


def seconds_of(folder: Path) -> dict[str, float]:
    """Median seconds of each notebook in the runs of a sweep; of searches those by the paper's method in a GAN, for each reconstructor."""
    taken: dict[str, list[float]] = {}
    for path in folder.glob("*/run.json"):
        for notebook, entry in read_json(path).items():
            search = notebook == DISCOVER
            if "seconds" in entry and (
                not search or (entry["settings"]["method"] == "reconstructor" and path.parent.name.startswith("gan"))
            ):
                taken.setdefault(kind_of(notebook, entry["settings"]), []).append(entry["seconds"])
    return {notebook: statistics.median(values) for notebook, values in taken.items()}


def makespan(jobs: list[Job], seconds: dict[str, float], workers: int, each: float, start: float) -> float:
    """Seconds of the jobs in their order on workers that begin what is ready; each job costs `each` more, and the first `start`."""
    free, ended = [start] * workers, dict[str, float]()
    for job in jobs:
        at = max(heapq.heappop(free), *(ended[name] for name in job.after), 0.0)
        ended[job.name] = at + seconds[kind_of(job.notebook, job.given)] + each
        heapq.heappush(free, ended[job.name])
    return max(ended.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sweep", default="grid_phantom", help="a sweep below outputs/, of whose notebooks the seconds are taken")
    words = parser.parse_args()
    jobs = twelve_by_ten().jobs()
    with tempfile.TemporaryDirectory() as folder:
        taken = measured(Path(folder))
    n = len(jobs)
    # a line through one and two workers: seconds = start + jobs * (sleep + each) / workers
    each = 2 * (taken[1] - taken[2]) / n - SLEEP
    start = max(taken[1] - n * (SLEEP + each), 0.0)
    figures = {
        "what": f"{n} jobs of {SLEEP:g} s: 12 configurations with 10 seeds, data and one generator",
        "seconds": {f"{k} workers": round(v, 1) for k, v in taken.items()},
        "efficiency": {f"{k} workers": round(taken[1] / taken[k] / k, 3) for k in taken},
        "seconds to start": round(start, 2),
        "seconds added to a job": round(each, 3),
    }
    seconds = seconds_of(workspace() / "outputs" / words.sweep)
    kept = workspace() / "outputs" / "reference" / "bench" / "cluster.json"
    if {kind_of(job.notebook, job.given) for job in jobs} <= set(seconds):
        spans = {workers: makespan(jobs, seconds, workers, max(each, 0.0), start) for workers in WORKERS}
        before = max(seconds[job.notebook] for job in jobs if job.notebook != DISCOVER) + seconds[jobs[0].notebook]
        figures["computed for notebooks as they took here"] = {
            "seconds of a notebook": {name: round(value, 1) for name, value in seconds.items()},
            "minutes": {f"{k} workers": round(v / 60, 1) for k, v in spans.items()},
            "efficiency": {f"{k} workers": round(spans[1] / v / k, 3) for k, v in spans.items()},
            "seconds before the first search can begin": round(before, 1),
        }
    else:
        print(f"outputs/{words.sweep} holds no whole sweep: what more workers would take stays as it was computed before")
        before = read_json(kept) if kept.exists() else {}
        figures |= {key: value for key, value in before.items() if key.startswith("computed")}
    write("cluster", figures)


if __name__ == "__main__":
    main()
