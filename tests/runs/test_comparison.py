"""Differences between methods: a permutation of signs, against its exact value and the library's."""

import numpy as np
import pandas as pd
import pytest

from lpdirs.runs import comparison
from lpdirs.runs.comparison import FLIPS, collect, medians


def searches(one: np.ndarray, other: np.ndarray) -> pd.DataFrame:
    rows = [
        {"configuration": name, "seed": seed, "score": value}
        for name, values in (("one", one), ("other", other))
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows).assign(generator="gan", training=0, title=lambda t: t["configuration"])


def p_of(difference: np.ndarray) -> float:
    return comparison.tested(searches(difference, np.zeros(len(difference))), [("one", "other")], ["score"])["p"].iloc[0]


def test_few_pairs_have_their_exact_p():
    assert p_of(np.arange(1.0, 7)) == 2 / 64 and p_of(np.array([1.0, 1, 1, -3])) == 1.0


def test_a_clear_difference_of_thirty_pairs_holds_among_hundreds():
    assert p_of(np.linspace(1, 2, 30)) == pytest.approx(2 / (FLIPS + 1), rel=1e-3)  # of either sign
    assert p_of(np.linspace(1, 2, 30)) < 0.05 / 1000


def test_tables_of_a_folder_are_read_as_one_and_medians_have_the_order_that_is_asked_for(tmp_path):
    for name, shift in (("gan", 0.0), ("vae", 1.0)):
        table = searches(np.arange(3.0) + shift, np.zeros(3)).assign(generator=name)
        table.to_csv(tmp_path / f"scores_{name}.csv", index=False)
    rows = collect(tmp_path)
    found = medians(rows, {"score": "the score"}, ["other", "missing", "one"])
    assert list(found) == ["GAN", "VAE"] and list(found["VAE"].index) == ["other", "missing", "one"]
    assert found["VAE"].loc["one", "the score"] == 2 and found["VAE"].loc["missing"].isna().all()


def test_the_paper_s_method_is_that_of_the_smallest_k_and_a_larger_k_meets_random_sets_of_its_own():
    base = {"basis": "", "reconstructor": "", "start": ""}
    of = lambda name, method, k, **known: base | {"configuration": name, "method": method, "K": k} | known
    paper = {"basis": "unit", "reconstructor": "lenet"}
    rows = [of("many", "reconstructor", 100, **paper), of("motion", "motion", 32), of("random-many", "random", 100)]
    rows += [of("few", "reconstructor", 32, **paper), of("by chance", "random", 32)]
    pairs = comparison.pairs_to_test(pd.DataFrame(rows))
    assert ("few", "by chance") in pairs and ("motion", "few") in pairs and ("many", "random-many") in pairs
    assert ("many", "by chance") not in pairs
