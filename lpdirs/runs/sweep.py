"""Running a grid: its notebooks side by side on a Dask cluster, what is done is not done again, and one that fails stops no other."""

import json
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lpdirs.base.compute import cluster, cores, gpus, keep_memory
from lpdirs.base.errors import UserError
from lpdirs.base.files import only_one
from lpdirs.base.interrupts import on_interrupt
from lpdirs.runs.grid import DISCOVER, Grid, Job
from lpdirs.runs.notebooks import interrupt_kernels, is_done, run_notebook
from lpdirs.runs.stage import run_folder

FULL = ("No space left on device", "the disk is full")
PATIENCE = 60  # seconds that interrupted notebooks get to save


class SweepFailed(UserError):
    """Some configurations failed; the message names them."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended: `error` is "" where it succeeded; `again` is False where it had been done before."""

    name: str
    seconds: float = 0.0
    error: str = ""
    again: bool = True


def do(job: Job, folder: Path, threads: int, *needed: Outcome) -> Outcome:
    """Run a job in this process, unless it is done or one that it needs has failed; a configuration is scored too."""
    for outcome in needed:
        if outcome.error:
            return Outcome(job.name, error=f"not begun, since {outcome.name} failed")
    began, run = time.time(), folder / job.run
    keep_memory()
    os.environ["OMP_NUM_THREADS"] = str(threads)  # of the kernel that papermill starts
    try:
        done = is_done(job.notebook, job.profile, run, job.given, job.seed)
        if not done:
            run_notebook(job.notebook, job.profile, run, job.given, job.seed, bar=False)
        if job.notebook == DISCOVER:
            import torch

            from lpdirs.runs.search import score_run  # here, since who hands out the jobs does without all that it imports

            torch.set_num_threads(threads)
            score_run(run, job.settings.analysis.score_steps, job.seed, trust=True)  # what the grid names
    except (UserError, OSError) as error:
        return Outcome(job.name, time.time() - began, " ".join(str(error).split()))
    return Outcome(job.name, time.time() - began, again=not done)


def sweep(
    grid: Grid, outputs: Path | str, workers: int | None = None, scheduler: str | None = None, report: Callable[[str], None] = print
) -> Path:
    """Run all jobs of the grid into outputs/<grid's name>/ and return that folder.

    On `workers` processes of this machine (default: one a GPU, each of which sees its own alone, or else one a core over the
    grid's threads), or on the Dask cluster at `scheduler`, whose workers must see the folder under the same path. A job whose
    worker dies is begun again elsewhere and resumes from its checkpoint. Raises SweepFailed when some failed, UserError when the
    disk is full, KeyboardInterrupt when it was interrupted; each time the next call goes on.
    """
    if workers is not None and workers < 1:
        raise UserError(f"--workers must be at least 1, not {workers}")
    folder = run_folder(outputs, grid.name).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    hurry = threading.Event()

    def end(times: int) -> None:  # the first ends it, the second is not patient, and none disturbs the ending
        if times == 0:
            raise KeyboardInterrupt
        hurry.set()

    with only_one(folder), on_interrupt(end):
        grid.lay_out(folder)
        return _sweep(grid, folder, workers, scheduler, report, hurry)


def _sweep(
    grid: Grid, folder: Path, workers: int | None, scheduler: str | None, report: Callable[[str], None], hurry: threading.Event
) -> Path:
    jobs, outcomes = grid.jobs(), dict[str, Outcome]()
    devices = gpus()
    count = workers or len(devices) or max(1, cores() // grid.threads)
    with cluster(count, scheduler, devices, always=True) as client:
        assert client is not None
        futures: dict[str, Any] = {}
        for number, job in enumerate(jobs):  # in this order, so that a sweep that is stopped has its first seeds complete
            needed = [futures[name] for name in job.after]
            futures[job.name] = client.submit(do, job, folder, grid.threads, *needed, key=job.name, pure=False, priority=-number)
        board = Board(jobs, folder)
        try:
            while len(outcomes) < len(jobs):
                for name, future in futures.items():
                    if name not in outcomes and future.done():
                        outcomes[name] = _outcome(name, future)
                        board.finished(outcomes[name], report)
                        if any(words in outcomes[name].error for words in FULL):
                            raise UserError(f"the disk is full at {folder} ({name}): free some, then run the same command again")
                board.show(outcomes)
                time.sleep(0.5)
        except BaseException:
            client.cancel([future for name, future in futures.items() if name not in outcomes and name in board.waiting(outcomes)])
            _let_them_save(client, hurry)
            raise
        finally:
            board.close()
    failed = {name: outcome for name, outcome in outcomes.items() if outcome.error}
    if failed:
        raise SweepFailed(
            f"{len(failed)} of {len(jobs)} notebooks did not end well: {', '.join(failed)}; executed as far as they came, they are in "
            f"{folder.name}/<run>/notebooks/; the same command runs these alone again"
        )
    return folder


def _outcome(name: str, future: Any) -> Outcome:
    try:
        return future.result()
    except Exception as error:  # the worker died again and again, or something that no user can mend
        return Outcome(name, error=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _let_them_save(client: Any, hurry: threading.Event) -> None:
    """Interrupt the notebooks that are running, as "Interrupt Kernel" would, and wait until they have saved and ended, or until `hurry`."""
    try:
        client.run(interrupt_kernels)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and any(client.processing().values()) and not hurry.wait(0.2):
            pass
    except (OSError, TimeoutError) as error:
        logging.getLogger(__name__).warning("workers did not answer: %s", error)


class Board:
    """What is seen in the terminal: a bar over the notebooks and a line for each that runs; elsewhere a line for each that ends."""

    def __init__(self, jobs: list[Job], folder: Path):
        self.jobs, self.folder, self.began = jobs, folder, time.time()
        self.live = sys.stderr.isatty()
        self.bar = tqdm(total=len(jobs), desc=folder.name, unit="notebook", disable=not self.live, dynamic_ncols=True)
        self.lines: list[tqdm] = []

    def finished(self, outcome: Outcome, report: Callable[[str], None]) -> None:
        """Count one, and say how it ended."""
        self.bar.update()
        how = f"FAILED: {outcome.error}" if outcome.error else f"{outcome.seconds:.0f} s" if outcome.again else "done before"
        text = f"{outcome.name}: {how}"
        self.bar.write(text) if self.live else report(text)

    def running(self, outcomes: dict) -> dict[str, dict]:
        """What the notebooks that are running say of themselves."""
        said = {}
        for job in self.jobs:
            path = self.folder / job.run / f".{job.notebook}.json"
            if job.name not in outcomes and path.exists() and path.stat().st_mtime > self.began:
                with suppress(ValueError):  # it is being written
                    said[job.name] = json.loads(path.read_text())
        return said

    def waiting(self, outcomes: dict) -> set[str]:
        """Jobs that have not begun."""
        running = self.running(outcomes)
        return {job.name for job in self.jobs if job.name not in outcomes and job.name not in running}

    def show(self, outcomes: dict) -> None:
        """Draw the lines of what is running."""
        if not self.live:
            return
        said = self.running(outcomes)
        room = max(1, shutil.get_terminal_size().lines - 3)
        while len(self.lines) < min(len(said), room):
            self.lines.append(tqdm(total=0, bar_format="{desc}", position=len(self.lines) + 1, leave=False))
        texts = [f"  {name}: {s['doing']}" + (f" {s['done']}/{s['total']}" if s["total"] else "") for name, s in said.items()]
        for line, text in zip(self.lines, texts + [""] * len(self.lines), strict=False):
            line.set_description_str(text[: shutil.get_terminal_size().columns - 1])

    def close(self) -> None:
        """Leave the terminal as it was."""
        for line in self.lines:
            line.close()
        self.bar.close()
