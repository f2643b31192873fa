"""The thorax: what is measured on axial slices of chest CT, and its z-position, from the top of the lungs (0) to their base (1)."""

from dataclasses import dataclass
from functools import partial
from numbers import Real

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA
from sklearn.kernel_ridge import KernelRidge
from sklearn.pipeline import Pipeline, make_pipeline
from torch import Tensor
from torch.nn import functional as F

from lpdirs.base.errors import UserError
from lpdirs.data.body import BODY_HU
from lpdirs.data.store import Slices, to_hu
from lpdirs.measures.anatomy import MEASURES, measure
from lpdirs.measures.inner import INNER, inner
from lpdirs.measures.measures import Measures

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


UNITS = {name: unit for name, (_, unit) in (MEASURES | INNER).items()} | {"z_position": EXTENT}
FACTORS = ("rotation", "thickness", "breast", "y_position", "z_position", "x_position", "width")  # that directions are judged by
MAIN = FACTORS[:5]  # those that the paper names
TISSUE = ("lung_density", "lung_share", "mediastinum", "contrast", "skin_fat")  # no turn, shift or stretch is one of these
GROUPS = {"shape": FACTORS, "tissue": TISSUE, "inner": tuple(INNER), "both": FACTORS + tuple(INNER), "all": FACTORS + TISSUE}


def measure_all(
    slices: Tensor,
    window: tuple[float, float],
    pixel_mm: float,
    z_position: ZPosition | None,
    names: tuple[str, ...] = tuple(MEASURES),
) -> pd.DataFrame:
    """The measures in `names` of slices (N, 1, S, S) in [-1, 1], with z_position where a regression is given."""
    hu = to_hu(slices[:, 0].numpy(), window)
    table = measure(hu, pixel_mm, [name for name in names if name in MEASURES])
    if set(names) & set(INNER):
        table = table.assign(**inner(hu, pixel_mm))[list(names)]
    if z_position is not None:
        table["z_position"] = z_position(hu)
    return table


def thorax(window: tuple[float, float], pixel_mm: float, z_position: ZPosition | None = None, factors: str = "shape") -> Measures:
    """Measures of chest slices whose values -1 and +1 are `window` in HU, with pixels of `pixel_mm`.

    Roll, thickness, breast size, position and width, measured on HU alone; z-position where a regression is given (`fit_z`). Breasts exist
    at some levels of the body alone, which z tells. With factors="tissue" how dense and large the lungs are, what lies between them,
    contrast agent and fat under the skin; "all" are both. "inner" is the shape by what lies inside (`lpdirs.measures.inner`), which can
    be measured also where the frame cuts the sides, and "both" the shape by outline and inside.
    """
    numbers = [*window, pixel_mm] if isinstance(window, tuple | list) and len(window) == 2 else []
    if not numbers or not all(isinstance(v, Real) for v in numbers) or not window[0] < window[1] or not pixel_mm > 0:
        raise UserError(f"thorax needs the window in HU that -1 and 1 stand for, and mm a pixel, not {window} and {pixel_mm}")
    if factors not in GROUPS:
        raise UserError(f"factors of the thorax must be {', '.join(GROUPS)}, not {factors!r}")
    chosen = [name for name in GROUPS[factors] if name != "z_position" or z_position is not None]
    return Measures(
        partial(
            measure_all,
            window=(float(window[0]), float(window[1])),
            pixel_mm=pixel_mm,
            z_position=z_position if "z_position" in chosen else None,
            names=tuple(name for name in chosen if name in MEASURES | INNER),
        ),
        {name: z_position.unit if name == "z_position" and z_position else UNITS[name] for name in chosen},
        tuple(name for name in MAIN if name in chosen),
        {"breast": ("z_position", 0.3, 0.7)} if "z_position" in chosen else {},
    )
