"""Intervals cover as often as they say, on populations like those that are met: skewed correlations, shares near 1, kernel distances."""

import numpy as np
import pandas as pd
import pytest

from lpdirs.scores.realism import kernel_distance
from lpdirs.scores.response import Responses, wilson

SHIFTS = np.array([-4.0, -2, 0, 2, 4])
REPEATS = 300


def paths(n, rng):
    """Walks of n images in two factors, as along a direction: most follow the shift closely, some hardly, a few the other way."""
    slope = np.stack([rng.gamma(2.0, 0.15, n) - 0.08, rng.normal(0.05, 0.1, n)], -1)
    noise = rng.normal(size=(5, n, 2)) * (0.1 + rng.exponential(0.3, (1, n, 1)))
    return SHIFTS[:, None, None] * slope + noise


@pytest.mark.parametrize("n", [48, 256])
def test_intervals_of_responses_cover(n):
    rng = np.random.default_rng(0)
    spread = pd.Series([1.0, 1.0], index=["a", "b"])
    table = lambda values, resamples: Responses(values[None], SHIFTS, spread).table(0, resamples).set_index("factor").loc["a"]
    truth = table(paths(50_000, rng), 1)
    inside = {name: 0 for name in ("r", "effect", "selectivity", "sign_consistency")}
    for _ in range(REPEATS):
        found = table(paths(n, rng), 400)
        for name in inside:
            inside[name] += found[f"{name}_low"] <= truth[name] <= found[f"{name}_high"]
    assert all(0.91 <= hits / REPEATS <= 0.985 for hits in inside.values()), {k: v / REPEATS for k, v in inside.items()}


@pytest.mark.parametrize("share", [0.7, 0.95, 0.99])
def test_wilson_covers(share):
    hits = np.random.default_rng(0).binomial(96, share, 5000)
    low, high = wilson(hits / 96, np.full(5000, 96))
    assert 0.92 <= ((low <= share) & (share <= high)).mean() <= 0.985


def test_the_error_of_a_kernel_distance_covers():
    rng = np.random.default_rng(0)
    draw = lambda n: (rng.normal(size=(n, 6)), rng.normal(0.4, 1.1, size=(n, 6)))
    truth = kernel_distance(*draw(4000))[0]
    found = np.array([kernel_distance(*draw(120)) for _ in range(REPEATS)])
    assert 0.90 <= (np.abs(found[:, 0] - truth) <= 1.96 * found[:, 1]).mean() <= 0.985


def test_a_kernel_distance_of_patients_with_many_slices_is_unbiased_and_its_error_covers():
    rng = np.random.default_rng(0)
    truth = kernel_distance(rng.normal(0, 1.25**0.5, (4000, 6)), rng.normal(0.4, 1.25**0.5, (4000, 6)))[0]
    found = []
    for _ in range(REPEATS):
        patients = np.repeat(np.arange(40), rng.integers(1, 12, 40))
        slices = rng.normal(size=(40, 6))[patients] + rng.normal(0, 0.5, (len(patients), 6))
        samples = rng.normal(0.4, 1.25**0.5, (200, 6))
        found.append((*kernel_distance(slices, samples, patients), *kernel_distance(slices, samples)))
    of_patients, error, of_slices, too_small = np.array(found).T
    assert abs(of_patients.mean() - truth) < 0.06 < of_slices.mean() - truth
    covers = lambda value, half: (np.abs(value - truth) <= 1.96 * half).mean()
    assert covers(of_slices, too_small) < 0.8 and 0.88 <= covers(of_patients, error) <= 0.985
