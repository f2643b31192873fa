"""What a user waits for at the door: the command line, a run that is done, the explorer. python -m tests.benchmarks.door

Each is the median of three. Without a Chromium the browser is left out.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lpdirs.runs.notebooks import run_notebook
from tests.benchmarks.bench import write
from tests.browser import has_browser, jupyter_lab, page, run_all
from tests.conftest import ROOT


def median_of_three(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return round(statistics.median(taken), 2)


def command(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "lpdirs", *words], cwd=ROOT, check=True, capture_output=True)


def run_all_to_pictures() -> float:
    """Seconds from the menu's Run All to the pictures of notebooks/explore.ipynb, in a kernel that has just begun."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("lpdirs", "outputs", "data_manifests", "pyproject.toml"):
            os.symlink(ROOT / name, Path(folder) / name)
        shutil.copytree(ROOT / "notebooks", Path(folder) / "notebooks")
        shutil.copy(ROOT / "notebooks" / "explore.ipynb", Path(folder) / "explore.ipynb")
        with jupyter_lab(Path(folder), None) as address, page() as tab:
            return run_all(tab, address)


MAKE = """import lpdirs as lp
from tests.benchmarks.growth import generator_of, measures

make = lambda: lp.as_generator(generator_of({latent_dim}), {latent_dim}, measures=measures())
"""


def notebook_04(latent_dim: int) -> float:
    """Seconds of the search, its responses and its random directions, with the phantom profile's settings, on a generator of one's own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "generator.py"
        file.write_text(MAKE.format(latent_dim=latent_dim))
        began = time.perf_counter()
        run_notebook("04_discover_directions", "phantom", Path(folder) / "run", {"generators": [f"{file}:make"]}, bar=False)
        return time.perf_counter() - began


def main() -> None:
    figures = {"python -m lpdirs --help": median_of_three(lambda: command("--help"))}
    with tempfile.TemporaryDirectory() as outputs:
        run = ("run", "--profile", "smoke", "--outputs", outputs)
        command(*run)
        figures["python -m lpdirs run a second time, smoke"] = median_of_three(lambda: command(*run))
    for latent_dim in (32, 512):
        figures[f"notebook 04, K = 32, latent_dim = {latent_dim}"] = round(notebook_04(latent_dim), 1)
    if has_browser():
        figures["Run All of explore.ipynb to pictures"] = round(statistics.median(run_all_to_pictures() for _ in range(3)), 2)
    write("door", {"what": "seconds", **figures})


if __name__ == "__main__":
    main()
