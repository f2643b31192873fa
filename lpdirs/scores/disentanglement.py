"""How far directions and factors go one to one: MIG, SAP, DCI and modularity, from codes and factors of the same slices.

A code is the coordinate of z along a direction, z @ a_k: what a reader would take for "how much of direction k is in this slice".
"""

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.ensemble import RandomForestRegressor
from sklearn.metrics import mutual_info_score

BINS = 20
LEAST = 100  # rows
NAMES = ("mig", "modularity", "sap", "dci_disentanglement", "dci_completeness", "dci_informativeness")


def one_to_one(codes: np.ndarray, factors: pd.DataFrame, seed: int = 0) -> dict[str, float]:
    """All of this module's scores for codes (N, K) and factors (N, F); rows with a factor that is not finite are left out.

    NaN where fewer than LEAST rows remain.
    """
    measured = np.isfinite(factors.to_numpy(float)).all(1)
    if measured.sum() < LEAST:
        return dict.fromkeys(NAMES, float("nan"))
    c, f = np.asarray(codes, float)[measured], factors.to_numpy(float)[measured]
    information = mutual_information(c, f)
    return {"mig": mig(information, f), "modularity": modularity(information), "sap": sap(c, f)} | dci(c, f, seed)


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


def modularity(information: np.ndarray) -> float:
    """Ridgeway and Mozer (2018, eq. 2): 1 if every code informs about one factor alone; codes that inform about none are left out."""
    best = information.max(1)
    informs = best > 1e-3
    if not informs.any() or information.shape[1] < 2:
        return float("nan")
    rest = (information[informs] ** 2).sum(1) - best[informs] ** 2
    return float(np.mean(1 - rest / (best[informs] ** 2 * (information.shape[1] - 1))))


def sap(codes: np.ndarray, factors: np.ndarray) -> float:
    """Separated attribute predictability (Kumar et al. 2018): R^2 of a line from the best single code minus that of the second."""
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
    """1 minus the entropy of each row's share, weighted by what the row matters."""
    total = importance.sum(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = importance / total
        entropy = -np.where(p > 0, p * np.log(p), 0).sum(1) / np.log(importance.shape[1])
    weight = total[:, 0] / importance.sum()
    return float(np.sum(weight * np.where(total[:, 0] > 0, 1 - entropy, 0)))
