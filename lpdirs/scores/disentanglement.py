"""How far directions and factors go one to one: MIG and DCI, from codes and factors of the same slices.

A code is the coordinate of z along a direction, z @ a_k: what a reader would take for "how much of direction k is in this slice".
"""

import numpy as np
import pandas as pd
import torch
from scipy import stats
from scipy.optimize import linear_sum_assignment
from sklearn.ensemble import RandomForestRegressor
from sklearn.metrics import mutual_info_score
from torch import Tensor

from lpdirs.discovery.directions import Directions
from lpdirs.models.generators import Generator

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


def coherence(matrix: Tensor) -> dict[str, float]:
    """For unit rows (K, d): largest |cosine| of two, the Welch bound that none can go below, and the effective rank.

    The Welch bound is sqrt((K - d) / (d (K - 1))) for K > d and 0 otherwise (Welch 1974). Effective rank is the exponential of
    the entropy of the singular values' shares (Roy and Vetterli 2007): K for orthonormal directions, 1 where all are the same.
    """
    k, d = matrix.shape
    cosines = (matrix @ matrix.T).fill_diagonal_(0).abs()
    share = torch.linalg.svdvals(matrix.double())
    share = share[share > 1e-9] / share.sum()
    return {
        "coherence": float(cosines.max()),
        "welch_bound": float(np.sqrt((k - d) / (d * (k - 1)))) if k > d else 0.0,
        "mean_cosine": float(cosines.sum() / max(k * (k - 1), 1)),
        "effective_rank": float(torch.exp(-(share * share.log()).sum())),
    }


def agreement(one: Tensor, other: Tensor) -> float:
    """Mean |cosine| of two sets of unit rows (K, d), each direction matched to one of the other's (Hungarian method); 1: the same."""
    cosines = (one.double() @ other.double().T).abs().numpy()
    rows, columns = linear_sum_assignment(-cosines)
    return float(cosines[rows, columns].mean())


@torch.no_grad()
def additivity(
    generator: Generator, directions: Directions, shift: float = 2.0, pairs: int = 24, samples: int = 16, seed: int = 0
) -> float:
    """How much two directions disturb each other, median over random pairs; 0 where their changes add up.

    The mixed second difference G(z+a+b) - G(z+a) - G(z+b) + G(z), over the size of the two changes (root mean squares).
    """
    if len(directions) < 2:
        return float("nan")
    rng = np.random.default_rng(seed)
    z, draw = generator.draw(samples, seed), generator.images
    plain, sizes = draw(z), []
    for _ in range(pairs):
        i, j = rng.choice(len(directions), 2, replace=False)
        za = directions.shift(z, i, shift)
        a, b, both = draw(za), draw(directions.shift(z, j, shift)), draw(directions.shift(za, j, shift))
        rms = lambda x: float(x.square().mean().sqrt())
        sizes.append(rms(both - a - b + plain) / max(rms(a - plain) + rms(b - plain), 1e-12))
    return float(np.median(sizes))
