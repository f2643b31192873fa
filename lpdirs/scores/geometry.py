"""What a set of directions looks like in latent space alone: how spread out, how additive, and how alike two sets are."""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lpdirs.discovery.directions import Directions
from lpdirs.models.generators import Generator


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
