"""How far directions and factors go one to one: MIG, SAP, DCI and modularity, from codes and factors of the same slices.

A code is the coordinate of z along a direction, z @ a_k: what a reader would take for "how much of direction k is in this slice".
"""

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor

BINS = 20
LEAST = 100  # rows
NAMES = ("mig", "modularity", "sap", "dci_disentanglement", "dci_completeness", "dci_informativeness")


def one_to_one(codes: np.ndarray, factors: pd.DataFrame, seed: int = 0) -> dict[str, float]:
    """All of this module's scores for codes (N, K) and factors (N, F); rows with a factor that is not finite are left out.

    NaN where fewer than LEAST rows remain.
    """
    known = np.isfinite(factors.to_numpy(float)).all(1)
    if known.sum() < LEAST:
        return dict.fromkeys(NAMES, float("nan"))
    c, f = np.asarray(codes, float)[known], factors.to_numpy(float)[known]
    information = mutual_information(c, f)
    return {"mig": mig(information, f), "modularity": modularity(information), "sap": sap(c, f)} | dci(c, f, seed)


def _binned(values: np.ndarray) -> np.ndarray:
    """Each column in BINS bins of equal count, so that a monotone change of a code or factor changes no score."""
    ranks = values.argsort(0, kind="stable").argsort(0, kind="stable")
    bins = ranks * min(BINS, len(values)) // max(len(values), 1)
    for j in range(values.shape[1]):  # equal values stay together
        _, first, inverse = np.unique(values[:, j], return_index=True, return_inverse=True)
        lowest = np.full(len(first), BINS)
        np.minimum.at(lowest, inverse, bins[:, j])
        bins[:, j] = lowest[inverse]
    return bins


def _entropy(counts: np.ndarray) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


def mutual_information(codes: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """In nats, (K, F), from joint histograms of BINS by BINS, less what independent columns of as many rows would show."""
    c, f = _binned(codes), _binned(factors)
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(len(c))
    information = np.empty((c.shape[1], f.shape[1]))
    for k in range(c.shape[1]):
        for j in range(f.shape[1]):
            joint, chance = (np.bincount(x * BINS + f[:, j], minlength=BINS**2) for x in (c[:, k], c[shuffled, k]))
            margins = _entropy(np.bincount(c[:, k])) + _entropy(np.bincount(f[:, j]))
            information[k, j] = max(0.0, (margins - _entropy(joint)) - (margins - _entropy(chance)))
    return information


def mig(information: np.ndarray, factors: np.ndarray) -> float:
    """Mutual information gap (Chen et al. 2018, eq. 6): how far a factor's best code leads the second best, over its entropy."""
    entropy = np.array([_entropy(np.bincount(column)) for column in _binned(factors).T])
    best = np.sort(information, axis=0)[::-1]
    second = best[1] if len(best) > 1 else 0.0
    return float(np.mean((best[0] - second) / entropy))


def modularity(information: np.ndarray) -> float:
    """Ridgeway and Mozer (2018, eq. 2): 1 if every code informs about one factor alone; codes that inform about none are left out."""
    best = information.max(1)
    told = best > 1e-3
    if not told.any() or information.shape[1] < 2:
        return float("nan")
    rest = (information[told] ** 2).sum(1) - best[told] ** 2
    return float(np.mean(1 - rest / (best[told] ** 2 * (information.shape[1] - 1))))


def sap(codes: np.ndarray, factors: np.ndarray) -> float:
    """Separated attribute predictability (Kumar et al. 2018): R^2 of a line from the best single code less that of the second."""
    c, f = codes - codes.mean(0), factors - factors.mean(0)
    norms = np.outer(np.linalg.norm(c, axis=0), np.linalg.norm(f, axis=0))
    r2 = np.sort((c.T @ f / np.where(norms > 0, norms, np.inf)) ** 2, axis=0)[::-1]
    return float(np.mean(r2[0] - (r2[1] if len(r2) > 1 else 0)))


def dci(codes: np.ndarray, factors: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Eastwood and Williams (2018): disentanglement and completeness from the importances of random forests, and informativeness.

    Importance is a forest's mean decrease in impurity; informativeness is R^2 on the last quarter of the rows, which the forests
    have not seen, averaged over factors.
    """
    n = len(codes) * 3 // 4
    scale = factors.std(0)
    y = (factors - factors.mean(0)) / np.where(scale > 0, scale, 1)
    importance, informed = np.empty((codes.shape[1], factors.shape[1])), []
    for j in range(factors.shape[1]):
        forest = RandomForestRegressor(40, max_depth=8, min_samples_leaf=5, random_state=seed, n_jobs=1)
        forest.fit(codes[:n], y[:n, j])
        importance[:, j] = forest.feature_importances_
        informed.append(forest.score(codes[n:], y[n:, j]))
    return {
        "dci_disentanglement": _one_sided(importance),
        "dci_completeness": _one_sided(importance.T),
        "dci_informativeness": float(np.mean(informed)),
    }


def _one_sided(importance: np.ndarray) -> float:
    """1 less the entropy of each row's share, weighted by what the row matters."""
    total = importance.sum(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = importance / total
        entropy = -np.where(p > 0, p * np.log(p), 0).sum(1) / np.log(importance.shape[1])
    weight = total[:, 0] / importance.sum()
    return float(np.sum(weight * np.where(total[:, 0] > 0, 1 - entropy, 0)))
