"""Settings that are checked where they are made: a pydantic model whose mistakes are one line."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo

from lpdirs.base.checked import in_words
from lpdirs.base.errors import UserError

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
