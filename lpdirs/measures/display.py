"""How the values of images are shown: which number is black, which white, and in which unit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np

from lpdirs.base.errors import UserError

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
