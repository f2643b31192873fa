"""Does a walk along one direction move through the body? The paper's last claim, as numbers and as a stack of slices."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn

from lpdirs.base.errors import UserError
from lpdirs.data.store import Slices, to_hu
from lpdirs.discovery.directions import Directions
from lpdirs.measures.measures import Measures
from lpdirs.measures.zposition import known_z
from lpdirs.models.generators import generate, info_of


@dataclass(frozen=True)
class Walk:
    """Walks from N starting slices: `hu` (N, n shifts, S, S), `z` (N, n shifts) predicted, `drift` SDs by which other factors move."""

    hu: np.ndarray
    z: np.ndarray
    drift: pd.Series

    @property
    def monotone(self) -> np.ndarray:
        """|Spearman's rho| of shift and predicted z, (N,): 1 where the walk never turns back."""
        n = np.arange(self.z.shape[1])
        return np.array([abs(stats.spearmanr(n, row).statistic) if np.ptp(row) > 0 else 0.0 for row in self.z])

    @property
    def travelled(self) -> np.ndarray:
        """How far each walk goes, from its lowest predicted z to its highest, (N,); 1 is from shoulders to liver."""
        return np.ptp(self.z, axis=1)


def walk_through(
    generator: nn.Module,
    directions: Directions,
    k: int,
    measures: Measures,
    shifts: np.ndarray,
    spread: pd.Series,
    start: Tensor,
) -> Walk:
    """Walk along direction k from `start` (N, d) by `shifts`, and predict z at each; towards the liver.

    `spread` (SDs of factors over samples) is the unit of `drift`: the mean range of each other factor along a walk. UserError where
    the measures have no z_position.
    """
    if "z_position" not in measures.factors:
        raise UserError("a walk through the body needs measures with z_position: thorax(window, pixel_mm, fit_z(train, test))")
    window = info_of(generator).window or (-1.0, 1.0)
    moved = torch.stack([directions.shift(start, k, eps) for eps in shifts], 1)
    x = generate(generator, moved.flatten(0, 1))
    table = measures(x)
    shape = (len(start), len(shifts))
    z = table["z_position"].to_numpy().reshape(shape)
    others = [name for name in measures.factors if name != "z_position" and spread.get(name, 0) > 0]
    ranges = {name: _range(table[name].to_numpy().reshape(shape)) / spread[name] for name in others}
    hu = to_hu(x[:, 0].numpy(), window).reshape(*shape, *x.shape[2:])
    down = np.sign((z[:, -1] - z[:, 0]).sum()) or 1
    return Walk(hu[:, :: int(down)], z[:, :: int(down)], pd.Series(ranges))


def _range(values: np.ndarray) -> float:
    """Mean range of rows (N, n) of which at least half is known; NaN if there is none."""
    rows = values[np.isfinite(values).mean(1) >= 0.5]
    return float(np.mean(np.nanmax(rows, 1) - np.nanmin(rows, 1))) if len(rows) else float("nan")


def neighbour_curve(slices: Slices, most: int = 400, seed: int = 0) -> pd.DataFrame:
    """How much real slices of one patient differ: `gap` in z and `rms` in HU for pairs from the same series, up to 0.3 apart."""
    z, rows = known_z(slices.table), []
    for _, group in slices.table.groupby("series").indices.items():
        order = group[np.argsort(z[group])]
        rows += [(i, j) for n, i in enumerate(order) for j in order[n + 1 :] if 0 < z[j] - z[i] <= 0.3]
    rng = np.random.default_rng(seed)
    if len(rows) > most:
        rows = [rows[i] for i in rng.choice(len(rows), most, replace=False)]
    hu = lambda i: to_hu(slices.tensor([i])[0, 0].numpy(), slices.window)
    rms = [float(np.sqrt(np.mean((hu(i) - hu(j)) ** 2))) for i, j in rows]
    return pd.DataFrame({"gap": [z[j] - z[i] for i, j in rows], "rms": rms}).sort_values("gap", ignore_index=True)


def neighbour_agreement(walk: Walk, real: pd.DataFrame) -> float:
    """How much slices of a walk differ, over how much real slices equally far apart in z do, median over pairs; 1: as in a patient.

    Noise differs between any two real slices and hardly along a walk, so that below 1 is expected. NaN without real pairs.
    """
    if len(real) < 10:
        return float("nan")
    trend = real.groupby(real["gap"].round(2))["rms"].mean()
    first, second = np.triu_indices(walk.z.shape[1], 1)
    gap = np.abs(walk.z[:, second] - walk.z[:, first])
    rms = np.sqrt(np.mean((walk.hu[:, second] - walk.hu[:, first]) ** 2, axis=(2, 3)))
    use = (gap >= real["gap"].min()) & (gap <= real["gap"].max())
    return float(np.median(rms[use] / np.interp(gap[use], trend.index, trend))) if use.any() else float("nan")


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
