"""Does a model draw its training slices again? Distances to the nearest of them, against those of slices from other patients."""

from dataclasses import dataclass

import numpy as np
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Neighbours:
    """Nearest training slice of each sample: `index` (N,) and `distance` (N,); `floor` (M,) are the distances of held-out slices.

    Distances are root mean squares in HU, at 32 px.
    """

    index: np.ndarray
    distance: np.ndarray
    floor: np.ndarray

    @property
    def copied(self) -> float:
        """Share of samples that are nearer to a training slice than 99 of 100 slices of other patients are."""
        return float((self.distance < np.quantile(self.floor, 0.01)).mean())

    @property
    def ratio(self) -> float:
        """Median distance of samples over that of held-out slices; far below 1 is memory, far above 1 is poor samples."""
        return float(np.median(self.distance) / np.median(self.floor))


def neighbours(samples: Tensor, train: Tensor, held_out: Tensor, window: tuple[float, float]) -> Neighbours:
    """Nearest training slices of samples (N, 1, S, S), and of held-out slices (M, 1, S, S), all in [-1, 1]."""
    flat = lambda x: F.adaptive_avg_pool2d(x, 32).flatten(1).numpy() * (window[1] - window[0]) / 2
    search = NearestNeighbors(n_neighbors=1).fit(flat(train))
    (distance, index), (floor, _) = (search.kneighbors(flat(x)) for x in (samples, held_out))
    return Neighbours(index[:, 0], distance[:, 0] / 32, floor[:, 0] / 32)
