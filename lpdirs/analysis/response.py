"""What a direction does: how each measured factor answers to steps along it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn

from lpdirs.analysis.anatomy import measure
from lpdirs.analysis.zposition import ZPosition
from lpdirs.data.store import to_hu
from lpdirs.discovery.directions import Directions
from lpdirs.generative.generators import generate

FACTORS = ("rotation", "thickness", "breast", "y_position", "z_position")


@dataclass(frozen=True)
class Responses:
    """`values` (K, n steps, N, factors) measured along every direction; `spread` (factors,), SDs over unshifted samples."""

    values: np.ndarray
    steps: np.ndarray
    spread: pd.Series

    def table(self) -> pd.DataFrame:
        """A row a direction and factor: r, slope (units a step), effect (SDs a step), sign_consistency, selectivity, missing.

        r is Pearson's correlation of step and factor over all paths, each path measured from its own mean, so that it says
        what the step does and not how the starting slices differ. Selectivity is the factor's share of the direction's
        absolute effects. Values that could not be measured are left out and counted in `missing` (a share).
        """
        rows = []
        for k, per_direction in enumerate(self.values):
            for name, path in zip(self.spread.index, np.moveaxis(per_direction, -1, 0), strict=True):  # (n steps, N)
                known = np.isfinite(path)
                enough = known.sum(0) >= max(3, len(self.steps) // 2)
                row = {"direction": k, "factor": name, "missing": float(1 - known.mean())}
                rows.append(row | _respond(path[:, enough], self.steps, self.spread[name]))
        table = pd.DataFrame(rows)
        total = table.groupby("direction")["effect"].transform(lambda e: e.abs().sum())
        table["selectivity"] = table["effect"].abs() / total.where(total > 0)
        return table


def _respond(path: np.ndarray, steps: np.ndarray, spread: float) -> dict[str, float]:
    nothing = {"r": np.nan, "slope": np.nan, "effect": np.nan, "sign_consistency": np.nan}
    if path.shape[1] == 0 or not spread > 0:
        return nothing
    known = np.isfinite(path)
    x = np.where(known, steps[:, None], np.nan)
    x, y = x - np.nanmean(x, 0), path - np.nanmean(path, 0)
    xy, xx, yy = np.nansum(x * y, 0), np.nansum(x * x, 0), np.nansum(y * y)
    slope = xy.sum() / xx.sum()
    r = xy.sum() / np.sqrt(xx.sum() * yy) if yy > 0 else 0.0
    agree = np.mean(np.sign(xy) == np.sign(slope)) if slope else np.nan
    return {"r": r, "slope": slope, "effect": slope / spread, "sign_consistency": agree}


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
    samples: int = 48,
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
