"""What a direction does: how each measured factor answers to shifts along it, with intervals over starting images."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pydantic import InstanceOf
from scipy import stats

from lpdirs.base.checked import Numbers, Seed, Whole, checked
from lpdirs.base.errors import UserError
from lpdirs.base.progress import Progress
from lpdirs.discovery.directions import Directions
from lpdirs.measures.measures import Measures
from lpdirs.models.generators import Generator

RESAMPLES = 1000
HALVES = ("odd", "even")  # of the starting images
STILL = 1e-5  # share of its largest value: a factor whose SD is less is rounding, and does not vary
PIXEL = 0.1  # of what moving an image by a pixel does to a factor: one whose SD is less does not vary either
LEAST_EFFECT = 0.05  # SDs per unit of shift that a factor's best direction moves it, at least
MISSING = 0.5  # share of walks on which no factor could be measured, from which a direction counts as not measured


@dataclass(frozen=True)
class Responses:
    """`values` (K, n shifts, N, factors) measured along every direction; `spread` (factors,), SDs over unshifted samples.

    `levels` is that of the Measures: of a factor that exists where another lies in a range, which.
    """

    values: np.ndarray
    shifts: np.ndarray
    spread: pd.Series
    levels: Mapping[str, tuple[str, float, float]] = field(default_factory=dict)
    matrix: torch.Tensor | None = None  # of the directions that were measured
    units: Mapping[str, str] = field(default_factory=dict)  # of the factors, as the Measures have them
    measures: Measures | None = None  # that they were measured with
    generator: str = ""  # fingerprint of that which they were measured on

    def check(self, directions: Directions, generator: Generator | None = None) -> None:
        """UserError unless these are the responses of those directions, on that generator."""
        other = "" if generator is None else generator.info.fingerprint
        if self.generator and other and self.generator != other:
            raise UserError(f"these responses were measured on another generator (fingerprint {self.generator}, not {other})")
        same = self.matrix is None or (self.matrix.shape == directions.matrix.shape and torch.allclose(self.matrix, directions.matrix))
        if not same or len(self.values) != len(directions):
            raise UserError("these are the responses of other directions: call lp.respond with these")

    def table(self, seed: int = 0, resamples: int = RESAMPLES) -> pd.DataFrame:
        """A row a direction and factor; `_low` and `_high` are 95 percent intervals over the N starting images.

        They are bootstrap intervals, corrected for bias and skewness (Efron's BCa), and Wilson's for the share of signs.

        r: Pearson's correlation of shift and factor along a path, mean over paths: how straight. slope: units a unit of shift.
        effect: SDs of unshifted samples per unit of shift. sign_consistency: share of paths whose slope has the sign of the mean.
        selectivity: the factor's share of the direction's absolute effects. moved: how far the factor goes from its own mean along a
        path, root mean square over paths, in SDs: what bends, or goes up here and down there, has no effect and moves.
        q: of a t-test of the paths' slopes against 0, after Benjamini and Hochberg over the whole table.
        missing: share that could not be measured and is left out; missing_first and missing_last at the lowest and the highest shift.
        r_level, sign_level: r and sign consistency over the starting images at whose level the factor exists; at_level: their share.
        For factors that exist everywhere, over all.
        r_odd, effect_odd, selectivity_odd, and _even: the same over every other starting image, for `cross_fitted`.
        """
        measured = np.isfinite(self.values)
        enough = measured.sum(1) >= max(3, len(self.shifts) // 2)  # (K, N, F)
        x = np.where(measured, self.shifts[:, None, None], np.nan)
        with np.errstate(invalid="ignore"), _quiet():
            x, y = x - np.nanmean(x, 1, keepdims=True), self.values - np.nanmean(self.values, 1, keepdims=True)
        xy, xx, yy = (np.where(enough, np.nansum(part, 1), 0.0) for part in (x * y, x * x, y * y))
        with np.errstate(invalid="ignore", divide="ignore"):
            slopes = np.where(enough, xy / xx, np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            along = np.where(enough, np.where(yy > 0, xy / np.sqrt(xx * yy), 0.0), np.nan)
        counts = np.random.default_rng(seed).multinomial(xy.shape[1], [1 / xy.shape[1]] * xy.shape[1], resamples)
        n = xy.shape[1]
        r, slope, effect, selectivity, steady = self._of_resamples(np.ones((1, n)), slopes, along)  # the sample itself
        drawn, left_out = self._of_resamples(counts, slopes, along), self._of_resamples(_but_one_part(n), slopes, along)
        columns = {"r": (0, r), "effect": (2, effect), "selectivity": (3, selectivity)}
        k, f = self.values.shape[0], self.values.shape[3]
        table = pd.DataFrame({"direction": np.repeat(np.arange(k), f), "factor": np.tile(self.spread.index, k)})
        for name, (which, value) in columns.items():
            low, high = bca(value[0], drawn[which], left_out[which])
            table[name], table[f"{name}_low"], table[f"{name}_high"] = value.ravel(), low.ravel(), high.ravel()
        halves = self._of_resamples(np.stack([np.arange(n) % 2 == i for i in (1, 0)]).astype(float), slopes, along)
        for i, half in enumerate(HALVES):
            for name, which in (("r", 0), ("effect", 2), ("selectivity", 3)):
                table[f"{name}_{half}"] = halves[which][i].ravel()
        table["sign_consistency"] = steady.ravel()
        table["sign_consistency_low"], table["sign_consistency_high"] = wilson(steady.ravel(), np.isfinite(slopes).sum(1).ravel())
        table["slope"] = slope[0].ravel()
        with np.errstate(invalid="ignore", divide="ignore"), _quiet():
            table["moved"] = (np.sqrt(np.nanmean(y**2, (1, 2))) / np.where(self.spread > 0, self.spread, np.nan)).ravel()
        level = self._at_level()
        of_level = [self._of_resamples(level[None, :, i].astype(float), slopes, along) for i in range(f)]
        for name, which in (("r_level", 0), ("sign_level", 4)):
            table[name] = np.stack([parts[which][0, :, i] for i, parts in enumerate(of_level)], 1).ravel()
        table["at_level"] = np.tile(level.mean(0), k)
        table["q"] = _q_values(slopes).ravel()
        table["missing"] = 1 - measured.mean((1, 2)).ravel()
        for name, end in (("missing_first", self.shifts.argmin()), ("missing_last", self.shifts.argmax())):
            table[name] = 1 - measured[:, end].mean(1).ravel()
        return table

    def to_csv(self, path: str | Path) -> None:
        """What was measured, a row a direction, shift, starting image and factor."""
        index = pd.MultiIndex.from_product([range(n) if i != 1 else self.shifts for i, n in enumerate(self.values.shape[:3])])
        table = pd.DataFrame(self.values.reshape(-1, self.values.shape[3]), index, self.spread.index)
        table.rename_axis(["direction", "shift", "image"]).to_csv(path)

    def mean_path(self, k: int, factor: str) -> np.ndarray:
        """How a factor goes along direction k on average, in SDs from the path's own mean, (n shifts,)."""
        path = self.values[k, :, :, self.spread.index.get_loc(factor)]
        with np.errstate(invalid="ignore", divide="ignore"), _quiet():
            return np.nanmean(path - np.nanmean(path, 0), axis=1) / self.spread[factor]

    def _of_resamples(self, counts: np.ndarray, slopes: np.ndarray, along: np.ndarray) -> tuple[np.ndarray, ...]:
        """r, slope, effect, selectivity and sign consistency for rows of `counts` (B, N) of the paths, each (B, K, F)."""
        total = lambda part: np.einsum("bn,knf->bkf", counts, part, optimize=True)
        usable = np.isfinite(slopes)
        filled = np.where(usable, slopes, 0.0)
        spread = self.spread.to_numpy()
        with np.errstate(invalid="ignore", divide="ignore"):
            n = total(usable.astype(float))
            slope = total(filled) / n
            effect = slope / np.where(spread > 0, spread, np.nan)
            r = total(np.where(usable, along, 0.0)) / n
            whole = np.nansum(np.abs(effect), axis=2, keepdims=True)
            up = total((filled > 0).astype(float)) / n
            down = total((filled < 0).astype(float)) / n
        steady = np.where(slope > 0, up, np.where(slope < 0, down, np.nan))
        return r, slope, effect, np.abs(effect) / np.where(whole > 0, whole, np.nan), steady

    def _at_level(self) -> np.ndarray:
        """Whether each factor exists where each starting image lies, (N, F)."""
        here = np.ones(self.values.shape[2:], bool)
        names = self.spread.index
        for factor, (other, low, high) in self.levels.items():
            if factor in names and other in names:
                value = self.values[0, np.abs(self.shifts).argmin(), :, names.get_loc(other)]
                here[:, names.get_loc(factor)] = (value >= low) & (value <= high)
        return here


def _but_one_part(n: int, parts: int = 256) -> np.ndarray:
    """Counts of n rows with one left out, a row each; of many rows with one of `parts` parts left out."""
    part = np.arange(n) * min(n, parts) // n
    return (part[None] != np.arange(part[-1] + 1)[:, None]).astype(float)


def _q_values(slopes: np.ndarray) -> np.ndarray:
    """False discovery rates of t-tests over the paths' slopes (K, N, F), (K, F); 1 where nothing can be tested."""
    with np.errstate(invalid="ignore", divide="ignore"), _quiet():
        p = np.asarray(stats.ttest_1samp(slopes, 0.0, axis=1, nan_policy="omit").pvalue, float)
    return stats.false_discovery_control(np.where(np.isfinite(p), p, 1.0), axis=None)


def _quiet() -> warnings.catch_warnings:
    """Means over nothing are NaN here, and meant to be."""
    return warnings.catch_warnings(action="ignore", category=RuntimeWarning)


def spread_of(generator: Generator, measures: Measures, unshifted: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """SDs of factors over unshifted samples, 0 where one hardly varies, by less than a tenth of what a pixel's move does to it; and which
    are the same in all. UserError for measures that depend on their batch."""
    some = generator.images(generator.draw(8, 0))
    measures.check_apart(some)
    same = unshifted.std() <= STILL * unshifted.abs().max()
    return unshifted.std().where(~same & (unshifted.std() > PIXEL * measures.of_a_pixel(some)), 0.0), same


@checked
def respond(
    generator: InstanceOf[Generator],
    directions: InstanceOf[Directions],
    measures: InstanceOf[Measures] | None = None,
    shifts: Numbers = (-4, -2, 0, 2, 4),
    samples: Whole = 256,
    seed: Seed = 0,
) -> Responses:
    """Measure every factor on `samples` random images moved by `shifts` (in units of z) along every direction.

    `measures` are by default the generator's own. A factor that hardly varies, by less than a tenth of what a pixel's move does to it,
    counts as still: it has no effect. UserError for fewer than 3 different shifts or 2 images, or measures that depend on their batch.
    """
    measures = measures or generator.measures
    if len(set(shifts)) < max(3, len(shifts)) or samples < 2:
        raise UserError(f"responses need at least 3 different shifts and 2 starting images, not {shifts!r} and {samples!r}")
    directions.check(generator)
    rng = torch.Generator().manual_seed(seed)
    unshifted = measures.of(generator, generator.draw(max(256, samples), rng))
    spread, same = spread_of(generator, measures, unshifted)
    z = generator.draw(samples, rng)
    values = np.empty((len(directions), len(shifts), samples, len(measures.factors)))
    bar = Progress("measuring along directions")
    for k in range(len(directions)):
        moved = torch.cat([directions.shift(z, k, shift) for shift in shifts])
        values[k] = measures.of(generator, moved).to_numpy().reshape(len(shifts), samples, -1)
        bar(k + 1, len(directions))
    with _quiet():
        moves = np.nanstd(values, axis=(0, 1, 2)) > STILL * np.nanmax(np.abs(values), axis=(0, 1, 2))
    if still := [factor for factor, moved in zip(measures.factors, moves, strict=True) if moved and same[factor]]:
        warnings.warn(f"{', '.join(still)}: the same in every unshifted image, and so left out of effects and selectivity", stacklevel=2)
    made_by = generator.info.fingerprint
    return Responses(values, np.asarray(shifts, float), spread, measures.levels, directions.matrix, measures.units, measures, made_by)


def merit(r: np.ndarray, selectivity: np.ndarray, effect: np.ndarray, factors: int) -> np.ndarray:
    """How good directions are for a factor: |r| * selectivity, and with one factor, of which selectivity says nothing, |r| * |effect|;
    -inf for those that hardly move it."""
    score = np.abs(r) * (np.abs(effect) if factors == 1 else selectivity)
    return np.nan_to_num(np.where(np.abs(effect) >= LEAST_EFFECT, score, -np.inf), nan=-np.inf, neginf=-np.inf)


def best_directions(table: pd.DataFrame) -> pd.DataFrame:
    """For each factor the row of its best direction by `merit`, among those along which something could be measured; a row of NaN for
    a factor that none moves."""
    measured = table.groupby("direction")["missing"].transform("min") <= MISSING
    factors = table["factor"].unique()
    score = merit(table["r"].to_numpy(), table["selectivity"].to_numpy(), table["effect"].to_numpy(), len(factors))
    ranked = table.assign(score=score)[measured & np.isfinite(score)].sort_values("score", ascending=False, kind="stable")
    return ranked.groupby("factor", sort=False).head(1).set_index("factor").reindex(factors)


def cross_fitted(table: pd.DataFrame, sets: np.ndarray | None = None) -> dict[str, pd.DataFrame]:
    """|r| and selectivity of the best direction for each factor, chosen on one half of the starting images and scored on the other.

    The mean of both ways round: what is chosen and scored on the same images looks better than it is, the more so the fewer they are.
    `sets` (S, K) are rows of the table's directions in order (default: all, one set); a row a set, a column a factor, and NaN where
    no direction moves a factor on either half.
    """
    factors = list(dict.fromkeys(table["factor"]))
    of = lambda name: table.pivot(index="direction", columns="factor", values=name)[factors].to_numpy()
    r, effect, selectivity = ([of(f"{name}_{half}") for half in HALVES] for name in ("r", "effect", "selectivity"))
    sets = np.arange(len(r[0]))[None] if sets is None else sets
    found: dict[str, list[np.ndarray]] = {"r": [], "selectivity": []}
    for one, other in ((0, 1), (1, 0)):
        score = merit(r[one], selectivity[one], effect[one], len(factors))[sets]  # (S, K, F)
        chosen = np.take_along_axis(sets[:, :, None], score.argmax(1)[:, None], 1)[:, 0]  # (S, F)
        for name, values in (("r", np.abs(r[other])), ("selectivity", selectivity[other])):
            found[name].append(np.where(np.isfinite(score.max(1)), values[chosen, np.arange(len(factors))], np.nan))
    with _quiet():
        return {name: pd.DataFrame(np.nanmean(values, axis=0), columns=factors) for name, values in found.items()}


def bca(value: np.ndarray, drawn: np.ndarray, left_out: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Bias-corrected and accelerated bootstrap interval (Efron 1987) of values of any shape, lower and upper end.

    `drawn` (B, ...) are the same values on B resamples, `left_out` (N, ...) those without one row each; NaN where nothing was measured.
    """
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning), np.errstate(invalid="ignore", divide="ignore"):
        below = (np.sum(drawn < value, 0) + 0.5 * np.sum(drawn == value, 0)) / np.maximum(np.isfinite(drawn).sum(0), 1)
        bias = stats.norm.ppf(np.clip(below, 1e-3, 1 - 1e-3))
        away = np.nanmean(left_out, 0) - left_out
        skew = np.nansum(away**3, 0) / (6 * np.nansum(away**2, 0) ** 1.5)
        skew = np.where(np.isfinite(skew), skew, 0.0)
        ordered = np.sort(drawn, axis=0)  # NaN last
        last = np.maximum(np.isfinite(drawn).sum(0) - 1, 0)
        ends = []
        for share in ((1 - level) / 2, (1 + level) / 2):
            z = bias + stats.norm.ppf(share)
            at = stats.norm.cdf(bias + z / (1 - skew * z)) * last
            lower = np.clip(np.floor(at), 0, last).astype(int)
            upper = np.clip(lower + 1, 0, last)
            a, b = (np.take_along_axis(ordered, index[None], 0)[0] for index in (lower, upper))
            ends.append(np.where(np.isfinite(value), a + (at - lower) * (b - a), np.nan))
    return ends[0], ends[1]


def wilson(share: np.ndarray, n: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's interval (1927) of a share of n, lower and upper end; NaN where n is 0."""
    z2 = stats.norm.ppf((1 + level) / 2) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        middle = (share + z2 / (2 * n)) / (1 + z2 / n)
        reach = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    return middle - reach, middle + reach


def holm(p: np.ndarray) -> np.ndarray:
    """p-values after Holm's correction (1979) for all of them; what was not tested (NaN) stays so, and does not count."""
    p = np.asarray(p, float)
    tested = np.isfinite(p)
    order = np.argsort(p[tested], kind="stable")
    adjusted = np.minimum(1.0, np.maximum.accumulate(p[tested][order] * np.arange(len(order), 0, -1)))
    out, values = np.full(p.shape, np.nan), np.empty(len(order))
    values[order] = adjusted
    out[tested] = values
    return out
