"""z-position of a slice, from the top of the lungs (0) to their base (1), predicted by a regression on slices whose position is known."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA
from sklearn.kernel_ridge import KernelRidge
from sklearn.pipeline import Pipeline, make_pipeline
from torch.nn import functional as F

from lpdirs.data.body import BODY_HU
from lpdirs.data.store import Slices, to_hu

EXTENT = "of the lungs' extent"  # what z is a fraction of in a patient
LEAST = 0.04  # share of the frame that a body takes
LENGTH = "of the phantom's length"


@dataclass(frozen=True)
class ZPosition:
    """Callable on HU (N, S, S); `r` and `error` (mean absolute) are those on patients that it was not fitted to.

    NaN where there is no body. Of any other picture it gives a level, also of one that shows no lung.
    """

    model: Pipeline
    r: float
    error: float
    held_out: int
    unit: str = EXTENT

    def __call__(self, hu: np.ndarray) -> np.ndarray:
        return np.where((hu > BODY_HU).mean((1, 2)) >= LEAST, self.model.predict(body_picture(hu)), np.nan)


def body_picture(hu: np.ndarray) -> np.ndarray:
    """Slices (N, S, S) in HU as vectors (N, 256): soft tissue and lung, 16 x 16, moved so that the body is in the centre."""
    x = torch.from_numpy(np.clip(np.asarray(hu, np.float32), -1000, 300) / 1000 + 1)[:, None]  # air is 0
    size = x.shape[-1]
    axis = (torch.arange(size) + 0.5) * (2 / size) - 1
    total = x.sum((1, 2, 3)).clamp(min=1e-3)
    cx, cy = (x.sum((1, 2)) * axis).sum(1) / total, (x.sum((1, 3)) * axis).sum(1) / total
    theta = torch.zeros(len(x), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1
    theta[:, 0, 2], theta[:, 1, 2] = cx, cy
    centred = F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)
    return F.adaptive_avg_pool2d(centred, 16).flatten(1).numpy()


def known_z(table: pd.DataFrame) -> np.ndarray:
    """The slices' positions: the phantom's true z where there is one, else the fraction of the series; NaN for lone slices."""
    column = "true_z" if "true_z" in table else "z_fraction"
    return table[column].to_numpy(np.float64)


def fit_z(train: Slices, held_out: Slices, most: int = 3000, seed: int = 0) -> ZPosition | None:
    """Fit on `train`, score on `held_out`; None where too few slices with a known position are there (40 and 5)."""
    rows = [np.flatnonzero(np.isfinite(known_z(part.table))) for part in (train, held_out)]
    if len(rows[0]) < 40 or len(rows[1]) < 5:
        return None
    if len(rows[0]) > most:
        rows[0] = np.sort(np.random.default_rng(seed).choice(rows[0], most, replace=False))
    x = [body_picture(to_hu(part.tensor(r), part.window)[:, 0].numpy()) for part, r in zip((train, held_out), rows, strict=True)]
    y = [known_z(part.table)[r] for part, r in zip((train, held_out), rows, strict=True)]
    pca = PCA(min(30, len(rows[0]) // 2), whiten=False, random_state=seed)
    scale = float(pca.fit(x[0]).explained_variance_.sum())
    mean = y[0].mean()
    model = make_pipeline(pca, _Centred(alpha=0.02, kernel="rbf", gamma=0.5 / scale, mean=mean))
    guess = model.fit(x[0], y[0]).predict(x[1])
    r = float(np.corrcoef(guess, y[1])[0, 1]) if np.std(y[1]) > 0 and np.std(guess) > 0 else float("nan")
    unit = LENGTH if "true_z" in train.table else EXTENT
    return ZPosition(model, r, float(np.abs(guess - y[1]).mean()), len(y[1]), unit)


class _Centred(KernelRidge):
    """Kernel ridge regression of the deviation from `mean`, so that far from all data it predicts the mean."""

    def __init__(self, alpha=1.0, kernel="rbf", gamma=None, mean=0.0):
        super().__init__(alpha=alpha, kernel=kernel, gamma=gamma)
        self.mean = mean

    def fit(self, x, y):
        return super().fit(x, y - self.mean)

    def predict(self, x):
        return super().predict(x) + self.mean
