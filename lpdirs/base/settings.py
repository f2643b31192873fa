"""Settings that are checked where they are made: a pydantic model whose mistakes are one line."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo

from lpdirs.base.errors import UserError

Side = Literal[32, 64, 128, 256]  # px, of slices and of what the models draw

KINDS = {  # pydantic's name of a mistake: what to say, with the limits of the field
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "finite_number": "must be a finite number",
    "too_short": "must hold at least {min_length} values",
    "string_too_short": "must not be empty",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("string_type", "path_type"), "must be text"),
    **dict.fromkeys(("tuple_type", "list_type", "set_type"), "must be a list, such as [a, b]"),
}

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
            raise UserError(in_words(error, type(self))) from None

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


def in_words(error: ValidationError, model: type[BaseModel]) -> str:
    """The first mistake as "name must be ..., not ..."."""
    first, fields = error.errors()[0], model.model_fields
    name = flat_name(str(first["loc"][0]), fields.get(str(first["loc"][0]))) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        return f"unknown setting {name}: settings are {', '.join(fields)}"
    if first["type"] == "missing":
        return f"{name} is missing"
    context = {k: f"{v:g}" if isinstance(v, float) else v for k, v in first.get("ctx", {}).items()}
    if first["type"] in KINDS:
        said = KINDS[first["type"]].format(**context)
        return f"{name} {said}, not {first['input']!r}"
    said = first["msg"].removeprefix("Value error, ")
    return f"{name} {said}" if name and not said.startswith(name) else said
