"""Have models of single slices learned the third dimension? A slice is walked to other levels, and compared with the patient."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from lpdirs.data.store import Slices, to_hu
from lpdirs.measures.measures import Measures
from lpdirs.measures.zposition import known_z


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


def mean_slices(slices: Slices, z: np.ndarray, near: float = 0.03) -> Tensor:
    """The mean of all slices at each of the levels z (N,), give or take `near`, or else the slice that is nearest; (N, 1, S, S)."""
    level, drawn = known_z(slices.table), []
    for one in z:
        away = np.abs(level - one)
        rows = np.flatnonzero(away <= near)
        drawn.append(slices.tensor(rows if len(rows) else [np.nanargmin(away)]).mean(0))
    return torch.stack(drawn)


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
