"""Running the notebooks with papermill, one after the other; what is done is not done again."""

import hashlib
import json
import logging
import os
from pathlib import Path

import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError

from lpdirs.errors import UserError
from lpdirs.runs import COMMON, NOTEBOOKS, project_root, resolve


class NotebookFailed(UserError):
    """A notebook stopped; the message names the cell, the error and the file to open."""


def parameter_names(notebook: Path) -> list[str]:
    """The parameters that a notebook declares."""
    return list(papermill.inspect_notebook(str(notebook)))


def run_notebooks(profile: str, run: str, given: dict, seed: int = 0, outputs: str = "outputs", again: bool = False) -> Path:
    """Run 01 to 06 into outputs/<run>/ and return that folder.

    `given` overrides settings of the profile, under the names of the notebooks' parameters. A notebook that finished with the
    same settings, source and predecessors is not run again unless `again`. Raises NotebookFailed at the first that fails.
    """
    settings = resolve(profile, given)
    root = project_root()
    folder = (root / outputs / run).resolve()
    executed = folder / "notebooks"
    executed.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    logging.getLogger("papermill").setLevel(logging.ERROR)
    before = ""
    for name in NOTEBOOKS:
        source, target = root / "notebooks" / f"{name}.ipynb", executed / f"{name}.ipynb"
        names = [n for n in parameter_names(source) if n not in COMMON]
        parameters = {"profile": profile, "run": run, "outputs": str(root / outputs), "seed": seed}
        parameters |= {n: given[n] for n in names if given.get(n) is not None}
        key = _key(source, {n: settings[n] for n in names}, profile, seed, before)
        before = key
        if not again and _key_of(target) == key:
            print(f"{name}: done before")
            continue
        print(f"{name}:", flush=True)
        try:
            papermill.execute_notebook(
                str(source),
                str(target),
                parameters=parameters,
                cwd=str(root / "notebooks"),
                kernel_name="python3",
                extra_arguments=["--IPKernelApp.log_level=ERROR"],
            )
        except PapermillExecutionError as error:
            line = " ".join(str(error.evalue).split())
            raise NotebookFailed(f"{name}, cell {error.exec_count}: {error.ename}: {line} (executed so far: {target})") from None
        _stamp(target, key)
    return folder


def _key(notebook: Path, settings: dict, profile: str, seed: int, before: str) -> str:
    code = [cell.source for cell in nbformat.read(notebook, 4).cells]
    return hashlib.sha256(json.dumps([code, settings, profile, seed, before]).encode()).hexdigest()[:16]


def _key_of(executed: Path) -> str | None:
    return nbformat.read(executed, 4).metadata.get("lpdirs_key") if executed.exists() else None


def _stamp(executed: Path, key: str) -> None:
    notebook = nbformat.read(executed, 4)
    notebook.metadata["lpdirs_key"] = key
    nbformat.write(notebook, executed)
