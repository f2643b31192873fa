"""Regenerating what is committed of the notebooks: `make parameters`, `make notebooks` and `make reference`."""

import ast
import sys
from base64 import b64decode, b64encode
from pathlib import Path

import nbformat
import papermill

from lpdirs.base.code import fingerprint_of_code
from lpdirs.runs.notebooks import code_of
from lpdirs.runs.settings import COMMON, parameter_line
from lpdirs.runs.stage import NOTEBOOKS
from lpdirs.show.plots import light

ROOT = Path(__file__).parent.parent.parent
REFERENCE = ROOT / "tests" / "notebooks" / "reference"
KEPT_METADATA = ("kernelspec", "language_info")


def sources(path: Path) -> dict[str, object]:
    """What a notebook's outputs depend on: its code cells, and the package's code that they import, as a hash each."""
    cells = code_of(path)
    return {"cells": fingerprint(cells), "code": fingerprint_of_code("\n".join(cells))}


def fingerprint(cells: list[str]) -> str:
    """A hash of code cells; comments and layout do not count."""
    import hashlib

    return hashlib.sha256(ast.dump(ast.parse("\n".join(cells))).encode()).hexdigest()[:16]


def execute(source: Path, target: Path, parameters: dict | None, images: bool) -> None:
    """Run `source` into `target` and keep of it what a reader or nbval needs: no timings, no widget state, no machine paths."""
    papermill.execute_notebook(
        str(source), str(target), parameters=parameters, cwd=str(source.parent), kernel_name="python3",
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )  # fmt: skip
    notebook = nbformat.read(target, 4)
    notebook.metadata = {k: v for k, v in notebook.metadata.items() if k in KEPT_METADATA} | {"lpdirs": sources(source)}
    for cell in notebook.cells:
        cell.metadata = {k: v for k, v in cell.metadata.items() if k == "tags" and v}
        if "parameters" in cell.metadata.get("tags", []):
            cell.metadata["jupyter"] = {"source_hidden": True}  # folded in JupyterLab
        for output in cell.get("outputs", []):
            output.get("metadata", {}).clear()
            for picture in ("image/png", "image/jpeg", "image/gif"):
                if not images:
                    output.get("data", {}).pop(picture, None)
            if "image/png" in output.get("data", {}):
                output["data"]["image/png"] = b64encode(light(b64decode(output["data"]["image/png"]))).decode()
    nbformat.write(notebook, target)


def parameters(path: Path) -> str:
    """The parameters cell of a notebook as it should be: the same names, each with what it is and its default."""
    notebook = nbformat.read(path, 4)
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    lines = cell.source.splitlines()
    names = [node.target.id for node in ast.parse(cell.source).body]
    return "\n".join(lines[: len(COMMON)] + [parameter_line(name) for name in names[len(COMMON) :]])


def main(what: str, *names: str) -> None:
    """`parameters`: rewrite the parameters cells; `notebooks`: execute in place, the demo profile; `reference`: smoke profile, into
    tests/notebooks/reference. All notebooks, or those named."""
    for name in names or NOTEBOOKS:
        source = ROOT / "notebooks" / f"{name}.ipynb"
        if what == "parameters":
            notebook = nbformat.read(source, 4)
            (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
            cell.source = parameters(source)
            nbformat.write(notebook, source)
        elif what == "notebooks":
            execute(source, source, None, images=True)
        else:
            REFERENCE.mkdir(parents=True, exist_ok=True)
            execute(source, REFERENCE / source.name, {"profile": "smoke", "run": "nbval"}, images=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
