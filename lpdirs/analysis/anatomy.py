"""What is measured on a slice, from its HU alone: no labels and, but for z, no learned predictor.

Everything is taken in the body's own frame: the roll is the angle of the body mask's principal axis (the body is symmetric
about its midline, so breasts and shoulders do not bias it), and extents are partial-volume areas of bands along the frame's axes.
"""

import numpy as np
import pandas as pd
from scipy import ndimage

from lpdirs.data.body import body_mask, lung_mask

# name: (what it is, unit)
MEASURES = {
    "rotation": ("roll of the body, positive clockwise in the image", "degrees"),
    "x_position": ("trunk centre right of the frame's centre", "mm"),
    "y_position": ("trunk centre below the frame's centre", "mm"),
    "width": ("left-right extent at mid height", "mm"),
    "thickness": ("front-back extent at the midline", "mm"),
    "breast": ("how far the front stands out beside the midline", "mm"),
    "body_area": ("area of the body", "cm2"),
    "lung_area": ("area of air-filled tissue in the body", "cm2"),
    "fat_area": ("area from -200 to -40 HU", "cm2"),
    "bone_area": ("area above 180 HU", "cm2"),
}
MIN_FILLED = 0.94  # area of the body mask over that of the ellipse with its second moments
MIN_BODY, MAX_BORDER = 0.04, 0.15  # shares of the frame's area, and of the frame's border, that the body takes


def measure(hu: np.ndarray, pixel_mm: float) -> pd.DataFrame:
    """MEASURES of slices (N, S, S) in HU with pixels of `pixel_mm`: N rows, NaN where there is no body or it is cut off."""
    rows = [_measure_one(np.asarray(h, np.float32), pixel_mm) for h in hu]
    return pd.DataFrame(rows, columns=list(MEASURES), dtype=np.float64)


def _measure_one(hu: np.ndarray, pixel: float) -> list[float]:
    size = hu.shape[0]
    body = body_mask(hu)
    border = np.concatenate([body[0], body[-1], body[:, 0], body[:, -1]])
    if body.mean() < MIN_BODY or border.mean() > MAX_BORDER:
        return [np.nan] * len(MEASURES)

    # soft edge: a border pixel counts by how far its HU is from air
    near = ndimage.binary_dilation(body)
    rows, cols = np.nonzero(near)
    inner = ndimage.binary_erosion(body)[rows, cols]
    weight = np.where(inner, 1.0, np.clip((hu[rows, cols] + 1000) / 900, 0, 1))
    x, y = ((c + 0.5 - size / 2) * pixel for c in (cols, rows))
    total = weight.sum()
    cx, cy = (weight * x).sum() / total, (weight * y).sum() / total
    dx, dy = x - cx, y - cy
    xx, yy, xy = (weight * dx * dx).sum(), (weight * dy * dy).sum(), (weight * dx * dy).sum()
    filled = total / (4 * np.pi * np.sqrt(max(xx * yy - xy * xy, 1e-9)) / total) * pixel**2  # 1 for an ellipse
    if filled < MIN_FILLED:  # the chest wall is open, so that a lung is missing from the mask
        return [np.nan] * len(MEASURES)
    angle = 0.5 * np.arctan2(2 * xy, xx - yy)
    angle -= np.pi / 2 * np.round(angle / (np.pi / 2))  # of the two axes the one nearer to horizontal: some bodies are deeper than wide
    cos, sin = np.cos(angle), np.sin(angle)
    u, v = dx * cos + dy * sin, dy * cos - dx * sin
    half = 2 * np.sqrt((weight * u * u).sum() / total)  # about the half width

    def band(distance, half_width):  # soft membership of a strip, and its width
        return weight * np.clip((half_width - np.abs(distance)) / pixel + 0.5, 0, 1), 2 * half_width

    w, extent = band(u, 0.12 * half)
    thickness = w.sum() * pixel**2 / extent
    v0 = (w * v).sum() / w.sum()
    w, extent = band(v - v0, 0.2 * thickness)
    width = w.sum() * pixel**2 / extent
    u0 = (w * u).sum() / w.sum()
    w, extent = band(np.abs(u - u0) - 0.40 * half, 0.16 * half)
    ahead = w * np.clip((v0 - v) / pixel + 0.5, 0, 1)
    breast = ahead.sum() * pixel**2 / (2 * extent) - thickness / 2

    inside, cm2 = hu[body], (pixel / 10) ** 2
    return [
        np.rad2deg(angle),
        cx + u0 * cos - v0 * sin,
        cy + u0 * sin + v0 * cos,
        width,
        thickness,
        breast,
        weight.sum() * cm2,
        lung_mask(hu, body).sum() * cm2,
        ((inside > -200) & (inside < -40)).sum() * cm2,
        (inside > 180).sum() * cm2,
    ]
