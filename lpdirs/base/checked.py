"""One way to check: types that say their limits, `checked` at the doors, settings as pydantic models; mistakes are one line."""

import difflib
import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, validate_call
from pydantic.fields import FieldInfo

from lpdirs.base.errors import UserError

F = TypeVar("F", bound=Callable[..., Any])

KINDS = {  # pydantic's name of a mistake: what to say, with the limits of the field
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "finite_number": "must be a finite number",
    "too_short": "must hold at least {min_length} values",
    "too_long": "must hold at most {max_length} values",
    "string_too_short": "must not be empty",
    "is_instance_of": "must be {hint}",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("string_type", "path_type"), "must be text"),
    **dict.fromkeys(("tuple_type", "list_type", "set_type"), "must be a list, such as [a, b]"),
    **dict.fromkeys(("dict_type", "mapping_type"), "must be a mapping of names to values"),
}
HINTS = {  # what gives an object that a call takes
    "Generator": "a generator, lp.as_generator(module, latent_dim)",
    "Directions": "directions, as lp.discover(generator) gives",
    "Measures": "measures: lp.Measures(function, units), or lp.thorax(window, pixel_mm) for chest CT",
    "Display": "a display, such as lp.Display(window=(0, 1))",
    "Steering": "what lp.fit_steering(generator) gives",
    "Responses": "what lp.respond(generator, directions) gives",
    "Rules": "rules, such as lp.Rules()",
    "DiscoverySettings": "settings, lp.DiscoverySettings(...)",
    "Chance": "what lp.random_sets(generator) gives",
    "Prior": "a Prior, such as Prior.uniform(-1, 1) or Prior.mapped(network, 512)",
    "Module": "a torch module",
    "Tensor": "a tensor",
}


def _number(value: Any) -> Any:
    """NumPy's numbers are numbers; text and yes or no are none."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | str | bytes):
        raise ValueError(f"must be a number, not {value!r}")
    return value


def _whole(value: Any) -> Any:
    """The same of whole numbers alone."""
    if isinstance(value, bool | str | bytes | float | np.floating | np.bool_):
        raise ValueError(f"must be a whole number, not {value!r}")
    return _number(value)


Whole = Annotated[int, BeforeValidator(_whole)]
Count = Annotated[Whole, Field(ge=1, le=10**9)]
Seed = Annotated[Whole, Field(ge=0, lt=2**63)]
Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0, le=1e9)]


def listed(values: Any) -> Any:
    """A tuple of what is a list, an array or a tensor of one dimension; pydantic judges all else."""
    if hasattr(values, "tolist") and getattr(values, "ndim", 0) == 1:
        return tuple(values.tolist())
    return values


Numbers = Annotated[tuple[Number, ...], BeforeValidator(listed)]


def checked(function: F) -> F:
    """The function, with its arguments checked against their annotations; UserError, in one line, for what does not fit."""
    validated = validate_call(config=ConfigDict(arbitrary_types_allowed=True))(function)
    names = list(inspect.signature(function).parameters)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return validated(*args, **kwargs)
        except ValidationError as error:
            if error.title != function.__name__:
                raise
            raise UserError(in_words(error, names, function.__name__)) from None

    return call  # type: ignore[return-value]


def in_words(error: ValidationError, names: Sequence[str], of: str = "", called: Callable[[str], str] = str) -> str:
    """The first mistake as "name must be ..., not ..."; `names` are those that there are, `of` what takes them, and `called` gives the
    name that users know."""
    first = error.errors()[0]
    place = first["loc"][0] if first["loc"] else ""
    name = called(names[place] if isinstance(place, int) and place < len(names) else str(place))
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument", "unexpected_positional_argument"):
        near = difflib.get_close_matches(name, names, 1)
        known = f"did you mean {near[0]}?" if near else f"{'it takes' if of else 'settings are'} {', '.join(names)}"
        return f"{of} does not take {name}: {known}" if of else f"unknown setting {name}: {known}"
    if first["type"].startswith("missing"):
        return f"{of + ': ' if of else ''}{name} is missing"
    if first["type"] in KINDS:
        context = {k: f"{v:g}" if isinstance(v, float) else v for k, v in first.get("ctx", {}).items()}
        wanted = str(context.get("class", ""))
        said = KINDS[first["type"]].format(**context, hint=HINTS.get(wanted, f"a {wanted}"))
        return f"{name} {said}, not {brief(first['input'])}"
    said = first["msg"].removeprefix("Value error, ")
    return f"{name} {said}" if name and not said.startswith(name) else said


def brief(value: Any) -> str:
    """A value as a message shows it: short ones as they are, others by their type."""
    shown = repr(value) if isinstance(value, str | int | float | tuple | list | dict | None) else ""
    return shown if 0 < len(shown) <= 60 else type(value).__name__


Side = Literal[32, 64, 128, 256]  # px, of slices and of what the models draw
AS_IT_IS = "="  # title of a field whose flat name is its own


def setting(default: Any, help: str, name: str = "", **limits: Any) -> Any:
    """A field that users set: its default, what it is in a few words, its flat name in notebooks and YAML, and its limits."""
    return Field(default, description=help, title=name or AS_IT_IS, **limits)


class Settings(BaseModel):
    """Immutable values with types and limits; UserError, in one line, for what does not fit."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            fields = type(self).model_fields
            raise UserError(in_words(error, list(fields), called=lambda name: flat_name(name, fields.get(name)))) from None

    @field_validator("*", mode="before")
    @classmethod
    def _no_yes_for_a_number(cls, value: Any, info: Any) -> Any:
        """YAML reads "yes" as true, which Python would take for 1; a word alone is a list of one."""
        kind = str(cls.model_fields[info.field_name].annotation)
        for each in value if isinstance(value, list | tuple) else (value,):
            if isinstance(each, bool) and "bool" not in kind:
                raise ValueError(f"must not be {str(each).lower()}")
        return (value,) if isinstance(value, str | int | float) and kind.startswith("tuple[") and "..." in kind else value

    def by_flat_name(self, *without: str) -> dict[str, Any]:
        """The values under their flat names, as JSON holds them, `without` some fields."""
        return {flat_name(n, type(self).model_fields[n]): v for n, v in self.model_dump(mode="json").items() if n not in without}

    def but(self, **changes: Any) -> Self:
        """The same with some values changed, checked anew."""
        return type(self)(**(dict(self) | changes))


def flat_name(name: str, field: FieldInfo | None) -> str:
    """What a field is called in notebooks and profiles."""
    return name if field is None or field.title in (None, AS_IT_IS) else str(field.title)
