"""What a direction does: how each measured factor answers to steps along it, with intervals over starting slices."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import nn

from lpdirs.analysis.anatomy import measure
from lpdirs.analysis.zposition import ZPosition
from lpdirs.data.store import to_hu
from lpdirs.discovery.directions import Directions
from lpdirs.generative.generators import generate

FACTORS = ("rotation", "thickness", "breast", "y_position", "z_position", "x_position", "width")
NAMED = FACTORS[:5]  # those that the paper names
LEVELS = {"breast": (0.3, 0.7)}  # where along the body, as z, a factor exists at all; the others do everywhere
RESAMPLES = 1000


@dataclass(frozen=True)
class Responses:
    """`values` (K, n steps, N, factors) measured along every direction; `spread` (factors,), SDs over unshifted samples."""

    values: np.ndarray
    steps: np.ndarray
    spread: pd.Series

    def table(self, seed: int = 0, resamples: int = RESAMPLES) -> pd.DataFrame:
        """A row a direction and factor; `_low` and `_high` are 95 percent intervals by bootstrap over the N starting slices.

        r: Pearson's correlation of step and factor along a path, mean over paths: how straight. rho: Spearman's, likewise.
        r_pooled: Pearson's over all paths at once, each taken from its own mean: how straight and how alike. slope: units a step.
        effect: SDs of unshifted samples a step. sign_consistency: share of paths whose slope has the sign of the mean.
        selectivity: the factor's share of the direction's absolute effects. q: of a t-test of the paths' slopes against 0,
        after Benjamini and Hochberg over the whole table. missing: share that could not be measured and is left out.
        r_level, sign_level: r and sign consistency over the starting slices at whose z the factor exists (LEVELS); at_level: their
        share. Without a z_position, and for factors that exist everywhere, over all.
        """
        known = np.isfinite(self.values)
        enough = known.sum(1) >= max(3, len(self.steps) // 2)  # (K, N, F)
        x = np.where(known, self.steps[:, None, None], np.nan)
        with np.errstate(invalid="ignore"), _quiet():
            x, y = x - np.nanmean(x, 1, keepdims=True), self.values - np.nanmean(self.values, 1, keepdims=True)
        xy, xx, yy = (np.where(enough, np.nansum(part, 1), 0.0) for part in (x * y, x * x, y * y))
        with np.errstate(invalid="ignore", divide="ignore"):
            slopes = np.where(enough, xy / xx, np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            along = np.where(enough, np.where(yy > 0, xy / np.sqrt(xx * yy), 0.0), np.nan)
        counts = np.random.default_rng(seed).multinomial(xy.shape[1], [1 / xy.shape[1]] * xy.shape[1], resamples)
        counts = np.concatenate([np.ones((1, xy.shape[1])), counts])  # the first row is the sample itself
        r, slope, effect, selectivity, steady = self._of_resamples(counts, slopes, along)
        columns = {"r": r, "effect": effect, "selectivity": selectivity, "sign_consistency": steady}
        k, f = self.values.shape[0], self.values.shape[3]
        table = pd.DataFrame({"direction": np.repeat(np.arange(k), f), "factor": np.tile(self.spread.index, k)})
        for name, values in columns.items():
            with _quiet():
                low, high = np.nanquantile(values[1:], [0.025, 0.975], axis=0)
            table[name], table[f"{name}_low"], table[f"{name}_high"] = values[0].ravel(), low.ravel(), high.ravel()
        table["slope"] = slope[0].ravel()
        with np.errstate(invalid="ignore", divide="ignore"):
            table["r_pooled"] = (xy.sum(1) / np.sqrt(xx.sum(1) * yy.sum(1))).ravel()
        level = self._at_level()
        of_level = [self._of_resamples(level[None, :, i].astype(float), slopes, along) for i in range(f)]
        for name, which in (("r_level", 0), ("sign_level", 4)):
            table[name] = np.stack([parts[which][0, :, i] for i, parts in enumerate(of_level)], 1).ravel()
        table["at_level"] = np.tile(level.mean(0), k)
        table["rho"] = self._spearman(enough).ravel()
        table["q"] = _q_values(slopes).ravel()
        table["missing"] = 1 - known.mean((1, 2)).ravel()
        return table

    def mean_path(self, k: int, factor: str) -> np.ndarray:
        """How a factor goes along direction k on average, in SDs from the path's own mean, (n steps,)."""
        path = self.values[k, :, :, self.spread.index.get_loc(factor)]
        with np.errstate(invalid="ignore", divide="ignore"), _quiet():
            return np.nanmean(path - np.nanmean(path, 0), axis=1) / self.spread[factor]

    def _of_resamples(self, counts, slopes, along) -> tuple[np.ndarray, ...]:
        """r, slope, effect, selectivity and sign consistency for rows of `counts` (B, N) of the paths, each (B, K, F)."""
        total = lambda part: np.einsum("bn,knf->bkf", counts, part, optimize=True)
        there = np.isfinite(slopes)
        filled = np.where(there, slopes, 0.0)
        spread = self.spread.to_numpy()
        with np.errstate(invalid="ignore", divide="ignore"):
            n = total(there.astype(float))
            slope = total(filled) / n
            effect = slope / np.where(spread > 0, spread, np.nan)
            r = total(np.where(there, along, 0.0)) / n
            whole = np.nansum(np.abs(effect), axis=2, keepdims=True)
            up = total((filled > 0).astype(float)) / n
            down = total((filled < 0).astype(float)) / n
        steady = np.where(slope > 0, up, np.where(slope < 0, down, np.nan))
        return r, slope, effect, np.abs(effect) / np.where(whole > 0, whole, np.nan), steady

    def _at_level(self) -> np.ndarray:
        """Whether each factor exists at the z of each starting slice, (N, F)."""
        here = np.ones(self.values.shape[2:], bool)
        if "z_position" in self.spread.index:
            z = self.values[0, np.abs(self.steps).argmin(), :, self.spread.index.get_loc("z_position")]
            for factor, (low, high) in LEVELS.items():
                if factor in self.spread.index:
                    here[:, self.spread.index.get_loc(factor)] = (z >= low) & (z <= high)
        return here

    def _spearman(self, enough: np.ndarray) -> np.ndarray:
        ranks = stats.rankdata(np.where(np.isfinite(self.values), self.values, np.inf), axis=1)
        order = stats.rankdata(self.steps)
        x, y = order - order.mean(), ranks - ranks.mean(1, keepdims=True)
        whole = np.isfinite(self.values).all(1) & enough
        with np.errstate(invalid="ignore", divide="ignore"), _quiet():
            rho = np.einsum("s,ksnf->knf", x, y) / np.sqrt((x**2).sum() * (y**2).sum(1))
            return np.nanmean(np.where(whole, rho, np.nan), axis=1)


def _q_values(slopes: np.ndarray) -> np.ndarray:
    """False discovery rates of t-tests over the paths' slopes (K, N, F), (K, F); 1 where nothing can be tested."""
    with np.errstate(invalid="ignore", divide="ignore"), _quiet():
        p = np.asarray(stats.ttest_1samp(slopes, 0.0, axis=1, nan_policy="omit").pvalue, float)
    return stats.false_discovery_control(np.where(np.isfinite(p), p, 1.0), axis=None)


def _quiet():
    """Means over nothing are NaN here, and meant to be."""
    return warnings.catch_warnings(action="ignore", category=RuntimeWarning)


def measure_all(slices: torch.Tensor, window: tuple[float, float], pixel_mm: float, z_position: ZPosition | None) -> pd.DataFrame:
    """All measures of slices (N, 1, S, S) in [-1, 1], with z_position where a regression is given."""
    hu = to_hu(slices[:, 0].numpy(), window)
    table = measure(hu, pixel_mm)
    if z_position is not None:
        table["z_position"] = z_position(hu)
    return table


def respond(
    generator: nn.Module,
    directions: Directions,
    window: tuple[float, float],
    pixel_mm: float,
    z_position: ZPosition | None = None,
    samples: int = 256,
    steps: tuple[float, ...] = (-4, -2, 0, 2, 4),
    factors: tuple[str, ...] = FACTORS,
    seed: int = 0,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Responses:
    """Measure `factors` on `samples` random slices moved by `steps` along every direction."""
    rng = torch.Generator().manual_seed(seed)
    factors = tuple(f for f in factors if f != "z_position" or z_position is not None)
    measured = lambda z: measure_all(generate(generator, z), window, pixel_mm, z_position)[list(factors)]
    spread = measured(torch.randn(max(256, samples), directions.latent_dim, generator=rng)).std()
    z = torch.randn(samples, directions.latent_dim, generator=rng)
    values = np.empty((len(directions), len(steps), samples, len(factors)))
    for k in range(len(directions)):
        moved = torch.cat([directions.shift(z, k, eps) for eps in steps])
        values[k] = measured(moved).to_numpy().reshape(len(steps), samples, len(factors))
        report(k + 1, len(directions))
    return Responses(values, np.asarray(steps, float), spread)


def best_directions(table: pd.DataFrame, least_effect: float = 0.05) -> pd.DataFrame:
    """For each factor the direction of largest |r| * selectivity among those that move it by `least_effect` SDs a step."""
    score = table["r"].abs() * table["selectivity"] * (table["effect"].abs() >= least_effect)
    ranked = table.assign(score=score).dropna(subset=["r"]).sort_values("score", ascending=False)
    return ranked.groupby("factor", sort=False).head(1).set_index("factor").reindex(table["factor"].unique())
