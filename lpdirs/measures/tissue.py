"""What a body is made of, what it lies on, and how its slice was taken: measured on HU, whatever its outline is.

`motion` looks for turns, shifts and stretches; none of these is one, so that they tell what other methods find beside it.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from lpdirs.data.body import dilate, erode, lung_mask

FAT_HU, MUSCLE_HU, BONE_HU = (-200, -40), (-20, 150), 180
COUCH_HU = -880.0
GRAIN = np.array([[[1, -2, 1], [-2, 4, -2], [1, -2, 1]]]) / 6.0  # Immerkaer 1996: 0 on planes, SD 1 on white noise of SD 1
ROWS_MM = 40.0  # depth over which both lungs must be seen for there to be something between them
FRONT = 0.6  # of that depth: the spine lies behind
BLOOD_HU, BRIGHT = (-20, 400), 80  # of what lies between the lungs in front, and the percentile that is blood


def tissue(
    hu: np.ndarray, body: np.ndarray, inner: np.ndarray, near: np.ndarray, left: np.ndarray, cy: np.ndarray, axis: np.ndarray, pixel: float
) -> dict[str, Callable[[], np.ndarray]]:
    """How to measure each, on slices (N, S, S) in HU with pixels of `pixel` mm: functions that give (N,), NaN where it cannot be told.

    `body`, and `inner` and `near`, a pixel within and about it; `left` marks the patient's left of the midline; `cy` (N,) is the body's
    middle on `axis` (S,), both in mm.
    """
    lungs, cm2 = lung_mask(hu, body), (pixel / 10) ** 2
    area = lambda mask: _sum(mask) * cm2
    between = lambda low, high: area(body & (hu > low) & (hu < high))
    whole = lambda: _sum(np.where(inner, np.float32(1), np.clip((hu + 1000) / 900, 0, 1) * near)) * cm2
    middle = lambda: mediastinum(lungs, body, left, pixel)
    return {
        "body_area": whole,
        "lung_area": lambda: area(lungs),
        "left_lung_area": lambda: area(lungs & left),
        "right_lung_area": lambda: area(lungs & ~left),
        "lung_share": lambda: 100 * area(lungs) / whole(),
        "lung_density": lambda: _mean(hu, erode(lungs)),
        "mediastinum": lambda: _some(area(middle())),
        "contrast": lambda: _bright(hu, front(middle())),
        "skin_fat": lambda: skin_fat(hu, body, pixel),
        "fat_area": lambda: between(*FAT_HU),
        "muscle_area": lambda: between(*MUSCLE_HU),
        "bone_area": lambda: between(BONE_HU, np.inf),
        "couch_height": lambda: _couch(hu, near, cy, axis),
        "noise": lambda: _noise(hu, inner),
        "sharpness": lambda: _mean(np.hypot(*np.gradient(hu, axis=(1, 2))), near & ~inner) / pixel,
    }


def mediastinum(lungs: np.ndarray, body: np.ndarray, left: np.ndarray, pixel: float) -> np.ndarray:
    """What lies between the lungs, (N, S, S): in each row from the one's inner edge to the other's; nothing where fewer than ROWS_MM of
    rows hold both."""
    size = lungs.shape[-1]
    column = np.arange(size)
    of_right = np.where(lungs & ~left, column, -1).max(2)  # the patient's right lies at the left of the image
    of_left = np.where(lungs & left, column, size).min(2)
    both = (of_right >= 0) & (of_left < size) & (of_left > of_right)
    both &= (both.sum(1) * pixel >= ROWS_MM)[:, None]
    return body & both[:, :, None] & (column > of_right[:, :, None]) & (column < of_left[:, :, None])


def front(masks: np.ndarray) -> np.ndarray:
    """The front FRONT of masks (N, S, S), by their depth."""
    rows = masks.any(2)
    first, count = rows.argmax(1), rows.sum(1)
    return masks & (np.arange(masks.shape[1]) < (first + FRONT * count)[:, None])[:, :, None]


def skin_fat(hu: np.ndarray, body: np.ndarray, pixel: float) -> np.ndarray:
    """Mean thickness in mm of the fat under the skin, (N,): shell by shell inwards, while it is fat more often than not."""
    found = np.zeros(len(hu))
    fat = (hu > FAT_HU[0]) & (hu < FAT_HU[1])
    for i, mask in enumerate(body):
        depth = np.ceil(ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]).astype(int)
        count = np.bincount(depth[mask], minlength=2)
        share = np.bincount(depth[mask], fat[i][mask], minlength=2)[2:] / np.maximum(count[2:], 1)  # the first is the skin's soft edge
        ends = np.flatnonzero(share < 0.5)
        found[i] = (1 + share[: ends[0] + 1 if len(ends) else None].sum()) * pixel
    return found


def _bright(hu: np.ndarray, masks: np.ndarray) -> np.ndarray:
    smooth = ndimage.uniform_filter(hu, (0, 3, 3))
    masks = masks & (smooth > BLOOD_HU[0]) & (smooth < BLOOD_HU[1])
    return np.array([np.percentile(x[m], BRIGHT) if m.sum() >= 8 else np.nan for x, m in zip(smooth, masks, strict=True)])


def _couch(hu: np.ndarray, near: np.ndarray, cy: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Median over the columns of where something begins below the body's centre that is not the body, mm; NaN if in few columns."""
    something = (hu > COUCH_HU) & ~dilate(near) & (axis[:, None] > cy.astype(np.float32).reshape(-1, 1, 1))
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


def _some(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, values, np.nan)


def _sum(values: np.ndarray) -> np.ndarray:
    return values.sum((1, 2), dtype=np.float64)
