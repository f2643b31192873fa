"""Directions that bend: the mean path of the latent as a known factor grows, from knot to knot."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lpdirs.base.errors import UserError
from lpdirs.discovery.closed_form import known_factors
from lpdirs.discovery.directions import along
from lpdirs.discovery.registry import Found, method
from lpdirs.models.generators import Generator

RIDGE = 1e-3  # of the path's weights, relative to the data's
TAILS = 0.02  # of the factor's values at either end, beyond which a path goes on straight
KNOTS = 5


@dataclass(frozen=True)
class LatentPath:
    """A curved path through latent space: how the mean latent goes with a factor, from knot to knot."""

    knots: np.ndarray
    weight: np.ndarray  # (knots, d)

    def mean(self, value: np.ndarray) -> Tensor:
        """The path at values (N,), (N, d), but for a constant."""
        return torch.from_numpy(_hats(value, self.knots) @ self.weight).float()

    def move(self, latents: Tensor, start: np.ndarray, end: np.ndarray) -> Tensor:
        """Latents (N, d) of slices at values `start` (N,), taken along to values `end`."""
        return latents + self.mean(end) - self.mean(start)

    def bend(self, middle: float) -> Tensor:
        """The path as of a curved direction: way along it from `middle`, in units of z, and offset from there, (knots + 1, 1 + d)."""
        at = np.unique([*self.knots, np.clip(middle, self.knots[0], self.knots[-1])])
        offset = self.mean(at) - self.mean(np.array([middle]))
        way = torch.cat([torch.zeros(1), (offset[1:] - offset[:-1]).norm(dim=1).cumsum(0)])
        return torch.cat([(way - way[np.abs(at - middle).argmin()])[:, None], offset], 1)


def fit_path(latents: Tensor, values: np.ndarray, groups: np.ndarray | None = None, knots: int = 7, tails: float = 0.0) -> LatentPath:
    """The path on which latents (N, d) go with values (N,) of a factor: piecewise linear, least squares.

    With `groups` (N,), such as patients, only differences within one count, so that it is of the factor and not of who was seen at which.
    Slices without a value are left out; knots lie evenly between the values that leave a share of `tails` at either end.
    """
    known = np.isfinite(values)
    if known.sum() < 2 * knots:
        raise UserError(f"a path needs at least {2 * knots} slices whose value is known, and has {int(known.sum())}")
    value, x = values[known], latents.numpy()[known].astype(np.float64)
    at = np.linspace(np.quantile(value, tails), np.quantile(value, 1 - tails), knots)
    basis = _hats(value, at)
    group = np.zeros(len(value), int) if groups is None else np.unique(np.asarray(groups)[known], return_inverse=True)[1]
    inside = lambda rows: rows - pd.DataFrame(rows).groupby(group).transform("mean").to_numpy()
    b, y = inside(basis), inside(x)
    return LatentPath(at, np.linalg.solve(b.T @ b + RIDGE * len(value) / knots * np.eye(knots), b.T @ y))


def curved(z: Tensor, factors: pd.DataFrame) -> tuple[Tensor, dict[int, Tensor]]:
    """For each factor (a column of N rows, NaN where it is unknown) the mean path of z (N, d): its tangent in the middle (K, d), and bends.

    A bend (n, 1 + d) says for each way along the path, in units of z, how far it has come: what `Directions.shift` adds.
    """
    bends = {}
    for i, name in enumerate(factors):
        values = factors[name].to_numpy(float)
        if np.isfinite(values).sum() < 2 * KNOTS or not np.ptp(np.nanquantile(values, [TAILS, 1 - TAILS])) > 0:
            raise UserError(f"{name} cannot be measured, or hardly varies, in these samples: leave its column out, or give more of them")
        bends[i] = fit_path(z, values, knots=KNOTS, tails=TAILS).bend(float(np.nanmedian(values)))
    return torch.stack([tangent(bend) for bend in bends.values()]), bends


@method(
    "curved",
    "curved paths of known factors",
    factors=True,
    needs=("known",),
    about="the mean path of z as each known factor grows, which bends: no discovery either, one a factor",
)
def curved_of(generator: Generator, k: int, seed: int, known: object = None) -> Found:
    """`curved`, one a column of the known table."""
    z, table = known_factors(known, "curved", generator.latent_dim)
    matrix, bends = curved(z, table)
    return Found(matrix, {i: str(column) for i, column in enumerate(table)}, bends=bends)


def tangent(bend: Tensor) -> Tensor:
    """The unit vector (d,) in which a bend goes around its middle: over the eighth of its length on either side."""
    near = (bend[-1, 0] - bend[0, 0]) / 8
    back, on = along(bend, torch.stack([-near, near]))
    return (on - back) / (on - back).norm().clamp(min=1e-12)


def _hats(value: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Piecewise linear basis (N, knots), constant beyond the ends."""
    place = np.clip(np.interp(value, knots, np.arange(len(knots))), 0, len(knots) - 1)
    return np.maximum(0.0, 1 - np.abs(place[:, None] - np.arange(len(knots))))
