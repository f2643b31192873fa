"""Running the notebooks with papermill, one after the other; what is done is not done again."""

import ast
import json
import logging
import os
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from IPython.core.inputtransformer2 import TransformerManager

from lpdirs.base.code import fingerprint_of_code
from lpdirs.base.errors import UserError, optional
from lpdirs.base.files import only_one, why_not_written, write_atomic
from lpdirs.base.interrupts import on_interrupt
from lpdirs.base.places import clone, home
from lpdirs.data.folder import find_files
from lpdirs.data.private import where
from lpdirs.runs.own import files_beside, is_factory, make_measures
from lpdirs.runs.records import changed_files, digest_of_text, files_in, log_executed, read_log, read_notebook
from lpdirs.runs.settings import COMMON, SAMPLE, TRAINED, check_inputs, resolve, with_hidden_paths
from lpdirs.runs.stage import OWN, READS, notebooks_of, run_folder

HUGE = 10**9  # bytes of a file beyond which its digest is not worth waiting for at each call; the notebooks look at it
HOW = ("workers", "scheduler")  # settings that no result depends on
ABOUT_THE_DEMO = "About the run that comes with the project: this one has other data or settings, and its own numbers are in the outputs."


class NotebookFailed(UserError):
    """A notebook stopped; the message names the cell, the error and the file to open."""


def parameter_names(notebook: Path) -> list[str]:
    """The parameters that a notebook declares; without papermill, whose import alone takes longer than a run that is done."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    return [line.target.id for line in ast.parse("\n".join(sources)).body if isinstance(line, ast.AnnAssign)]  # type: ignore[union-attr]


def run_notebooks(
    profile: str,
    run: str,
    given: Mapping[str, Any],
    seed: int = 0,
    outputs: str | Path = "outputs",
    again: bool = False,
    names: Iterable[str] | None = None,
) -> Path:
    """Run 01 to 06 (04 to 06 where all generators are the user's own), or those in `names`, into outputs/<run>/ and return that folder.

    `given` overrides settings of the profile, under their flat names; all are checked before any work. A notebook of which nothing has
    changed (`key`) since it finished is not run again unless `again`. Raises NotebookFailed at the first that fails.
    """
    given = with_hidden_paths(given)
    settings = resolve(profile, given)
    check_inputs(settings)
    if settings.choice.measures is not None and is_factory(settings.choice.measures):
        make_measures(settings.choice.measures)  # what is wrong with them is said before any training
    folder = run_folder(outputs, run).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with only_one(folder):
        for name in names or notebooks_of(settings):
            if not again and is_done(name, profile, folder, given, seed):
                print(f"{name}: done before")
            else:
                print(f"{name}:", flush=True)
                run_notebook(name, profile, folder, given, seed)
    return folder


def run_notebook(name: str, profile: str, folder: Path, given: Mapping[str, Any], seed: int = 0, bar: bool = True) -> None:
    """Run one notebook into the run at `folder`; the executed one is folder/notebooks/<name>.ipynb, with its red cell if it fails."""
    papermill = optional("papermill", "notebooks")
    import nbformat
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    source, target = source_of(name), folder.resolve() / "notebooks" / f"{name}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # of the kernel: keeps out a notice of its debugger
    logging.getLogger("papermill").setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it tells of kernels that end when they were told to
    parameters = {"profile": profile, "run": folder.name, "outputs": str(folder.resolve().parent), "seed": seed}
    parameters |= {n: given[n] for n in _settings_of(source) if given.get(n) is not None}
    stamp = key(name, profile, folder, given, seed)
    try:
        with _let_it_save() as may_go_on:
            papermill.execute_notebook(
                str(source),
                str(target),
                parameters=parameters,
                cwd=str(source.parent if clone() else Path.cwd()),
                kernel_name="python3",
                extra_arguments=["--IPKernelApp.log_level=50"],
                progress_bar=bar,
                on_cell_start=may_go_on,
            )
    except PapermillExecutionError as error:
        if error.ename == "KeyboardInterrupt" and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt from None
        line = " ".join(str(error.evalue).split())
        raise NotebookFailed(f"{name}, cell {error.exec_count}: {error.ename}: {line} (executed so far: {target})") from None
    except (OSError, nbformat.validator.NotebookValidationError) as error:
        reason = why_not_written(target.parent, error)
        raise NotebookFailed(f"{name}: {target} cannot be written: {reason}" if reason else f"{name}: {error}") from None
    except (DeadKernelError, RuntimeError) as error:
        may_go_on()  # Ctrl-C ends a kernel that is only starting
        if isinstance(error, RuntimeError) and not str(error).startswith("Kernel died"):
            raise
        raise NotebookFailed(
            f"{name}: its kernel ended without a word (executed so far: {target}): it was ended from outside, or memory ran out; what was "
            f"saved is kept, and the same command goes on. If it happens again, give it more memory, or set batch sizes down"
        ) from None
    notebook = nbformat.read(target, 4)
    notebook.metadata["lpdirs_key"] = stamp
    if (profile, folder.name, seed) != ("demo", "demo", 0) or any(given[n] is not None for n in given.keys() - {*HOW}):
        _say_whose(notebook)
    notebook.metadata.get("papermill", {}).update(input_path=source.name, output_path=target.name)
    where = json.dumps(str(folder.resolve().parent))[1:-1]  # may be named after anyone, as home folders are
    text = nbformat.writes(notebook).replace(where, "outputs").replace(json.dumps(where)[1:-1], "outputs")
    for factory in (*(given.get("generators") or ()), given.get("measures")):  # warnings name the files that they come from
        for path in files_beside(factory)[:1] if isinstance(factory, str) and is_factory(factory) else ():
            text = text.replace(json.dumps(str(path.parent))[1:-1], "own")
    write_atomic(target, text)
    log_executed(folder, name)


def _say_whose(notebook: Any) -> None:
    """Words about the run that comes with the project, in cells that are tagged "demo", say so in any other run."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and "demo" in cell.metadata.get("tags", []):
            head, line, rest = cell.source.partition("\n") if cell.source.startswith("#") else ("", "", cell.source)
            cell.source = f"{head}{line}\n> {ABOUT_THE_DEMO}\n\n{rest.lstrip()}"


@contextmanager
def _let_it_save() -> Iterator[Callable[..., None]]:
    """While a notebook runs, the first Ctrl-C, `kill` or closed terminal interrupts its kernel, which saves and ends its cell; the second
    ends all at once. Yields what is called before each cell, and stops there where the kernel had nothing to interrupt."""
    asked: list[int] = []

    def ask(times: int) -> None:
        asked.append(times)
        if times:
            raise KeyboardInterrupt
        interrupt_kernels()

    def may_go_on(**_: object) -> None:
        if asked:
            raise KeyboardInterrupt

    with on_interrupt(ask):  # a worker's notebooks are interrupted by the sweep
        yield may_go_on
    may_go_on()


def interrupt_kernels() -> None:
    """Interrupt the notebooks that this process runs, as "Interrupt Kernel" would."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if any("ipykernel" in word for word in child.cmdline()):
                child.send_signal(signal.SIGINT)


def is_done(name: str, profile: str, folder: Path, given: Mapping[str, Any], seed: int = 0) -> bool:
    """Whether the notebook finished in that run, all that it wrote is whole, and nothing that it depends on has changed since."""
    executed = read_notebook(folder / "notebooks" / f"{name}.ipynb")
    stamp, entry = executed.get("metadata", {}).get("lpdirs_key"), read_log(folder).get(name, {})  # what cannot be read is not done
    whole = bool(entry.get("files")) and not changed_files(folder, entry, HUGE)
    return stamp is not None and whole and stamp == key(name, profile, folder, given, seed)


def key(name: str, profile: str, folder: Path, given: Mapping[str, Any], seed: int) -> str:
    """A hash of all that an executed notebook's results depend on: whether a result is stale is asked here and nowhere else.

    Its cells, the package's code that they import, the settings that it declares, the seed, and what it reads: the files of earlier
    notebooks by their digests in run.json, and for the first one the folder of DICOM or the cohort, by names, sizes and times.
    """
    source = source_of(name)
    values, cells = resolve(profile, given).flat(), code_of(source)
    content = [cells, fingerprint_of_code("\n".join(cells)), {n: values[n] for n in _settings_of(source) if n not in HOW}, profile, seed]
    content.append(_read_by(name, folder, values["generators"]) if name in READS else _input(values, folder))
    factories = [f for f in (*values["generators"], values["measures"]) if f is not None and is_factory(f)] if name in OWN else []
    content.append([[f, _rows(None, files_beside(f))] for f in factories])
    own = Path(values["method"].rpartition(":")[0])
    content.append(_rows(None, [own] if name in OWN and own.suffix == ".py" else []))
    return digest_of_text(content)


def _read_by(name: str, folder: Path, generators: Sequence[str]) -> dict[str, str]:
    """The files of earlier notebooks that a notebook reads, with their digests."""
    parts = [part for part in READS[name] if part not in TRAINED or part in generators]
    return {path: was for path, was in files_in(folder, parts, HUGE).items() if "/chance/" not in path and not path.endswith("scores.json")}


def source_of(name: str) -> Path:
    """The notebook that comes with the project."""
    return home() / "notebooks" / f"{name}.ipynb"


def code_of(notebook: Path) -> list[str]:
    """The code cells of a notebook, IPython's magics as the Python that they stand for."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return [TransformerManager().transform_cell(source) if re.search(r"^\s*[%!?]", source, re.M) else source for source in sources]


def _input(values: Mapping[str, Any], folder: Path) -> list:
    """What the data set is made of: the cohort's manifest, or names, sizes and times of all files that are not of the run itself."""
    if values["data_dir"] is None and values["cohort"] == SAMPLE:
        return [(home() / "data_manifests" / SAMPLE / "slices.csv").read_text(encoding="utf-8")]
    if values["data_dir"] is None:
        return [(home() / "data_manifests" / f"{values['cohort']}.json").read_text(encoding="utf-8")]
    source = where(values["data_dir"])
    return _rows(source, [path for path in find_files(source) if folder.resolve() not in path.resolve().parents])


def _rows(folder: Path | None, paths: list[Path]) -> list:
    """Names, sizes and times of files, also of when the system last saw them change."""
    name = lambda path: path.name if folder is None else path.relative_to(folder).as_posix()
    stats = [(name(path), path.stat()) for path in paths if path.is_file()]
    return [[name.encode(errors="surrogateescape").hex(), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for name, stat in stats]


def _settings_of(notebook: Path) -> list[str]:
    return [name for name in parameter_names(notebook) if name not in COMMON]
