"""What is measured on images, a function to a table with units, and how they are shown. One's own goes wherever the thorax's goes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import torch
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


CT_GREY = (-1000.0, 600.0)  # HU of black and white in every figure, whatever it shows
CT_PRESETS = {"full": CT_GREY, "lung": (-1350.0, 150.0), "mediastinum": (-160.0, 240.0), "bone": (-450.0, 1050.0)}
CT_LIMIT = 800.0  # HU at the ends of a difference's colours


@dataclass(frozen=True)
class Display:
    """`window` is the values that -1 and +1 stand for, `low` and `high` those of black and white, all in `unit`.

    `presets` are further pairs of black and white to choose from, `limit` is the value at the ends of a difference's colours (default:
    half of the window), `noun` what one image is called.
    """

    window: tuple[float, float] = (-1.0, 1.0)
    low: float | None = None
    high: float | None = None
    unit: str = ""
    presets: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    limit: float | None = None
    noun: str = "image"

    def __post_init__(self) -> None:
        if not isinstance(self.window, tuple | list) or len(self.window) != 2 or not all(isinstance(v, Real) for v in self.window):
            raise UserError(f"display: window must be (what -1 stands for, what 1 stands for), not {self.window!r}")
        for what, (low, high) in {"window": self.window, "low and high": self.grey, **self.presets}.items():
            if not low < high:
                raise UserError(f"display: {what} must go from a smaller to a larger value, not from {low:g} to {high:g}")

    @property
    def grey(self) -> tuple[float, float]:
        """Values of black and white."""
        low, high = self.window
        return (low if self.low is None else self.low), (high if self.high is None else self.high)

    @property
    def greys(self) -> dict[str, tuple[float, float]]:
        """All pairs of black and white, by name; "full" is the usual one."""
        return {"full": self.grey, **self.presets}

    @property
    def difference(self) -> float:
        """The value at the ends of a difference's colours."""
        return self.limit or (self.window[1] - self.window[0]) / 2

    def value(self, x: Any) -> Any:
        """[-1, 1] as values in the unit."""
        low, high = self.window
        return (x + 1) * ((high - low) / 2) + low

    def pictures(self, x: Any) -> np.ndarray:
        """Images (N, C, S, S) in [-1, 1] as values, (N, S, S), or (N, S, S, 3) of colour."""
        values = np.asarray(self.value(x))
        return values[:, 0] if values.shape[1] == 1 else np.moveaxis(values, 1, -1)

    def to_grey(self, values: np.ndarray, preset: str = "full") -> np.ndarray:
        """Values as 8 bits: grey, or colour where they are."""
        low, high = self.greys[preset]
        return (np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def ct(window: tuple[float, float]) -> Display:
    """CT in HU, of a data set that was clipped to `window`."""
    return Display(window, *CT_GREY, "HU", CT_PRESETS, CT_LIMIT, "slice")


def display_of_data(described: Mapping[str, Any]) -> Display:
    """How the slices of a data set are shown, of which dataset.json says `described`."""
    window = tuple(described["window"])
    return ct(window) if described.get("unit", "HU") == "HU" else Display(window, noun="slice")


UNITS = {
    "brightness": "of the range",
    "contrast": "of the range",
    "x_position": "half widths, to the right",
    "y_position": "half heights, down",
    "size": "half widths",
    "width_over_height": "doublings",
    "tilt": "correlation of x and y",
    "sharpness": "of the range a pixel",
}
COLOUR = {"red": "of the range, above the mean of the colours", "blue": "of the range, above the mean of the colours"}


def measure_moments(images: Tensor) -> pd.DataFrame:
    """The factors of UNITS, with colour also COLOUR, of images (N, C, S, S) in [-1, 1], a row an image.

    Place, size, shape and tilt are those of what differs from the border's median, weighted by how much; NaN where nothing does.
    """
    x = (images.double() + 1) / 2
    grey = x.mean(1)
    border = torch.cat([grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]], 1).median(1).values
    weight = (grey - border[:, None, None]).abs()
    total = weight.sum((1, 2))
    weight = weight / torch.where(total > 1e-3 * weight[0].numel(), total, torch.nan)[:, None, None]
    across, down = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in (grey.shape[2], grey.shape[1]))
    of_x, of_y = weight.sum(1), weight.sum(2)
    cx, cy = of_x @ across, of_y @ down
    xx, yy = of_x @ across.square() - cx.square(), of_y @ down.square() - cy.square()
    xy = torch.einsum("nyx,y,x->n", weight, down, across) - cx * cy
    gradient = torch.hypot(grey.diff(dim=1)[:, :, 1:], grey.diff(dim=2)[:, 1:])
    shape = {"size": (xx + yy).sqrt(), "width_over_height": 0.5 * torch.log2(xx / yy), "tilt": xy / (xx * yy).sqrt()}
    table = {"brightness": grey.mean((1, 2)), "contrast": grey.std((1, 2)), "x_position": cx, "y_position": cy, **shape}
    table["sharpness"] = gradient.mean((1, 2))
    if x.shape[1] == 3:
        table |= {"red": (x[:, 0] - grey).mean((1, 2)), "blue": (x[:, 2] - grey).mean((1, 2))}
    return pd.DataFrame({name: values.numpy() for name, values in table.items()})


def moments(channels: int = 1) -> Measures:
    """Measures of any images with 1 or 3 `channels`; better ones are of your own subject (`lp.Measures`)."""
    return Measures(measure_moments, UNITS | (COLOUR if channels == 3 else {}))
