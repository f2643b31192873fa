"""A grid of configurations, read from YAML, and the jobs that it takes: data and generators once, then every configuration."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from lpdirs.base.checked import Settings
from lpdirs.base.errors import MissingInput, UserError
from lpdirs.base.files import check_name, write_atomic
from lpdirs.runs.own import is_factory
from lpdirs.runs.settings import PLACES, RunSettings, check_inputs, different, load_profile, read_yaml, resolve, with_hidden_paths

DATA, GAN, VAE, DISCOVER = "01_data_preparation", "02_train_gan", "03_train_vae", "04_discover_directions"
TRAINS = {"gan": GAN, "vae": VAE}
LEAST_FREE = 2**28  # bytes: a sweep that begins with less ends in torn files

ANYWAY = ("precision", "compile")  # of which a search has its own
OF_ALL = {"source", "data", "gan", "vae"}  # groups of settings that the configurations share
SHARED = {name for name, places in PLACES.items() if name not in ANYWAY and {group for group, _ in places} & OF_ALL}
SeedOf = Annotated[int, Field(ge=0, lt=2**31)]


def base(training: int) -> str:
    """The run that holds the data, or the generators of one training."""
    return f"seed-{training}"


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


class Configuration(Settings):
    """Settings of notebook 04; `generators` leaves some out, and `seeds`: 2 takes the first two seeds alone, since what is computed
    hardly depends on them."""

    generators: tuple[str, ...] | None = None
    seeds: int | None = Field(None, ge=1)
    settings: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, values: Any) -> Any:
        """As it stands in YAML: all settings side by side."""
        if not isinstance(values, dict):
            raise ValueError(f"must be a mapping of settings, such as {{method: sefa}}, not {values!r}")
        if isinstance(values.get("settings"), dict):
            return values
        own = {name: values[name] for name in ("generators", "seeds") if name in values}
        rest = {str(name): value for name, value in values.items() if name not in own}
        shared = sorted(set(rest) & SHARED)
        if shared:
            raise ValueError(f"{', '.join(shared)} cannot differ between configurations, which share data and generators: set it once")
        return own | {"settings": with_hidden_paths(rest)}


class Grid(Settings):
    """`configurations` by name; the rest is shared.

    `train` says whether generators are trained once, with the first seed, or anew with each seed; or it lists the seeds of several
    trainings, in each of which directions are searched with all `seeds`. `threads` is what each notebook
    computes with: training on a CPU ends elsewhere with another number, so it is a part of the grid and not of the machine.
    """

    name: str
    profile: str
    configurations: dict[Annotated[str, StringConstraints(min_length=1)], Configuration] = Field(min_length=1)
    generators: tuple[str, ...] = Field(("gan", "vae"), min_length=1)
    seeds: tuple[SeedOf, ...] = Field((0,), min_length=1, max_length=10_000)
    train: Literal["once", "each seed"] | tuple[SeedOf, ...] = "once"
    threads: int = Field(1, ge=1, le=1024)
    settings: dict[str, Any] = {}

    @field_validator("generators", mode="before")
    @classmethod
    def _known(cls, values: Any) -> Any:
        for name in values if isinstance(values, list | tuple) else ():
            if name not in TRAINS and not is_factory(str(name)):
                raise ValueError(f"must be some of {', '.join(TRAINS)}, or file.py:function, not {name!r}")
        return values

    @field_validator("generators", "seeds", "train")
    @classmethod
    def _different(cls, values: Any) -> Any:
        return different(values) if isinstance(values, tuple) else values

    @model_validator(mode="after")
    def _together(self) -> Self:
        load_profile(self.profile)
        if len({name.casefold() for name in self.configurations}) < len(self.configurations):
            raise ValueError("two configurations have the same name")
        if len({label_of(name) for name in self.generators}) < len(self.generators):
            raise ValueError(f"two generators would be called the same, {label_of(self.generators[0])}: rename a file or function")
        for name, configuration in self.configurations.items():
            check_name(name, "the name of a configuration")
            unknown = set(configuration.generators or ()) - set(self.generators)
            if unknown:
                raise ValueError(f"configuration {name}: generators must be some of {', '.join(self.generators)}, not {min(unknown)!r}")
        return self

    @classmethod
    def read(cls, path: Path, given: dict | None = None) -> "Grid":
        """The grid in a YAML file; `given` settings come before those of the file. UserError where it makes no sense."""
        if not path.is_file():
            raise MissingInput(f"there is no grid {path}: notebooks/profiles/grid_paper.yaml is one")
        content = {name: value for name, value in read_yaml(path).items() if value is not None}
        given = dict(given or {})
        generators = given.pop("generators", None)
        try:
            settings = content.get("settings", {})
            if not isinstance(settings, dict):
                raise UserError(f"settings must be a mapping of names to values, not {settings!r}")
            content["settings"] = with_hidden_paths(settings | given)
            if generators or "generators" in content:
                content["generators"] = with_hidden_paths({"generators": generators or content["generators"]})["generators"]
            if isinstance(content.get("configurations"), dict):
                content["configurations"] = {
                    name if isinstance(name, bool) else str(name): c for name, c in content["configurations"].items()
                }
            grid = cls(name=check_name(path.stem, "the grid's name"), **{str(name): value for name, value in content.items()})
        except UserError as error:
            raise type(error)(f"{path.name}: {error}") from None
        for job in grid.jobs():
            check_inputs(job.settings)
        return grid

    @classmethod
    def of_folder(cls, folder: Path) -> "Grid":
        """The grid of a sweep's folder, as grid.json has it."""
        from lpdirs.base.files import read_json

        content = read_json(folder / "grid.json")
        if any(set(one) - {"generators", "seeds", "settings"} for one in content["configurations"].values()):
            raise UserError("its configurations are not as a sweep writes them")  # a module that it names is not even looked for
        return cls(**(content | {"name": folder.name}))

    @property
    def trains(self) -> list[str]:
        """The generators that are trained; the others are the user's own."""
        return [name for name in self.generators if name in TRAINS]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(seed of the training, seed of the search) of all that is searched; the first search of every training comes first."""
        if self.train == "each seed":
            return [(seed, seed) for seed in self.seeds]
        trainings = self.train if isinstance(self.train, tuple) else self.seeds[:1]
        return [(training, seed) for seed in self.seeds for training in trainings]

    def of(self, configuration: str, seed: int) -> tuple[str, ...]:
        """The generators on which a configuration is searched with a seed."""
        chosen = self.configurations[configuration]
        return (chosen.generators or self.generators) if seed in self.seeds[: chosen.seeds] else ()

    def searches(self) -> list[tuple[str, str, int, int]]:
        """(generator, configuration, seed of the training, seed of the search) of all that is searched."""
        return [(g, name, *pair) for pair in self.pairs for name in self.configurations for g in self.of(name, pair[1])]

    def run_of(self, generator: str, configuration: str, training: int, seed: int) -> str:
        """The run of one search."""
        of = f"train{training}-" if isinstance(self.train, tuple) else ""
        return f"{label_of(generator)}-{configuration}-{of}seed{seed}"

    def jobs(self) -> list[Job]:
        """Data, generators, then configurations, seed by seed; every job after those that it needs."""
        first = self.pairs[0][0]
        data = Job(base(first), DATA, self.profile, self.settings, first)
        jobs, trained = {data.name: data} if self.trains else {}, {}
        for training, seed in self.pairs:
            for generator in self.trains:
                job = Job(base(training), TRAINS[generator], self.profile, self.settings, training, (data.name,))
                trained[training, generator] = jobs.setdefault(job.name, job)
            for name, configuration in self.configurations.items():
                for generator in self.of(name, seed):
                    given = self.settings | configuration.settings | {"generators": [generator]}
                    before = (trained[training, generator].name,) if generator in TRAINS else ()
                    job = Job(self.run_of(generator, name, training, seed), DISCOVER, self.profile, given, seed, before)
                    jobs[job.name] = job
        return list(jobs.values())

    def links(self) -> dict[str, str]:
        """Links below the sweep's folder: to shared data and generators, and to what random sets reach on these."""
        first, links = base(self.pairs[0][0]), dict[str, str]()
        for training, _ in self.pairs:
            if base(training) != first and self.trains:
                links[f"{base(training)}/data"] = f"../{first}/data"
        for generator, name, training, seed in self.searches():
            run, home = self.run_of(generator, name, training, seed), base(training)
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
        for run in [*(job.run for job in self.jobs()), *(f"{base(training)}/directions/chance" for training, _ in self.pairs)]:
            (folder / run).mkdir(parents=True, exist_ok=True)
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
        write_atomic(folder / "grid.json", self.model_dump_json(indent=1))
