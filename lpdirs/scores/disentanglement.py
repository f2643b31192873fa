"""How far directions and factors go one to one: MIG and DCI, from codes and factors of the same slices.

A code is the coordinate of z along a direction, z @ a_k: what a reader would take for "how much of direction k is in this slice".
"""

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.ensemble import RandomForestRegressor
from sklearn.metrics import mutual_info_score

BINS = 20
LEAST = 100  # rows
NAMES = ("mig", "dci_disentanglement", "dci_completeness", "dci_informativeness")


def one_to_one(codes: np.ndarray, factors: pd.DataFrame, seed: int = 0) -> dict[str, float]:
    """NAMES for codes (N, K) and factors (N, F); rows with a factor that is not finite are left out.

    NaN where fewer than LEAST rows remain.
    """
    measured = np.isfinite(factors.to_numpy(float)).all(1)
    if measured.sum() < LEAST:
        return dict.fromkeys(NAMES, float("nan"))
    c, f = np.asarray(codes, float)[measured], factors.to_numpy(float)[measured]
    return {"mig": mig(mutual_information(c, f), f), **dci(c, f, seed)}


def _binned(values: np.ndarray) -> np.ndarray:
    """Each column in BINS bins of equal count, equal values together, so that a monotone change of a code or factor changes no score."""
    ranks = pd.DataFrame(values).rank(method="min").to_numpy() - 1
    return (ranks * min(BINS, len(values)) // max(len(values), 1)).astype(int)


def mutual_information(codes: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """In nats, (K, F), from joint histograms of BINS by BINS, minus what independent columns of as many rows would show."""
    c, f = _binned(codes), _binned(factors)
    shuffled = np.random.default_rng(0).permutation(len(c))
    told = lambda code, factor: mutual_info_score(code, factor) - mutual_info_score(code[shuffled], factor)
    return np.array([[max(0.0, told(code, factor)) for factor in f.T] for code in c.T])


def mig(information: np.ndarray, factors: np.ndarray) -> float:
    """Mutual information gap (Chen et al. 2018, eq. 6): how far a factor's best code leads the second best, over its entropy."""
    entropy = np.array([stats.entropy(np.bincount(column)) for column in _binned(factors).T])
    best = np.sort(information, axis=0)[::-1]
    second = best[1] if len(best) > 1 else 0.0
    return float(np.mean((best[0] - second) / entropy))


def dci(codes: np.ndarray, factors: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Eastwood and Williams (2018): disentanglement and completeness from the importances of a random forest, and informativeness.

    They grow with the number of codes: compare them with random directions of the same number. Importance is the mean decrease in
    impurity; informativeness is R^2 on the last quarter of the rows, which the forests have not seen, averaged over factors. Factors
    that no code tells there (R^2 of 0 or less) count for nothing in the first two, which are NaN where that is all of them.
    """
    n = len(codes) * 3 // 4
    standard = lambda x: (x - x[:n].mean(0)) / np.where(x[:n].std(0) > 0, x[:n].std(0), 1)
    x, y = standard(codes), standard(factors)
    importance, informed = np.zeros((codes.shape[1], factors.shape[1])), []
    for j in range(factors.shape[1]):
        model = RandomForestRegressor(40, max_depth=8, min_samples_leaf=5, random_state=seed, n_jobs=1).fit(x[:n], y[:n, j])
        informed.append(model.score(x[n:], y[n:, j]))
        importance[:, j] = model.feature_importances_ if informed[-1] > 0 else 0  # of what it cannot tell they are those of noise
    values = (_one_sided(importance), _one_sided(importance.T), float(np.mean(informed)))
    return dict(zip(NAMES[1:], values, strict=True))


def _one_sided(importance: np.ndarray) -> float:
    """1 minus the entropy of each row's share, weighted by what the row matters."""
    if not importance.sum() > 0:
        return float("nan")
    total = importance.sum(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = importance / total
        entropy = -np.where(p > 0, p * np.log(p), 0).sum(1) / np.log(importance.shape[1])
    weight = total[:, 0] / importance.sum()
    return float(np.sum(weight * np.where(total[:, 0] > 0, 1 - entropy, 0)))
