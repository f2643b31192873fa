"""A grid of configurations, read from YAML, and the jobs that it takes: data and generators once, then every configuration."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lpdirs.base.errors import MissingInput, UserError
from lpdirs.base.files import check_name, write_atomic
from lpdirs.runs.own import is_factory
from lpdirs.runs.settings import PLACES, RunSettings, check_inputs, load_profile, read_yaml, resolve, with_hidden_paths

DATA, GAN, VAE, DISCOVER = "01_data_preparation", "02_train_gan", "03_train_vae", "04_discover_directions"
TRAINS = {"gan": GAN, "vae": VAE}
TRAIN = ("once", "each seed")
LEAST_FREE = 2**28  # bytes: a sweep that begins with less ends in torn files

ANYWAY = ("precision", "compile")  # of which a search has its own
OF_ALL = {"source", "data", "gan", "vae"}  # groups of settings that the configurations share
SHARED = {name for name, places in PLACES.items() if name not in ANYWAY and {group for group, _ in places} & OF_ALL}


def base(training: int) -> str:
    """The run that holds the data, or the generators of one training."""
    return f"seed-{training}"


def _are_seeds(values: object) -> bool:
    whole = isinstance(values, list) and all(type(seed) is int and 0 <= seed < 2**31 for seed in values)
    return isinstance(values, list) and whole and bool(values) and len(set(values)) == len(values)


def label_of(generator: str) -> str:
    """What a generator is called in the names of runs: gan, vae, or the file or module, and function, that makes the user's own."""
    place, _, function = generator.rpartition(":")
    return generator if not place else f"{place.rpartition('/')[2].removesuffix('.py')}.{function}"


@dataclass(frozen=True)
class Job:
    """One notebook of one run of the sweep, to be begun `after` the jobs of these names."""

    run: str
    notebook: str
    profile: str
    given: dict[str, Any]
    seed: int
    after: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Run and notebook."""
        return f"{self.run}/{self.notebook}"

    @property
    def settings(self) -> RunSettings:
        """What holds in it."""
        return resolve(self.profile, self.given)


@dataclass(frozen=True)
class Grid:
    """`configurations` maps names to settings of notebook 04; {"generators": [...]} beside them leaves some out, and {"seeds": 2} takes
    the first two seeds alone, since what is computed hardly depends on them. The rest is shared.

    `train` says whether generators are trained once, with the first seed, or anew with each seed; or it lists the seeds of several
    trainings, in each of which directions are searched with all `seeds`. `threads` is what each notebook
    computes with: training on a CPU ends elsewhere with another number, so it is a part of the grid and not of the machine.
    """

    name: str
    profile: str
    configurations: dict[str, dict]
    generators: list[str] = field(default_factory=lambda: ["gan", "vae"])
    seeds: list[int] = field(default_factory=lambda: [0])
    train: str | list[int] = "once"
    threads: int = 1
    settings: dict = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, given: dict | None = None) -> "Grid":
        """The grid in a YAML file; `given` settings come before those of the file. UserError where it makes no sense."""
        if not path.is_file():
            raise MissingInput(f"there is no grid {path}: notebooks/profiles/grid_paper.yaml is one")
        content = read_yaml(path)
        known = {name for name in cls.__dataclass_fields__ if name != "name"}
        if not {"profile", "configurations"} <= content.keys() <= known or not isinstance(content["configurations"], dict):
            unknown = f"; it holds {', '.join(map(str, sorted(content.keys() - known)))}" if content.keys() - known else ""
            raise UserError(f"{path.name} must hold profile and configurations, and may hold {', '.join(sorted(known))}{unknown}")
        content = {name: value for name, value in content.items() if value is not None}
        if not isinstance(content.get("settings", {}), dict):
            raise UserError(f"{path.name}: settings must be a mapping of names to values, not {content['settings']!r}")
        grid = cls(name=check_name(path.stem, "the grid's name"), **content)
        given = grid.settings | (given or {})
        asked = with_hidden_paths({"generators": given.pop("generators", None) or grid.generators})["generators"]
        hidden = {"settings": with_hidden_paths(given), "generators": asked}
        if isinstance(grid.configurations, dict):
            of = lambda settings: with_hidden_paths(settings) if isinstance(settings, dict) else settings
            hidden["configurations"] = {name: of(settings) for name, settings in grid.configurations.items()}
        grid = cls(**{**grid.__dict__, **hidden})
        grid.check(path.name)
        return grid

    def check(self, where: str) -> None:
        """UserError unless every name, setting and seed makes sense."""
        load_profile(self.profile)
        if self.train not in TRAIN and not _are_seeds(self.train):
            raise UserError(f"{where}: train must be one of {', '.join(TRAIN)}, or a list of seeds, not {self.train!r}")
        names = list(map(str, self.generators)) if isinstance(self.generators, list) else []
        labels = {label_of(name) for name in names}
        if len(labels) < len(names) == len(set(names)):
            raise UserError(f"{where}: two generators would be called the same, {', '.join(sorted(labels))}: rename a file or function")
        if not names or not all(name in TRAINS or is_factory(name) for name in names) or len(labels) < len(names):
            raise UserError(f"{where}: generators must be some of {', '.join(TRAINS)}, or file.py:function, not {self.generators}")
        if not _are_seeds(self.seeds):
            raise UserError(f"{where}: seeds must be different whole numbers, not {self.seeds}")
        if type(self.threads) is not int or self.threads < 1:
            raise UserError(f"{where}: threads must be a whole number of at least 1, not {self.threads!r}")
        if not self.configurations:
            raise UserError(f"{where}: configurations must hold at least one")
        if len({str(name).casefold() for name in self.configurations}) < len(self.configurations):
            raise UserError(f"{where}: two configurations have the same name")
        for name, settings in self.configurations.items():
            if not isinstance(name, str | int) or isinstance(name, bool):
                raise UserError(f"{where}: the name of a configuration must be text, not {name!r}: put it in quotes")
            check_name(name, f"{where}: the name of a configuration")
            if not isinstance(settings, dict):
                raise UserError(f"{where}: configuration {name} must be a mapping of settings, such as {{method: sefa}}")
            wanted = settings.get("generators")
            if wanted is not None and (not isinstance(wanted, list) or not all(isinstance(g, str) for g in wanted)):
                raise UserError(f"{where}: configuration {name}: generators must be a list of names, not {wanted!r}")
            some = settings.get("seeds")
            if some is not None and (type(some) is not int or some < 1):
                raise UserError(f"{where}: configuration {name}: seeds must be how many of them it takes, not {some!r}")
            shared = sorted(set(map(str, settings)) & SHARED)
            if shared:
                what = f"{', '.join(shared)} cannot differ between configurations, which share data and generators"
                raise UserError(f"{where}: {what}: set it under settings")
        for job in self.jobs():
            check_inputs(job.settings)

    @property
    def trains(self) -> list[str]:
        """The generators that are trained; the others are the user's own."""
        return [name for name in self.generators if name in TRAINS]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(seed of the training, seed of the search) of all that is searched; the first search of every training comes first."""
        if self.train == "each seed":
            return [(seed, seed) for seed in self.seeds]
        trainings = self.train if isinstance(self.train, list) else self.seeds[:1]
        return [(training, seed) for seed in self.seeds for training in trainings]

    def of(self, configuration: str, seed: int) -> list[str]:
        """The generators on which a configuration is searched with a seed."""
        settings = self.configurations[configuration]
        return (settings.get("generators") or self.generators) if seed in self.seeds[: settings.get("seeds")] else []

    def run_of(self, generator: str, configuration: str, training: int, seed: int) -> str:
        """The run of one search."""
        of = f"train{training}-" if isinstance(self.train, list) else ""
        return f"{label_of(generator)}-{configuration}-{of}seed{seed}"

    def jobs(self) -> list[Job]:
        """Data, generators, then configurations, seed by seed; every job after those that it needs."""
        first = self.pairs[0][0]
        data = Job(base(first), DATA, self.profile, self.settings, first)
        jobs, trained = {data.name: data} if self.trains else {}, {}
        for training, seed in self.pairs:
            for generator in self.trains:
                job = Job(base(training), TRAINS[generator], self.profile, self.settings, training, (data.name,))
                trained[training, generator] = jobs[job.name] = job
            for name, settings in self.configurations.items():
                own = {k: v for k, v in settings.items() if k not in ("generators", "seeds")}
                for generator in self.of(name, seed):
                    if generator not in self.generators:
                        raise UserError(f"configuration {name}: generators must be some of {', '.join(self.generators)}, not {generator!r}")
                    given = self.settings | own | {"generators": [generator]}
                    before = (trained[training, generator].name,) if generator in TRAINS else ()
                    job = Job(self.run_of(generator, name, training, seed), DISCOVER, self.profile, given, seed, before)
                    jobs[job.name] = job
        return list(jobs.values())

    def links(self) -> dict[str, str]:
        """Links below the sweep's folder: to shared data and generators, and to what random sets reach on these."""
        first, links = base(self.pairs[0][0]), dict[str, str]()
        for training, seed in self.pairs:
            home = base(training)
            if home != first and self.trains:
                links[f"{home}/data"] = f"../{first}/data"
            for name in self.configurations:
                for generator in self.of(name, seed):
                    run = self.run_of(generator, name, training, seed)
                    links |= {f"{run}/{part}": f"../{home}/{part}" for part in self.trains}
                    links[f"{run}/directions/chance"] = f"../../{home}/directions/chance"
                    if self.trains:
                        links[f"{run}/data"] = f"../{first}/data"
        return links

    def lay_out(self, folder: Path) -> None:
        """The runs' folders, those of configurations with links to the shared data and generators; and grid.json, which says all."""
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < LEAST_FREE:
            raise UserError(f"less than {LEAST_FREE >> 20} MiB are free in {folder.parent}: free some, or choose another --outputs")
        for job in self.jobs():
            (folder / job.run).mkdir(exist_ok=True)
        for training, _ in self.pairs:
            (folder / base(training) / "directions" / "chance").mkdir(parents=True, exist_ok=True)
        for name, target in self.links().items():
            link = folder / name
            if link.is_symlink() and link.readlink() != Path(target):
                link.unlink()  # of a sweep with other seeds, or other `train`
            if link.exists() and not link.is_symlink():
                raise UserError(f"{link.relative_to(folder.parent)} is a folder of a sweep with other seeds: delete it, or rename the grid")
            try:
                link.parent.mkdir(exist_ok=True)
                if not link.is_symlink():
                    link.symlink_to(target, target_is_directory=True)
            except OSError as error:
                raise UserError(f"{link} cannot link to {target} ({error}): use a disk, and rights, that know links") from error
        content = json.dumps({**self.__dict__, "configurations": {k: dict(v) for k, v in self.configurations.items()}}, indent=1)
        write_atomic(folder / "grid.json", lambda partial: partial.write_text(content))
