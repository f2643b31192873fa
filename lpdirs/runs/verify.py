"""Are a run's files still those that its run.json speaks of, and would the same come out here?"""

from dataclasses import dataclass
from pathlib import Path

from lpdirs.base.errors import MissingInput, UserError
from lpdirs.discovery.directions import Directions
from lpdirs.models.files import load_generator
from lpdirs.runs.grid import Grid
from lpdirs.runs.models import GENERATORS, check_belongs, directions_files
from lpdirs.runs.records import changed_files, provenance, read_log, read_notebook
from lpdirs.runs.search import is_whole, read_scores
from lpdirs.runs.stage import NOTEBOOKS, REPORT

WRITES = ("01_data_preparation", "02_train_gan", "03_train_vae", "04_discover_directions")  # notebooks without which there is nothing


@dataclass(frozen=True)
class Line:
    """One finding; `broken` where a file is not what it was."""

    where: str
    text: str
    broken: bool = False

    def __str__(self) -> str:
        return f"{'BROKEN ' if self.broken else '       '}{self.where}: {self.text}"


def verify(folder: Path) -> list[Line]:
    """Findings on the run at `folder`, or on all runs of a sweep. MissingInput where there is none.

    Digests of all files that results stand on are computed again and compared with run.json, executed notebooks are opened, and
    each set of directions is compared with the generator that lies there. Other versions, another revision or a dirty tree are said,
    and break nothing.
    """
    if (folder / "grid.json").exists():
        return [*_verify_sweep(folder), *(_verify_run(folder) if (folder / "run.json").exists() else [])]
    if (folder / "run.json").exists():
        return _verify_run(folder)
    runs = sorted(path.parent for path in folder.glob("*/run.json"))
    if not runs:
        raise MissingInput(f"{folder} holds no run.json: give the folder of a run or of a sweep, such as outputs/demo")
    return [line for run in runs for line in _verify_run(run)]


def _verify_sweep(folder: Path) -> list[Line]:
    """Findings on every run that grid.json speaks of, the links between them, and their scores."""
    try:
        grid = Grid.of_folder(folder)
        jobs, links = grid.jobs(), grid.links()
    except (UserError, TypeError, ValueError, AttributeError, KeyError) as error:
        return [Line(folder.name, f"grid.json is damaged ({' '.join(str(error).split())[:120]}): run the sweep again", True)]
    lines = []
    for run in dict.fromkeys(job.run for job in jobs):
        lines += _verify_run(folder / run) if (folder / run / "run.json").exists() else [Line(run, "run.json is missing", True)]
    for link, target in links.items():
        if not (folder / link).is_symlink() or (folder / link).readlink() != Path(target) or not (folder / link).exists():
            lines.append(Line(folder.name, f"{link} is not the link to {target} that the sweep made", True))
    for path in sorted(folder.glob("*/directions/*/scores.json")):
        try:
            read_scores(path)
        except UserError as error:
            lines.append(Line(path.parent.parent.parent.name, str(error), True))
    return lines


def _verify_run(run: Path) -> list[Line]:
    lines, right = [], 0
    try:
        log = read_log(run)
    except UserError as error:
        return [Line(run.name, str(error), True)]
    for notebook, entry in log.items():
        if notebook not in (*NOTEBOOKS, REPORT):
            lines.append(Line(run.name, f"run.json speaks of {notebook!r}, which is no notebook", True))
            continue
        bad = changed_files(run, entry)
        right += len(set(entry.get("files", {})) - set(bad))
        for path in bad:
            what = f"is not what notebook {notebook} wrote" if (run / path).exists() else f"is missing; notebook {notebook} wrote it"
            lines.append(Line(run.name, f"{path} {what}: run it again", True))
        executed = run / "notebooks" / f"{notebook}.ipynb"
        if notebook in NOTEBOOKS and executed.exists() and not read_notebook(executed):
            lines.append(Line(run.name, f"notebooks/{notebook}.ipynb cannot be read: run it again", True))
        if not entry.get("files") and notebook in WRITES:
            lines.append(Line(run.name, f"run.json names no files of notebook {notebook}: run it again", True))
    for executed in sorted((run / "notebooks").glob("*.ipynb")):
        if executed.stem in NOTEBOOKS and executed.stem not in log:
            lines.append(Line(run.name, f"notebooks/{executed.name} is there, and run.json says nothing of it: run it again", True))
    for table in sorted({path.with_suffix(".csv") for path in (run / "directions" / "chance").glob("*.[cj]s*")}):
        if not is_whole(table):
            lines.append(Line(run.name, f"directions/chance/{table.name} is not as it was measured: run notebook 04 again", True))
    for file in directions_files(run):
        try:
            directions = Directions.load(file)
            name = directions.info.generator
            if name in GENERATORS and (run / GENERATORS[name]).exists():
                check_belongs(file, directions, load_generator(run / GENERATORS[name]))
        except UserError as error:
            lines.append(Line(run.name, str(error), True))
    broken = len(lines)
    lines += _otherwise(run, log)
    head = f"{right} files are what they were" + (f", {broken} findings" if broken else "")
    return [Line(run.name, head), *lines]


def _otherwise(run: Path, log: dict) -> list[Line]:
    """What is different here from where the run was computed."""
    here, lines = provenance(), dict[str, None]()
    for entry in (entry for entry in log.values() if isinstance(entry, dict)):
        computed = {"packages": {}, "git": here["git"], "git_dirty": False} | entry.get("provenance", {})
        for name, version in computed["packages"].items():
            if here["packages"].get(name) != version:
                lines[f"computed with {name} {version}, here is {here['packages'].get(name)}"] = None
        if computed["git"] != here["git"]:
            lines[f"computed at revision {str(computed['git'])[:10]}, here is {str(here['git'])[:10]}"] = None
        if computed["git_dirty"]:
            lines[f"computed with uncommitted changes at revision {str(computed['git'])[:10]}"] = None
    return [Line(run.name, text) for text in lines]
