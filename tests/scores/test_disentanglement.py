import numpy as np
import pandas as pd
import pytest

from lpdirs.scores.disentanglement import _one_sided, mutual_information, one_to_one


@pytest.fixture(scope="module")
def factors():
    return pd.DataFrame(np.random.default_rng(0).normal(size=(4000, 4)), columns=list("abcd"))


def test_one_code_a_factor_scores_one(factors):
    found = one_to_one(factors.to_numpy() * [1, -2, 3, 0.5], factors)
    assert found["mig"] > 0.95
    assert found["dci_disentanglement"] > 0.95 and found["dci_completeness"] > 0.95 and found["dci_informativeness"] > 0.97


def test_a_rotation_by_45_degrees_has_no_gap(factors):
    turn = np.kron(np.eye(2), np.array([[1, -1], [1, 1]]) / np.sqrt(2))
    found = one_to_one(factors.to_numpy() @ turn, factors)
    assert found["mig"] < 0.05
    assert found["dci_disentanglement"] == pytest.approx(0.5, abs=0.1), "1 - log 2 / log 4"


def test_two_equal_codes_leave_no_gap_but_concern_one_factor_each(factors):
    found = one_to_one(np.repeat(factors.to_numpy(), 2, 1), factors)
    assert found["mig"] < 0.01
    assert found["dci_disentanglement"] > 0.95 > 0.8 > found["dci_completeness"]


def test_codes_that_know_nothing_score_nothing(factors, rng):
    found = one_to_one(rng.normal(size=(len(factors), 6)), factors)
    assert found["mig"] < 0.01
    assert abs(found["dci_informativeness"]) < 0.05
    assert not found["dci_disentanglement"] > 0.1


def test_four_codes_that_know_nothing_do_not_look_perfect(rng):
    """A single coefficient of noise would carry all the weight."""
    for _ in range(4):
        found = one_to_one(rng.normal(size=(600, 4)), pd.DataFrame(rng.normal(size=(600, 4))), 0)
        assert not found["dci_disentanglement"] > 0.5


def test_information_is_entropy_or_nothing(factors, rng):
    a = factors[["a"]].to_numpy()
    assert mutual_information(a, a)[0, 0] == pytest.approx(np.log(20), abs=0.1)
    assert mutual_information(rng.normal(size=a.shape), a)[0, 0] < 0.02


def test_importances_by_hand():
    assert _one_sided(np.eye(3)) == pytest.approx(1) and _one_sided(np.ones((3, 3))) == pytest.approx(0)
    assert _one_sided(np.array([[0.5, 0.5], [1.0, 0.0]])) == pytest.approx(0.5)


def test_rows_that_could_not_be_measured_are_left_out(factors):
    holes = factors.copy()
    holes.iloc[::7, 0] = np.nan
    assert one_to_one(factors.to_numpy(), holes)["mig"] > 0.95
