"""What is measured on images: a function to a table, with units. One's own goes everywhere that the thorax's goes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from lpdirs.base.errors import UserError


@dataclass(frozen=True)
class Measures:
    """What is measured on images, and in which units.

    `function` maps images (N, C, S, S) in [-1, 1] to a table of N rows, a column each factor, NaN where it cannot be measured.

    Rows are taken in the order of their index where it counts the images.
    `units` names the factors that directions are judged by, each with its unit ("" for none), in the order in which they are shown;
    further columns of the table are left alone. `main` are those of which tables speak first (default: all). `levels` says of a
    factor that exists only where another lies in a range, which: {"breast": ("z_position", 0.3, 0.7)}.
    """

    function: Callable[[Tensor], pd.DataFrame]
    units: Mapping[str, str]
    main: tuple[str, ...] = ()
    levels: Mapping[str, tuple[str, float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.main, str):
            object.__setattr__(self, "main", (self.main,))
        if not callable(self.function) or not isinstance(self.units, Mapping):
            raise UserError('measures are Measures(function, units), with units such as {"area": "cm2"}')
        if not self.units:
            raise UserError('measures need at least one factor with its unit, such as units={"area": "cm2"}')
        if not all(isinstance(text, str) for text in (*self.units, *self.units.values())):
            raise UserError(f'units must be text for text, such as {{"area": "cm2"}} or {{"area": ""}}, not {dict(self.units)!r}')
        if not all(isinstance(level, tuple | list) and len(level) == 3 for level in self.levels.values()):
            raise UserError('levels must be {factor: (another factor, lowest, highest)}, such as {"breast": ("z_position", 0.3, 0.7)}')
        if any(not low < high for _, low, high in self.levels.values()):
            raise UserError(f"a level goes from its lowest to a higher value: {dict(self.levels)}")
        unknown = sorted({*self.main, *self.levels, *(other for other, _, _ in self.levels.values())} - set(self.units))
        if unknown:
            raise UserError(f"measures speak of {', '.join(unknown)}, and units has {', '.join(self.units)}")

    @property
    def factors(self) -> tuple[str, ...]:
        """Names of what directions are judged by."""
        return tuple(self.units)

    @property
    def first(self) -> tuple[str, ...]:
        """The factors of which tables speak first."""
        return self.main or self.factors

    def __call__(self, images: Tensor) -> pd.DataFrame:
        """The factors of images (N, C, S, S), N rows in this order; UserError where the function gives another kind of table."""
        try:
            table = self.function(images)
            if isinstance(table, np.ndarray | Tensor | list):
                raise UserError(f"the measuring function must return a table such as {{'area': values}}, not {type(table).__name__}")
            if not isinstance(table, pd.DataFrame):
                table = pd.DataFrame({name: np.asarray(values) for name, values in dict(table).items()})
        except UserError:
            raise
        except Exception as error:  # a user's own function may do anything
            line = " ".join(str(error).split())[:200]
            raise UserError(f"the measuring function failed, or gave no table ({type(error).__name__}: {line})") from error
        if isinstance(table.index, pd.Index) and set(table.index) == set(range(len(table))):
            table = table.sort_index()  # a function may have sorted its rows
        if not table.columns.is_unique:
            raise UserError(f"the measuring function gave two columns of one name: {', '.join(map(str, table.columns))}")
        missing = [name for name in self.units if name not in table]
        if missing or len(table) != len(images):
            raise UserError(
                f"the measuring function gave {len(table)} rows of {', '.join(map(str, table)) or 'nothing'} "
                f"for {len(images)} images: it must give a row an image with {', '.join(self.units)}"
            )
        try:
            numbers = table[list(self.units)].astype(np.float64)
        except (TypeError, ValueError) as error:
            raise UserError(f"the measuring function must give numbers ({' '.join(str(error).split())[:120]})") from error
        return numbers.replace([np.inf, -np.inf], np.nan).reset_index(drop=True)

    def check_apart(self, images: Tensor) -> None:
        """UserError where an image (of 8 or more, (N, C, S, S)) has other factors among some of them than among all, by more than noise."""
        some = [5, 2, 0]
        together, again, apart = self(images), self(images), self(images[some])
        among = together.iloc[some].reset_index(drop=True)
        room = 1e-3 * (together.max() - together.min()) + 1e-6 * together.abs().max() + 2 * (together - again).abs().max()
        other = ((among - apart).abs() > room) | (among.isna() != apart.isna())
        if other.any(axis=None):
            factor = other.any().idxmax()
            i = other[factor].idxmax()
            raise UserError(
                f"the measuring function gives an image {factor} {among.loc[i, factor]:.4g} among {len(images)} and "
                f"{apart.loc[i, factor]:.4g} among {len(some)}: it must measure each image by itself, without the batch's mean, range, "
                f"ranks or order"
            )

    def of_a_pixel(self, images: Tensor) -> pd.Series:
        """By how much each factor changes, on average, where images (N, C, S, S) are moved by one pixel, down or to the side."""
        plain = self(images)
        moved = [(self(images.roll(1, axis)) - plain).abs().mean() for axis in (2, 3)]
        return moved[0].combine(moved[1], max).fillna(0.0)

    def of(self, generator: Any, z: Tensor) -> pd.DataFrame:
        """The factors of what a generator draws from z (N, d)."""
        return self(generator.images(z))

    def sample(self, generator: Any, n: int, seed: int = 0) -> tuple[Tensor, pd.DataFrame]:
        """n random z (n, d) of a generator, and the factors of their images."""
        z = generator.draw(n, seed)
        return z, self.of(generator, z)

    def __repr__(self) -> str:
        return "Measures: " + ", ".join(f"{name} ({unit})" if unit else name for name, unit in self.units.items())


WORDS = {"breast": "breast size", "thickness": "body thickness", "width": "body width"}


def factor_words(name: str) -> str:
    """A factor as words: those of the thorax as the paper calls them, "x_position 2" as x-position 2, others without underscores."""
    factor, space, number = name.partition(" ")
    words = f"{factor[0]}-position" if factor in ("x_position", "y_position", "z_position") else factor.replace("_", " ")
    return WORDS.get(factor, words) + space + number
