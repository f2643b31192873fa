"""All settings of a run, in groups: the one place that says which there are. Profiles and notebooks know them by flat names."""

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, field_validator, model_validator

from lpdirs.base.checked import Settings, flat_name, setting
from lpdirs.base.errors import UserError
from lpdirs.base.places import home
from lpdirs.data.private import hide, where
from lpdirs.data.series import DataSettings
from lpdirs.discovery import methods  # noqa: F401  # registers them
from lpdirs.discovery.objective import DiscoverySettings
from lpdirs.discovery.registry import METHODS, is_own
from lpdirs.models.training import GANSettings, VAESettings

SAMPLE = "chest_ct"  # the real chest CT in data_manifests
TRAINED = ("gan", "vae")  # the generators that a run trains
COMMON = ("profile", "run", "outputs", "seed")  # parameters that all notebooks have
LARGEST_YAML = 2**18  # characters
OTHERS = sorted(set(METHODS) - {"reconstructor"})  # registered in an order that depends on what was imported first


class SourceSettings(Settings):
    """Where slices come from."""

    data_dir: str | None = setting(None, "a folder of DICOM; null: the cohort", min_length=1)
    cohort: str = setting("phantom_demo", "of data_manifests/: phantom_demo, phantom_smoke (synthetic) or chest_ct (real)", min_length=1)
    workers: int | None = setting(None, "processes that read; null: one a core where there are more than 5,000 files", ge=1, le=1024)
    scheduler: str | None = setting(None, "address of a running Dask cluster that sees the same folders", min_length=1)

    @field_validator("scheduler")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value and not re.fullmatch(r"((tcp|tls|wss?|ucxx?|quic|inproc)://\S+|[^\s/]+:\d+)", value):
            raise ValueError(f"must be an address such as tcp://10.0.0.5:8786, not {value!r}")
        return value


class ChoiceSettings(Settings):
    """Which generators, and how directions are found."""

    generators: tuple[str, ...] = setting(("gan", "vae"), "gan, vae, and functions that make your own: file.py:make", min_length=1)
    method: str = setting("reconstructor", f"reconstructor (the paper's), {', '.join(OTHERS)}; or your own, FILE.py:FUNCTION")
    start: str = setting("random", "what A begins at: random (the paper's), or a method that computes directions")
    measures: str | None = setting(
        None,
        "thorax, inner, tissue, moments, or a function that makes your own: file.py:make; null: the generator's, else by the data",
        min_length=1,
    )

    @field_validator("method", "start")
    @classmethod
    def _registered(cls, value: str, info: Any) -> str:
        known = ["reconstructor", *OTHERS] if info.field_name == "method" else OTHERS
        if value in known or is_own(value):
            return value
        raise ValueError(f"must be one of {', '.join(known)}, or FILE.py:FUNCTION of your own, not {value!r}")

    @field_validator("measures")
    @classmethod
    def _of_a_kind(cls, value: str | None) -> str | None:
        if value in (None, "thorax", "inner", "tissue", "moments") or ":" in str(value):
            return value
        raise ValueError(f"must be thorax, inner, tissue, moments or FILE.py:FUNCTION, not {value!r}")

    @field_validator("generators")
    @classmethod
    def _known(cls, values: tuple) -> tuple:
        for name in values:
            if name not in TRAINED and ":" not in name:
                raise ValueError(f"must be 'gan', 'vae' or FILE.py:FUNCTION, not {name!r}")
        return different(values)


def different(values: tuple) -> tuple:
    """The values, where no two are the same."""
    if len(set(values)) < len(values):
        raise ValueError(f"must hold different values, not {list(values)}")
    return values


class AnalysisSettings(Settings):
    """How directions are looked at and measured."""

    largest_shift: float = setting(4.5, "in strips and animations", gt=0, le=1000)
    strip_columns: int = setting(7, "odd: the unshifted slice is in the centre", ge=3, le=99)
    inversion_steps: int = setting(200, "of Adam, to put a slice into a GAN's latent space", ge=1, le=10**6)
    gif_frames: int = setting(13, "frames of an animation, one way", ge=2, le=500)
    response_samples: int = setting(256, "starting slices for each direction", ge=2, le=10**6)
    response_shifts: tuple[Annotated[float, Field(ge=-1000, le=1000)], ...] = setting(
        (-4, -2, 0, 2, 4), "shifts at which factors are measured", min_length=3, max_length=1000
    )
    steering_samples: int = setting(4000, "random slices from which steering learns how factors go with z", ge=20, le=10**7)
    score_steps: int = setting(300, "of a fresh reconstructor", ge=1, le=10**8)
    score_seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = setting((0, 1, 2), "of fresh reconstructors", min_length=1)

    @field_validator("strip_columns")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"strip_columns must be odd, so that the unshifted slice is in the centre, not {value}")
        return value

    @field_validator("response_shifts", "score_seeds")
    @classmethod
    def _different(cls, values: tuple) -> tuple:
        return different(values)


class MachineSettings(Settings):
    """What computes."""

    device: str = setting("auto", "auto (the GPU if there is one), cpu, cuda, cuda:1 or mps")

    @field_validator("device")
    @classmethod
    def _known(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
            raise ValueError(f"must be auto, cpu, cuda, cuda:1 or mps, not {value!r}")
        return value

    @property
    def chosen(self) -> str:
        """The device; UserError where it is not there."""
        import torch

        cuda = torch.cuda.is_available()
        if self.device == "auto":
            return "cuda" if cuda else "cpu"
        if self.device.startswith("cuda") and not cuda or self.device == "mps" and not torch.backends.mps.is_available():
            raise UserError(f"device {self.device} is asked for, and there is none here: set device to auto or cpu")
        return self.device


class RunSettings(Settings):
    """Every setting of a run."""

    source: SourceSettings = SourceSettings()
    data: DataSettings = DataSettings()
    gan: GANSettings = GANSettings()
    vae: VAESettings = VAESettings()
    choice: ChoiceSettings = ChoiceSettings()
    discovery: DiscoverySettings = DiscoverySettings()
    analysis: AnalysisSettings = AnalysisSettings()
    machine: MachineSettings = MachineSettings()

    @model_validator(mode="after")
    def _together(self) -> Self:
        if not set(self.choice.generators) & set(TRAINED):
            return self  # what a generator of one's own can do is known when it is made
        k, d, method = self.discovery.n_directions, self.gan.latent_dim, self.choice.method
        learned = method == "reconstructor"
        if learned and self.discovery.basis == "orthonormal" and k > d:
            raise ValueError(f"n_directions must be at most latent_dim = {d} for orthonormal directions, not {k}")
        for name, computed in (("method", method), ("start", self.choice.start if learned else "random")):
            if computed in METHODS and METHODS[computed].at_most_d and k > d:
                raise ValueError(f"n_directions must be at most latent_dim = {d} with {name} {computed}, not {k}")
            if computed == "pca-encoded" and "gan" in self.choice.generators:
                raise ValueError(f"{name} pca-encoded needs an encoder, which a GAN has not: set generators to [vae]")
        return self

    def flat(self) -> dict[str, Any]:
        """All values under their flat names."""
        return {name: getattr(getattr(self, places[0][0]), places[0][1]) for name, places in PLACES.items()}


def _places() -> dict[str, list[tuple[str, str]]]:
    """Where each flat name stands: (group, field), several where groups share a setting."""
    places: dict[str, list[tuple[str, str]]] = {}
    for group, group_field in RunSettings.model_fields.items():
        for name, field in type(group_field.default).model_fields.items():
            if field.title is not None:
                places.setdefault(flat_name(name, field), []).append((group, name))
    return places


PLACES = _places()


def help_of(name: str) -> tuple[str, str, Any]:
    """A setting's type (as papermill knows it), what it is, and its default."""
    group, field = PLACES[name][0]
    definition = type(getattr(RunSettings(), group)).model_fields[field]
    text = str(definition.annotation)
    kind = next(
        (k for k, words in {"list": ("tuple",), "bool": ("bool",), "float": ("float",), "int": ("int", "Literal[32")}.items()
         if any(word in text for word in words)), "str",
    )  # fmt: skip
    return kind, str(definition.description), definition.default


def parameter_line(name: str) -> str:
    """The line of a notebook's parameters cell for a setting, with what it is and its default."""
    kind, what, default = help_of(name)
    return f"{name}: {kind} = None  # {what}; default {in_yaml(default)}"


def in_yaml(value: object) -> str:
    """A value as one would write it in a profile."""
    return value if isinstance(value, str) else json.dumps(value)


def profile_names() -> list[str]:
    """The profiles there are."""
    return sorted(p.stem for p in (home() / "notebooks" / "profiles").glob("*.yaml") if not p.stem.startswith("grid_"))


def load_profile(name: str) -> dict[str, Any]:
    """What notebooks/profiles/<name>.yaml sets, under flat names; UserError lists the profiles there are if it is none."""
    if name not in profile_names():
        raise UserError(f"unknown profile {name!r}: choose one of {', '.join(profile_names())}, or add notebooks/profiles/{name}.yaml")
    path = home() / "notebooks" / "profiles" / f"{name}.yaml"
    values = read_yaml(path)
    return {k: v for k, v in values.items() if k != "profile"}


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; UserError, in one line, where it holds none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path.name} cannot be read ({' '.join(str(error).split())[:160]})") from error
    values = parse_yaml(text, f"{path.name} is not YAML")
    if not isinstance(values, dict):
        raise UserError(f"{path.name} must hold a mapping of names to values")
    return values


def parse_yaml(text: str, complaint: str) -> Any:
    """What a text says in YAML, without anchors, aliases and tags; UserError that begins with `complaint`, whatever the parser makes
    of it."""
    if len(text) > LARGEST_YAML:
        raise UserError(f"{complaint} (it has {len(text)} characters, and {LARGEST_YAML} are enough for any)")
    try:
        for event in yaml.parse(text):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) or getattr(event, "tag", None):
                raise UserError(f"{complaint} (anchors, aliases and tags are not read: write values out)")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, AttributeError, TypeError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{complaint} ({' '.join(str(error).split())[:160]})") from error


def resolve(profile: str, given: Mapping[str, Any]) -> RunSettings:
    """The profile's settings with `given` values (flat names) in their place; None in `given` leaves the profile's.

    UserError, in one line with name, value and what is allowed, where anything does not fit.
    """
    values: dict[str, Any] = {}
    for source in (load_profile(profile), {k: v for k, v in given.items() if v is not None or k not in PLACES}):
        for name in source:
            _check_known(str(name))
        for model in ("gan", "vae"):  # epochs that are asked for take the place of steps that are not
            if source.get(f"{model}_epochs") is not None and source.get(f"{model}_steps") is None:
                values[f"{model}_steps"] = None
        values |= source
    values |= {"compile": "off"} if values.get("compile") is False else {}  # as YAML reads it
    groups: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        for group, field in PLACES[name]:
            groups.setdefault(group, {})[field] = value
    defaults = RunSettings.model_fields
    return RunSettings(**{group: type(defaults[group].default)(**fields) for group, fields in groups.items()})


def with_hidden_paths(given: Mapping[str, Any]) -> dict[str, Any]:
    """The same, with folders as pseudonyms: they are named after patients and people, and what is given is written into the run."""
    from lpdirs.runs.own import hidden, is_factory  # here, since it imports torch and settings are read without

    folder, hiding = given.get("data_dir"), dict(given)
    if isinstance(folder, str) and folder and where(folder).is_dir():
        hiding["data_dir"] = hide(where(folder))
    names = given.get("generators")
    if isinstance(names, list | tuple):
        hiding["generators"] = [hidden(name) if isinstance(name, str) and is_factory(name) else name for name in names]
    if isinstance(given.get("measures"), str) and is_factory(given["measures"]):
        hiding["measures"] = hidden(given["measures"])
    return hiding


def _check_known(name: str) -> None:
    if name in COMMON:
        raise UserError(f"setting {name} is given apart, as --{name}")
    if name not in PLACES:
        near = difflib.get_close_matches(name, PLACES, 3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"settings are {', '.join((*COMMON, *PLACES))}"
        raise UserError(f"unknown setting {name}: {hint}")


def check_inputs(settings: RunSettings) -> None:
    """UserError where what the settings name is not there: the data folder, the cohort, the device."""
    source = settings.source
    if source.data_dir is not None and not where(source.data_dir).is_dir():
        raise UserError(f"data folder {where(source.data_dir)} does not exist: give the folder that holds your DICOM files")
    cohorts = [*sorted(path.stem for path in (home() / "data_manifests").glob("*.json")), SAMPLE]
    if source.data_dir is None and source.cohort not in cohorts:
        raise UserError(f"unknown cohort {source.cohort!r}: choose one of {', '.join(cohorts)}")
    if is_own(settings.choice.method) and not Path(settings.choice.method.rpartition(":")[0]).is_file():
        raise UserError(f"there is no file {settings.choice.method.rpartition(':')[0]}: give method FILE.py:FUNCTION")
    _ = settings.machine.chosen
