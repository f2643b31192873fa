"""A stage: one notebook of one run, its settings, its folder, and the files of earlier notebooks."""

import ast
import io
import re
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import torch
from IPython.display import Markdown, display

from lpdirs.base.compute import keep_memory, threads
from lpdirs.base.errors import MissingInput, UserError
from lpdirs.base.files import alone, check_name
from lpdirs.base.places import home, workspace
from lpdirs.base.progress import in_kernel, note, note_to
from lpdirs.runs.records import changed_files, entry_of, read_log, write_log
from lpdirs.runs.settings import (
    COMMON,
    PLACES,
    TRAINED,
    RunSettings,
    check_inputs,
    help_of,
    in_yaml,
    load_profile,
    resolve,
    with_hidden_paths,
)
from lpdirs.show.plots import light

NOTEBOOKS = {  # notebook: the folder of a run that it writes first
    "01_data_preparation": "data",
    "02_train_gan": "gan",
    "03_train_vae": "vae",
    "04_discover_directions": "directions",
    "05_qualitative_analysis": "analysis",
    "06_quantitative_analysis": "analysis",
    "07_compare_runs": "comparison",  # of a sweep's folder, which holds runs
    "08_your_own_generator": "own",
}
WAITING = "*The answer of this run stands here once the notebook has run to its end.*"
REPORT = "report"  # in run.json beside the notebooks
SINGLE = tuple(NOTEBOOKS)[:6]  # what one run consists of
OF_RUN = ("generators", "measures", "response_samples", "response_shifts", "steering_samples")  # settings that readers of a run need
OWN = SINGLE[3:]  # of which a run consists that trains no generator
WRITES_TOO = {"04_discover_directions": ("own",)}  # notebook: what else it writes, ways to make the user's own generators
READS = {  # notebook: the folders of the run whose files it reads
    "02_train_gan": ("data",),
    "03_train_vae": ("data",),
    "04_discover_directions": ("data", "gan", "vae"),
    "05_qualitative_analysis": ("data", "gan", "vae", "directions"),
    "06_quantitative_analysis": ("data", "gan", "vae", "directions"),
}


@dataclass(repr=False)
class Stage:
    """`folder` is the run's; `given` are the flat names of this notebook's settings, with the values that it was given or None."""

    notebook: str
    profile: str
    folder: Path
    seed: int
    settings: RunSettings
    given: dict[str, Any]
    began: float
    trust: bool = True  # whether functions that the run names, and not the user, may be called
    room: tuple[Any, ...] = ()  # below the notebook's title, for its answer and its picture

    @property
    def own(self) -> Path:
        """The folder that this notebook writes."""
        path = self.folder / NOTEBOOKS[self.notebook]
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def device(self) -> str:
        """The device of the settings, where "auto" is the GPU if there is one."""
        return self.settings.machine.chosen

    def need(self, relative: str) -> Path:
        """A file that an earlier notebook writes; MissingInput says which if it is not there."""
        path = self.folder / relative
        if not path.exists():
            writer = next((n for n, part in NOTEBOOKS.items() if relative.split("/")[0] == part), "01_data_preparation")
            raise MissingInput(
                f"{self.folder.name}/{relative} is missing: run notebooks/{writer}.ipynb with run = {self.folder.name!r} first"
            )
        return path

    def done(self, answer: str, picture: Any = None, **results: object) -> None:
        """Write the stage into run.json: settings, seconds, memory, results, fingerprints of its files, versions, git revision; and the
        `answer` to the notebook's question, in Markdown, which is shown below its title with the figure `picture`."""
        values = self.settings.flat()
        if self.room:
            words, view = self.room
            words.update(Markdown(f"**Answer of this run.** {answer}"))
            if picture is not None:
                view.update({"text/plain": "", "image/png": _small(picture)}, raw=True)
        entry = {
            "profile": self.profile,
            "seed": self.seed,
            "settings": {k: values[k] for k in self.given},
            "device": self.device,
            "results": results,
            "answer": answer,
        }
        with alone(self.folder):  # GAN and VAE may end at the same moment
            log = read_log(self.folder)
            entry |= entry_of(self.began, self.folder, self.notebook, parts_of(self.notebook), log)
            write_log(self.folder, log | {self.notebook: entry})
        note("finished", 1, 1)

    def __repr__(self) -> str:
        return f"{self.notebook}, run {self.folder.name}, profile {self.profile}, seed {self.seed}"

    def _repr_html_(self) -> str:
        values, of_profile = self.settings.flat(), load_profile(self.profile)
        rows = ""
        for name, value in self.given.items():
            origin = "this notebook" if value is not None else self.profile if name in of_profile else "default"
            cells = (name, in_yaml(values[name]), origin, help_of(name)[1])
            rows += "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>"
        return f"<table><thead><tr><th>setting</th><th>value</th><th>from</th><th></th></tr></thead><tbody>{rows}</tbody></table>"


def _small(figure: Any) -> str:
    """A figure as PNG, 900 px wide, in base64."""
    file = io.BytesIO()
    figure.savefig(file, dpi=900 / figure.get_figwidth())
    return b64encode(light(file.getvalue())).decode()


def parts_of(notebook: str) -> tuple[str, ...]:
    """The folders of a run that a notebook writes."""
    return NOTEBOOKS[notebook], *WRITES_TOO.get(notebook, ())


def notebooks_of(settings: RunSettings) -> tuple[str, ...]:
    """What a run with these settings consists of."""
    return SINGLE if set(settings.choice.generators) & set(TRAINED) else OWN


def start(notebook: str, names: dict[str, Any]) -> Stage:
    """Begin a notebook: `names` is its locals(), of which the parameters are read. Settings that are None are the profile's.

    Functions that make the user's own generators and measures are called where these settings name them, and not where the run alone does.
    """
    keep_memory()
    _refuse_unknown(names)
    given = with_hidden_paths({k: names[k] for k in PLACES if k in names})
    settings, seed = resolve(names["profile"], given), check_seed(names["seed"])
    hidden = with_hidden_paths({name: settings.flat()[name] for name in ("data_dir", "generators", "measures")})  # a profile's too
    settings = settings.but(
        source=settings.source.but(data_dir=hidden["data_dir"]),
        choice=settings.choice.but(generators=tuple(hidden["generators"]), measures=hidden["measures"]),
    )
    if notebook == "01_data_preparation":
        check_inputs(settings)
    folder = run_folder(names["outputs"], names["run"])
    folder.mkdir(parents=True, exist_ok=True)
    check_whole(folder, notebook, settings)
    torch.set_num_threads(threads())
    note_to(folder / f".{notebook}.json")
    room = (display(Markdown(WAITING), display_id=True), display({"text/plain": ""}, display_id=True, raw=True)) if in_kernel() else ()
    return Stage(notebook, names["profile"], folder, seed, with_seed(settings, seed), given, time.time(), room=room)


def check_whole(folder: Path, notebook: str, settings: RunSettings) -> None:
    """UserError where a file that a notebook reads is not what an earlier one wrote: what is damaged is never built upon."""
    parts = {part for part in READS.get(notebook, ()) if part not in TRAINED or part in settings.choice.generators}
    for part in sorted(parts):
        where = (folder / part).resolve().parent  # in a sweep data and generators are links to the run that made them
        writers = [name for name, its in NOTEBOOKS.items() if its == part]
        log = read_log(where)
        if (folder / part).exists() and not any(name in log for name in writers):
            raise UserError(
                f"{folder.name}/run.json says nothing of {part}/, so that nobody knows whether it is whole: run "
                f"notebooks/{writers[0]}.ipynb to its end, with run = {folder.name!r}"
            )
        for name in writers:
            entry = log.get(name, {})
            bad = [path for path in changed_files(where, entry) if (where / path).exists()]  # what is missing is said by `need`
            if bad:
                raise UserError(
                    f"{folder.name}/{bad[0]} is not what {name} wrote (damaged, or changed since): run notebooks/{name}.ipynb to its end "
                    f"again, with run = {folder.name!r}"
                )


def run_folder(outputs: str | Path, run: object) -> Path:
    """Where a run lies: in `outputs`, which is relative to the clone; UserError unless `run` is a plain name."""
    if not isinstance(outputs, str | Path) or "\0" in str(outputs) or not str(outputs):
        raise UserError(f"outputs must be a folder's name, not {outputs!r}")
    return workspace() / outputs / check_name(run)  # an absolute path stays as it is


def check_seed(value: object) -> int:
    """A seed as a whole number from 0; UserError otherwise."""
    if isinstance(value, bool) or not re.fullmatch("[0-9]{1,10}", str(value)) or int(str(value)) >= 2**31:
        raise UserError(f"seed must be a whole number from 0 to 2147483647, not {value!r}")
    return int(str(value))


def with_seed(settings: RunSettings, seed: int) -> RunSettings:
    """The same settings with `seed` in those that draw random numbers."""
    return settings.but(**{name: getattr(settings, name).but(seed=seed) for name in ("gan", "vae", "discovery")})


def open_run(run: str | Path, outputs: str | Path = "outputs", trust: bool = False) -> Stage:
    """A run to read from: a folder, or that of outputs/<run>/ or, where there is none, of outputs/reference/<run>/, which comes with
    the project. Functions that it names are called with `trust` alone. MissingInput says which runs there are."""
    root = workspace() / outputs
    places = [Path(run)] if Path(run).is_absolute() or len(Path(run).parts) > 1 else [root / run, root / "reference" / run]
    places += [home() / "outputs" / "reference" / run] if len(Path(run).parts) == 1 else []
    folder = next((place for place in places if (place / "directions").is_dir()), None)
    if folder is None:
        runs = sorted({path.parent.name for place in (root, root / "reference") for path in place.glob("*/directions")})
        raise MissingInput(
            f"there is no run {str(run)!r} with directions in {root.name}: there are {', '.join(runs) or 'none yet'}; "
            f"make it with python -m lpdirs run --run {Path(run).name}"
        )
    log = read_log(folder)
    entries: list[dict[str, Any]] = [entry for entry in log.values() if "profile" in entry]  # a report has none
    profile, seed = (str(entries[-1]["profile"]), check_seed(entries[-1].get("seed", 0))) if entries else ("phantom", 0)
    known = {name: value for entry in entries for name, value in entry.get("settings", {}).items() if name in OF_RUN}
    settings = with_seed(resolve(profile, known), seed)
    return Stage("05_qualitative_analysis", profile, folder, seed, settings, {}, time.time(), trust)


def _refuse_unknown(names: Mapping[str, Any]) -> None:
    """papermill passes a parameter that no cell declares with a warning alone; here it is an error."""
    for source in names.get("In", []):
        if source.startswith("# Parameters\n"):
            assigned = {
                t.id for node in ast.parse(source).body if isinstance(node, ast.Assign) for t in node.targets if isinstance(t, ast.Name)
            }
            resolve(names["profile"], dict.fromkeys(assigned - set(COMMON)))
