"""What is measured on slices, from their HU alone: no labels and, but for z, no learned predictor.

Everything is taken in the body's own frame: the roll is the angle of the body mask's principal axis (the body is symmetric
about its midline, so breasts and shoulders do not bias it), and extents are partial-volume areas of bands along the frame's axes.
"""

import numpy as np
import pandas as pd
from scipy import ndimage

from lpdirs.data.body import body_masks, dilate, erode, lung_mask

# name: (what it is, unit)
MEASURES = {
    "rotation": ("roll of the body, positive clockwise in the image", "degrees"),
    "x_position": ("trunk centre right of the frame's centre", "mm"),
    "y_position": ("trunk centre below the frame's centre", "mm"),
    "width": ("left-right extent at mid height", "mm"),
    "thickness": ("front-back extent at the midline", "mm"),
    "breast": ("how much further the front reaches than the back, beside the midline", "mm"),
    "body_area": ("area of the body", "cm2"),
    "lung_area": ("area of air-filled tissue in the body", "cm2"),
    "left_lung_area": ("the same, on the patient's left of the midline", "cm2"),
    "right_lung_area": ("the same, on the patient's right", "cm2"),
    "lung_density": ("mean HU of air-filled tissue, without its rim", "HU"),
    "fat_area": ("area from -200 to -40 HU", "cm2"),
    "muscle_area": ("area from -20 to 150 HU: muscle, and organs like it", "cm2"),
    "bone_area": ("area above 180 HU: bone, and blood with contrast agent", "cm2"),
    "couch_height": ("top of what lies under the body, below the frame's centre", "mm"),
    "noise": ("SD of grain of the size of a pixel, in the body", "HU"),
    "sharpness": ("mean steepness at the skin", "HU/mm"),
}
MIN_FILLED = 0.94  # area of the body mask over that of the ellipse with its second moments
MIN_BODY, MAX_BORDER = 0.04, 0.15  # shares of the frame's area, and of the frame's border, that the body takes
COUCH_HU = -880.0
GRAIN = np.array([[[1, -2, 1], [-2, 4, -2], [1, -2, 1]]]) / 6.0  # Immerkaer 1996: 0 on planes, SD 1 on white noise of SD 1


def measure(hu: np.ndarray, pixel_mm: float) -> pd.DataFrame:
    """MEASURES of slices (N, S, S) in HU with pixels of `pixel_mm`: N rows, NaN where there is no body or it is cut off.

    Meant for 64 px and more: at 32 px a couch can pass for a part of the body.
    """
    hu = np.asarray(hu, np.float32)
    parts = [_measure(hu[i : i + 64], float(pixel_mm)) for i in range(0, len(hu), 64)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(MEASURES), dtype=np.float64)


def _measure(hu: np.ndarray, pixel: float) -> pd.DataFrame:
    body = body_masks(hu)
    border = np.concatenate([body[:, 0], body[:, -1], body[:, :, 0], body[:, :, -1]], axis=1)
    here = (body.mean((1, 2)) >= MIN_BODY) & (border.mean(1) <= MAX_BORDER)
    table = pd.DataFrame(np.nan, index=np.arange(len(hu)), columns=list(MEASURES))
    if here.any():
        table.loc[here] = pd.DataFrame(_of_bodies(hu[here], body[here], pixel))[list(MEASURES)].to_numpy()
    return table


def _of_bodies(hu: np.ndarray, body: np.ndarray, pixel: float) -> dict[str, np.ndarray]:
    """MEASURES of slices on which there is a body; NaN where it is open."""
    size = hu.shape[-1]
    axis = ((np.arange(size, dtype=np.float32) + 0.5) - size / 2) * pixel
    # soft edge: a border pixel counts by how far its HU is from air
    inner, near = erode(body), dilate(body)
    weight = np.where(inner, np.float32(1), np.clip((hu + 1000) / 900, 0, 1) * near)
    total = _sum(weight)
    cx, cy = weight.sum(1) @ axis / total, weight.sum(2) @ axis / total
    dx, dy = axis - _col(cx), axis[:, None] - _col(cy)
    xx, yy, xy = _sum(weight * dx * dx) / total, _sum(weight * dy * dy) / total, _sum(weight * dx * dy) / total
    filled = total * pixel**2 / (4 * np.pi * np.sqrt(np.maximum(xx * yy - xy * xy, 1e-9)))  # 1 for an ellipse
    angle = 0.5 * np.arctan2(2 * xy, xx - yy)
    angle -= np.pi / 2 * np.round(angle / (np.pi / 2))  # of the two axes the one nearer to horizontal: some bodies are deeper than wide
    cos, sin = np.cos(angle), np.sin(angle)
    u, v = dx * _col(cos) + dy * _col(sin), dy * _col(cos) - dx * _col(sin)
    half = 2 * np.sqrt(_sum(weight * u * u) / total)  # about the half width

    def band(distance, half_width):  # soft membership of a strip, and its width
        return weight * np.clip((_col(half_width) - np.abs(distance)) / pixel + 0.5, 0, 1), 2 * half_width

    w, extent = band(u, 0.12 * half)
    thickness = _sum(w) * pixel**2 / extent
    v0 = _sum(w * v) / _sum(w)
    w, extent = band(v - _col(v0), 0.2 * thickness)
    width = _sum(w) * pixel**2 / extent
    u0 = _sum(w * u) / _sum(w)
    w, extent = band(np.abs(u - _col(u0)) - _col(0.40 * half), 0.16 * half)
    ahead = _sum(w * np.clip((_col(v0) - v) / pixel + 0.5, 0, 1))
    breast = (2 * ahead - _sum(w)) * pixel**2 / (2 * extent)

    lungs, cm2 = lung_mask(hu, body), (pixel / 10) ** 2
    between = lambda low, high: _sum(body & (hu > low) & (hu < high)) * cm2
    left = _sum(lungs & (u > _col(u0))) * cm2
    measured = {
        "rotation": np.rad2deg(angle),
        "x_position": cx + u0 * cos - v0 * sin,
        "y_position": cy + u0 * sin + v0 * cos,
        "width": width,
        "thickness": thickness,
        "breast": breast,
        "body_area": total * cm2,
        "lung_area": _sum(lungs) * cm2,
        "left_lung_area": left,
        "right_lung_area": _sum(lungs) * cm2 - left,
        "lung_density": _mean(hu, erode(lungs)),
        "fat_area": between(-200, -40),
        "muscle_area": between(-20, 150),
        "bone_area": between(180, np.inf),
        "couch_height": _couch(hu, near, cy, axis),
        "noise": _noise(hu, inner),
        "sharpness": _mean(np.hypot(*np.gradient(hu, axis=(1, 2))), near & ~inner) / pixel,
    }
    closed = filled >= MIN_FILLED  # else the chest wall is open, so that a lung is missing from the mask
    return {name: np.where(closed, values, np.nan) for name, values in measured.items()}


def _couch(hu: np.ndarray, near: np.ndarray, cy: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Median over the columns of where something begins below the body's centre that is not the body, mm; NaN if in few columns."""
    something = (hu > COUCH_HU) & ~dilate(near) & (axis[:, None] > _col(cy))
    columns = something.any(1)
    top = np.where(columns, axis[something.argmax(1)], np.nan)
    enough = columns.mean(1) >= 0.15
    top[~enough] = 0
    return np.where(enough, np.nanmedian(top, 1), np.nan)


def _noise(hu: np.ndarray, inner: np.ndarray) -> np.ndarray:
    grain = np.abs(ndimage.convolve(hu, GRAIN.astype(np.float32), mode="nearest"))
    inner = erode(inner)
    return np.array([1.4826 * np.median(g[m]) if m.any() else np.nan for g, m in zip(grain, inner, strict=True)])


def _mean(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    count = _sum(mask)
    return np.where(count > 0, _sum(values * mask) / np.maximum(count, 1), np.nan)


def _sum(values: np.ndarray) -> np.ndarray:
    return values.sum((1, 2), dtype=np.float64)


def _col(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32).reshape(-1, 1, 1)
