"""Intervals that hold what they say: their coverage is a test (tests/scores/test_intervals.py)."""

import warnings

import numpy as np
from scipy import stats


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
