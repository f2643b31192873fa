"""Random fields in 3D, the same for all synthetic patients, of which each sees another part: fat in muscle, vessels in lung."""

from functools import lru_cache

import numpy as np
from scipy.ndimage import map_coordinates

CELLS, CELL_MM = 64, 4.0  # the fields repeat after 256 mm


@lru_cache(maxsize=8)
def field(number: int, scale_mm: float) -> np.ndarray:
    """A smooth periodic Gaussian field, SD 1, float32 (64, 64, 64) with cells of 4 mm, correlated over about `scale_mm`."""
    white = np.random.default_rng([7919, number]).standard_normal((CELLS,) * 3)
    k = np.fft.fftfreq(CELLS, CELL_MM)
    square = k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, : CELLS // 2 + 1] ** 2
    smooth = np.fft.irfftn(np.fft.rfftn(white) * np.exp(-2 * (np.pi * scale_mm) ** 2 * square), (CELLS,) * 3, axes=(0, 1, 2))
    return (smooth / smooth.std()).astype(np.float32)


def sample(number: int, scale_mm: float, z, v, u, offset) -> np.ndarray:
    """The field at points (mm) that are given by their coordinates along each axis, moved by `offset` (3,) mm."""
    points = np.stack(np.broadcast_arrays(z + offset[0], v + offset[1], u + offset[2])).astype(np.float32) / np.float32(CELL_MM)
    return map_coordinates(field(number, scale_mm), points, order=1, mode="grid-wrap", prefilter=False)


def filaments(number: int, scale_mm: float, z, v, u, offset) -> np.ndarray:
    """About how far (mm) each point lies from the nearest of many winding lines: where two fields are both zero."""
    f, g = (sample(number + i, scale_mm, z, v, u, offset) for i in (0, 1))
    return np.hypot(f, g) * np.float32(scale_mm * np.sqrt(2))  # a field of SD 1 changes by about 1/(scale sqrt 2) a mm
