"""Have models of single slices learned the third dimension? A slice is walked to other levels, and compared with the patient."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from lpdirs.data.store import Slices, to_hu
from lpdirs.discovery.closed_form import random
from lpdirs.discovery.curved import LatentPath
from lpdirs.discovery.directions import Best, Directions
from lpdirs.measures.measures import Measures
from lpdirs.measures.thorax import known_z
from lpdirs.models.generators import Generator

GAPS_MM = (10, 20, 40, 60, 100)  # how far apart slices are, to the nearest that the series have
PATIENTS = 24  # at most
FAR = 12.0  # the largest shift along a straight direction


@dataclass(frozen=True)
class Walk:
    """A generator with its curved `path` through the levels, and `put`, which puts slices (N, 1, S, S) into its latent space."""

    generator: Generator
    path: LatentPath
    put: Callable[[Tensor], Tensor]

    def chest(self, slices: Tensor, start: int, z: np.ndarray) -> Tensor:
        """The slices at levels z (N,) as the generator draws them from the one numbered `start` alone."""
        latent = self.put(slices[start : start + 1]).expand(len(z), -1)
        return self.generator.images(self.path.move(latent, np.full(len(z), z[start]), z))


def pairs_of(slices: Slices, gaps_mm: tuple[float, ...] = (10, 20, 40, 60), starts: int = 4) -> pd.DataFrame:
    """Slices of one series that lie so far apart: rows `start` and `end` of the table, `gap` in mm, `patient`, `z_start` and `z_end`.

    Up to `starts` evenly spread ones a series, gap and way (to the feet, to the head); an end is off by at most half
    the distance of slices.
    """
    z, rows = known_z(slices.table), []
    for _, members in slices.table.groupby("series").indices.items():
        mm = slices.table["z_mm"].to_numpy()[members]
        near = np.median(np.abs(np.diff(np.sort(mm)))) / 2 + 0.01 if len(mm) > 1 else 0.0
        for gap in gaps_mm:
            for way in (-1, 1):
                away = np.abs(mm[None, :] - (mm[:, None] + way * gap))
                ends = away.argmin(1)
                ok = np.flatnonzero((away[np.arange(len(mm)), ends] <= near) & np.isfinite(z[members]) & np.isfinite(z[members[ends]]))
                for i in ok[np.unique(np.linspace(0, len(ok) - 1, min(starts, len(ok))).astype(int))] if len(ok) else ():
                    rows.append((members[i], members[ends[i]], gap, slices.table["patient"][members[i]]))
    table = pd.DataFrame(rows, columns=["start", "end", "gap", "patient"])
    return table.assign(z_start=z[table["start"].to_numpy(int)], z_end=z[table["end"].to_numpy(int)])


def usual_pairs(held_out: Slices) -> pd.DataFrame:
    """`pairs_of` held-out slices at about GAPS_MM, of at most PATIENTS; none where the series are single slices."""
    steps = held_out.table.groupby("series")["z_mm"].apply(lambda z: np.median(np.abs(np.diff(np.sort(z)))) if len(z) > 1 else np.nan)
    if not np.isfinite(steps).any():
        return pairs_of(held_out, ()).head(0)
    step = float(steps.median())
    pairs = pairs_of(held_out, tuple(sorted({step * max(1, round(gap / step)) for gap in GAPS_MM})), starts=2)
    return pairs[pairs["patient"].isin(sorted(pairs["patient"].unique())[:PATIENTS])].reset_index(drop=True)


def predict(
    walk: Walk, directions: Directions, best: Best | None, pairs: pd.DataFrame, data: tuple[Slices, Slices], measures: Measures,
    seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """`predictions` of every way to draw a patient's slice at another level; `data` is train and held-out, `best` the best direction for
    z, None where none moves it.

    The slice unchanged, or drawn again and staying put, a random direction, the mean slice and that of the most similar training patient
    need no model that knows where to go; the last, the patient's own slice there drawn again, is the floor.
    """
    train, held_out = data
    generator = walk.generator
    used = np.unique(pairs[["start", "end"]])
    known = dict(zip(used, walk.put(held_out.tensor(used)), strict=True))
    at = lambda rows, which: torch.stack([known[i] for i in rows[which]])
    moves = best is not None and bool(best.slope)
    straight = directions.matrix[best.direction] if moves and best is not None else torch.zeros(directions.latent_dim)
    away = ((pairs["z_end"] - pairs["z_start"]) / (best.slope if moves and best is not None else np.inf)).to_numpy()
    far = torch.tensor(away, dtype=torch.float32).clamp(-FAR, FAR)[:, None]
    anyhow = random(1, directions.latent_dim, seed)[0]
    curved = lambda rows: walk.path.move(at(rows, "start"), rows["z_start"].to_numpy(), rows["z_end"].to_numpy())
    ways = {
        "unchanged slice": lambda rows: held_out.tensor(rows["start"].to_numpy(int)),
        "stays put": lambda rows: generator.images(at(rows, "start")),
        "random direction": lambda rows: generator.images(at(rows, "start") + far * anyhow),
        "straight direction": lambda rows: generator.images(at(rows, "start") + far * straight),
        "curved path": lambda rows: generator.images(curved(rows)),
        "mean training slice there": lambda rows: mean_slices(train, rows["z_end"].to_numpy()),
        "most similar training patient": lambda rows: most_similar(
            train, held_out.tensor(rows["start"].to_numpy(int)), rows["z_start"].to_numpy(), rows["z_end"].to_numpy()
        ),
        "the slice itself, drawn again": lambda rows: generator.images(at(rows, "end")),
    }
    return predictions(held_out, pairs, ways, measures)


def mean_slices(slices: Slices, z: np.ndarray, near: float = 0.03) -> Tensor:
    """The mean of all slices at each of the levels z (N,), give or take `near`, or else the slice that is nearest; (N, 1, S, S)."""
    level, drawn = known_z(slices.table), []
    for one in z:
        away = np.abs(level - one)
        rows = np.flatnonzero(away <= near)
        drawn.append(slices.tensor(rows if len(rows) else [np.nanargmin(away)]).mean(0))
    return torch.stack(drawn)


def most_similar(slices: Slices, starts: Tensor, z_start: np.ndarray, z_end: np.ndarray, near: float = 0.03) -> Tensor:
    """Without any model: for slices `starts` (N, 1, S, S) at levels z_start (N,) the slice at z_end (N,) of the patient in `slices` who
    looks most like them at z_start, by mean squares, both give or take `near`; (N, 1, S, S). Where nobody has both, the mean slice."""
    level, patient, found = known_z(slices.table), slices.table["patient"].to_numpy(), []
    for start, here, there in zip(starts, z_start, z_end, strict=True):
        ends = np.flatnonzero(np.abs(level - there) <= near)
        rows = np.flatnonzero((np.abs(level - here) <= near) & np.isin(patient, patient[ends]))
        if not len(rows):
            found.append(mean_slices(slices, np.array([there]), near)[0])
            continue
        likest = patient[rows[int((slices.tensor(rows) - start).square().mean((1, 2, 3)).argmin())]]
        of_that = ends[patient[ends] == likest]
        found.append(slices.tensor(of_that[[np.abs(level[of_that] - there).argmin()]])[0])
    return torch.stack(found)


def predictions(
    slices: Slices, pairs: pd.DataFrame, methods: Mapping[str, Callable[[pd.DataFrame], Tensor]], measures: Measures | None = None
) -> pd.DataFrame:
    """How far each method's slices (N, 1, S, S), one a row of `pairs`, are from the patient's own: a row a pair and method.

    `error` is the root mean square in HU; with `measures` also the absolute error of each factor.
    """
    truth = slices.tensor(pairs["end"].to_numpy(int))
    hu = lambda x: to_hu(x[:, 0].numpy(), slices.window)
    known = measures(truth) if measures is not None else None
    parts = []
    for name, method in methods.items():
        made = method(pairs)
        error = np.sqrt(np.mean((hu(made) - hu(truth)) ** 2, axis=(1, 2)))
        part = pairs[["patient", "gap"]].assign(method=name, error=error)
        if measures is not None and known is not None:
            part = pd.concat([part.reset_index(drop=True), (measures(made) - known).abs()], axis=1)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def over_patients(table: pd.DataFrame, column: str = "error") -> pd.DataFrame:
    """Mean over patients and the half width of its 95 percent interval (Student's t over patients), a row a method, a column a gap."""
    each = table.groupby(["method", "gap", "patient"], sort=False)[column].mean()
    groups = each.groupby(["method", "gap"], sort=False)
    mean, n, deviation = groups.mean(), groups.count(), groups.std()
    half = deviation / np.sqrt(n) * stats.t.ppf(0.975, np.maximum(n - 1, 1))
    return pd.concat({"mean": mean.unstack(), "half": half.unstack()}, axis=1).loc[list(dict.fromkeys(table["method"]))]


def reformat(hu: np.ndarray, z: np.ndarray, length_mm: float, pixel_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Coronal and sagittal cut through the middle of a stack (n, S, S) whose slices lie at z; rows of `pixel_mm`, top is the head."""
    order = np.argsort(z)
    n = max(2, round(np.ptp(z) * length_mm / pixel_mm))
    rows = np.interp(np.linspace(z.min(), z.max(), n), z[order], np.arange(len(z)))
    low = np.minimum(rows.astype(int), len(z) - 2)
    share = (rows - low)[:, None, None]
    volume = hu[order][low] * (1 - share) + hu[order][low + 1] * share
    middle = hu.shape[-1] // 2
    return volume[:, middle], volume[:, :, middle]
