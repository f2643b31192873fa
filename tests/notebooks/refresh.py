"""Regenerating the notebooks that are committed: `make notebooks` and `make reference`."""

import sys
from pathlib import Path

import nbformat
import papermill

from lpdirs.runs.stage import NOTEBOOKS, project_root

KEPT_METADATA = ("kernelspec", "language_info")


def execute(source: Path, target: Path, parameters: dict | None, images: bool) -> None:
    """Run `source` into `target` and keep of it what a reader or nbval needs: no timings, no widget state, no machine paths."""
    papermill.execute_notebook(
        str(source), str(target), parameters=parameters, cwd=str(source.parent), kernel_name="python3",
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )  # fmt: skip
    notebook = nbformat.read(target, 4)
    notebook.metadata = {k: v for k, v in notebook.metadata.items() if k in KEPT_METADATA}
    for cell in notebook.cells:
        cell.metadata = {k: v for k, v in cell.metadata.items() if k == "tags" and v}
        for output in cell.get("outputs", []):
            output.get("metadata", {}).clear()
            for picture in ("image/png", "image/gif"):
                if not images:
                    output.get("data", {}).pop(picture, None)
    nbformat.write(notebook, target)


def main(what: str, *names: str) -> None:
    """`notebooks`: in place, the demo profile; `reference`: smoke profile, into tests/notebooks/reference. All, or those named."""
    root = project_root()
    for name in names or NOTEBOOKS:
        source = root / "notebooks" / f"{name}.ipynb"
        if what == "notebooks":
            execute(source, source, None, images=True)
        else:
            target = root / "tests" / "notebooks" / "reference" / f"{name}.ipynb"
            target.parent.mkdir(parents=True, exist_ok=True)
            execute(source, target, {"profile": "smoke", "run": "nbval"}, images=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
