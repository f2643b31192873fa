"""Painting anti-aliased shapes on a stack of slices, for the synthetic thorax."""

from functools import lru_cache

import numpy as np
from scipy.ndimage import map_coordinates


def ramp(t, start: float, end: float):
    """0 before `start`, 1 after `end`, smooth between; with end < start it falls instead."""
    s = np.clip((t - start) / (end - start), 0, 1)
    return (s * s * (3 - 2 * s)).astype(np.float32)


def bump(t, centre: float, half_width: float):
    """1 at `centre`, 0 beyond `half_width` from it, smooth."""
    return np.clip(1 - ((t - centre) / half_width) ** 2, 0, 1).astype(np.float32)


class Canvas:
    """N slices of size x size pixels in HU, with the body's own coordinates u, v (mm) at every pixel.

    `rotation` (degrees, clockwise in the image), `x` and `y` (mm), each (N,), place the body frame in the field of view.
    """

    def __init__(self, rotation, x, y, size: int, fov_mm: float):
        self.pixel = fov_mm / size
        axis = ((np.arange(size, dtype=np.float32) + 0.5) * self.pixel - fov_mm / 2).astype(np.float32)
        self.x, self.y = axis[None, None, :], axis[None, :, None]
        angle = np.deg2rad(np.asarray(rotation, np.float32))
        self._cos, self._sin = np.cos(angle), np.sin(angle)
        self._x0, self._y0 = np.asarray(x, np.float32), np.asarray(y, np.float32)
        dx, dy = self.x - self._col(self._x0), self.y - self._col(self._y0)
        self.u = dx * self._col(self._cos) + dy * self._col(self._sin)  # (N, S, S)
        self.v = dy * self._col(self._cos) - dx * self._col(self._sin)
        self.hu = np.full(self.u.shape, -1000, np.float32)

    @staticmethod
    def _col(value):
        return np.asarray(value, np.float32).reshape(-1, 1, 1)

    def edge(self, distance):
        """Coverage of a pixel by a shape whose boundary is `distance` mm further out."""
        return np.clip(distance / self.pixel + 0.5, 0, 1)

    def paint_all(self, mask, value):
        """Blend `value` (HU) over the whole field where `mask` is, from 0 to 1."""
        self.hu += mask * (value - self.hu)

    def superellipse(self, u, v, a, b):
        """Coverage (N, S, S) of |u/a|^2.5 + |v/b|^2.5 <= 1 around (u, v), each (N,): rounder than a box, fuller than an ellipse."""
        a, b = self._col(np.maximum(a, 1e-3)), self._col(np.maximum(b, 1e-3))
        du, dv = np.abs((self.u - self._col(u)) / a), np.abs((self.v - self._col(v)) / b)
        s = du * du * np.sqrt(du) + dv * dv * np.sqrt(dv)
        return self.edge((1 - s) / np.float32(2.5) * np.minimum(a, b))  # near the edge s^(1/2.5) is 1 + (s - 1)/2.5

    def ellipse(self, u, v, a, b):
        """Coverage (N, S, S) of an upright ellipse around (u, v)."""
        a, b = self._col(a), self._col(b)
        q = np.sqrt(((self.u - self._col(u)) / a) ** 2 + ((self.v - self._col(v)) / b) ** 2)
        return self.edge((1 - q) * np.minimum(a, b)) * (np.minimum(a, b) > 0.3)

    def paint_ellipse(self, u, v, a, b, value, angle: float = 0.0, within=None):
        """Paint an ellipse, turned by `angle` degrees in the body frame, touching only the pixels near it."""
        u, v, a, b, value = (np.broadcast_to(np.asarray(i, np.float32), self._cos.shape) for i in (u, v, a, b, value))
        shown = np.flatnonzero(np.maximum(a, b) > 0.3)
        if not len(shown):
            return
        # bounding box, over the slices in which the shape shows
        long, short = np.maximum(a, b)[shown], np.minimum(a, b)[shown]
        size, reach = self.hu.shape[1], long + self.pixel * (0.5 * long / np.maximum(short, 0.3) + 0.5)
        cx = self._x0[shown] + u[shown] * self._cos[shown] - v[shown] * self._sin[shown]
        cy = self._y0[shown] + u[shown] * self._sin[shown] + v[shown] * self._cos[shown]
        span = lambda low, high: slice(
            max(int(np.floor(low / self.pixel + size / 2)), 0), min(int(np.ceil(high / self.pixel + size / 2)) + 1, size)
        )
        rows, cols = span((cy - reach).min(), (cy + reach).max()), span((cx - reach).min(), (cx + reach).max())
        region = (slice(shown[0], shown[-1] + 1), rows, cols)
        n = region[0]
        du, dv = self.u[region] - self._col(u[n]), self.v[region] - self._col(v[n])
        if angle:
            ca, sa = np.float32(np.cos(np.deg2rad(angle))), np.float32(np.sin(np.deg2rad(angle)))
            du, dv = du * ca + dv * sa, dv * ca - du * sa
        ra, rb = self._col(np.maximum(a[n], 1e-3)), self._col(np.maximum(b[n], 1e-3))
        mask = self.edge((1 - np.sqrt((du / ra) ** 2 + (dv / rb) ** 2)) * np.minimum(ra, rb))
        mask *= self._col(np.minimum(a[n], b[n]) > 0.3)
        if within is not None:
            mask *= within[region]
        self.hu[region] += mask * (self._col(value[n]) - self.hu[region])


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
