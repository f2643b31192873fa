"""Running the notebooks with papermill, one after the other; what is done is not done again."""

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path

import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError

from lpdirs.cluster import KEEP_MEMORY
from lpdirs.errors import UserError
from lpdirs.runs import COMMON, SINGLE, project_root, resolve


class NotebookFailed(UserError):
    """A notebook stopped; the message names the cell, the error and the file to open."""


def parameter_names(notebook: Path) -> list[str]:
    """The parameters that a notebook declares."""
    return list(papermill.inspect_notebook(str(notebook)))


def run_notebooks(
    profile: str, run: str, given: dict, seed: int = 0, outputs: str = "outputs", again: bool = False, names: Iterable[str] = SINGLE
) -> Path:
    """Run 01 to 06, or those in `names`, into outputs/<run>/ and return that folder.

    `given` overrides settings of the profile, under the names of the notebooks' parameters. A notebook that finished with the
    same settings, source and predecessors is not run again unless `again`. Raises NotebookFailed at the first that fails.
    """
    outputs, before = project_root() / outputs, ""
    for name in names:
        if not again and is_done(name, profile, outputs / run, given, seed, before):
            print(f"{name}: done before")
        else:
            print(f"{name}:", flush=True)
            run_notebook(name, profile, outputs / run, given, seed, before)
        before = key(name, profile, given, seed, before)
    return (outputs / run).resolve()


def run_notebook(name: str, profile: str, folder: Path, given: dict, seed: int = 0, before: str = "", bar: bool = True) -> None:
    """Run one notebook into the run at `folder`; the executed one is folder/notebooks/<name>.ipynb, with its red cell if it fails."""
    root = project_root()
    source, target = root / "notebooks" / f"{name}.ipynb", folder.resolve() / "notebooks" / f"{name}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    os.environ.update(KEEP_MEMORY, PYDEVD_DISABLE_FILE_VALIDATION="1")  # of the kernel; the latter keeps out a notice of its debugger
    logging.getLogger("papermill").setLevel(logging.ERROR)
    parameters = {"profile": profile, "run": folder.name, "outputs": str(folder.resolve().parent), "seed": seed}
    parameters |= {n: given[n] for n in _settings_of(source) if given.get(n) is not None}
    stamp = key(name, profile, given, seed, before)
    try:
        papermill.execute_notebook(
            str(source),
            str(target),
            parameters=parameters,
            cwd=str(root / "notebooks"),
            kernel_name="python3",
            extra_arguments=["--IPKernelApp.log_level=50"],
            progress_bar=bar,
        )
    except PapermillExecutionError as error:
        line = " ".join(str(error.evalue).split())
        raise NotebookFailed(f"{name}, cell {error.exec_count}: {error.ename}: {line} (executed so far: {target})") from None
    notebook = nbformat.read(target, 4)
    notebook.metadata["lpdirs_key"] = stamp
    nbformat.write(notebook, target)


def is_done(name: str, profile: str, folder: Path, given: dict, seed: int = 0, before: str = "") -> bool:
    """Whether the notebook finished in that run with the same settings, source and predecessors."""
    executed = folder / "notebooks" / f"{name}.ipynb"
    return executed.exists() and nbformat.read(executed, 4).metadata.get("lpdirs_key") == key(name, profile, given, seed, before)


def key(name: str, profile: str, given: dict, seed: int, before: str) -> str:
    """A hash of all that an executed notebook's results depend on: code, settings, seed, and `before`, that of its predecessor."""
    source = project_root() / "notebooks" / f"{name}.ipynb"
    settings = resolve(profile, given)
    code = [cell.source for cell in nbformat.read(source, 4).cells if cell.cell_type == "code"]
    content = [code, {n: settings[n] for n in _settings_of(source)}, profile, seed, before]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _settings_of(notebook: Path) -> list[str]:
    return [name for name in parameter_names(notebook) if name not in COMMON]
