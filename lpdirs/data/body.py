"""Body and lungs on slices in HU: the two masks that the reader and the anatomy stand on.

Everything works on stacks (N, S, S) at once: morphology by shifts, and labels within each slice.
"""

import numpy as np
from scipy import ndimage

BODY_HU = -300.0  # between air (-1000) and fat (-100)
LUNG_HU = -400.0  # lung tissue is below, the rest of the body above
IN_PLANE = np.stack([np.zeros((3, 3), bool), ndimage.generate_binary_structure(2, 1), np.zeros((3, 3), bool)])


def dilate(masks: np.ndarray, times: int = 1, within: np.ndarray | None = None) -> np.ndarray:
    """Masks (N, S, S) grown by one pixel to the four sides, `times` times, staying inside `within`."""
    for _ in range(times):
        grown = masks.copy()
        grown[:, 1:] |= masks[:, :-1]
        grown[:, :-1] |= masks[:, 1:]
        grown[:, :, 1:] |= masks[:, :, :-1]
        grown[:, :, :-1] |= masks[:, :, 1:]
        masks = grown if within is None else grown & within
    return masks


def erode(masks: np.ndarray, times: int = 1) -> np.ndarray:
    """Masks (N, S, S) shrunk by one pixel from the four sides, `times` times; what lies beyond the frame is not in them."""
    for _ in range(times):
        shrunk = np.zeros_like(masks)
        inner = shrunk[:, 1:-1, 1:-1]
        np.logical_and(masks[:, :-2, 1:-1], masks[:, 2:, 1:-1], out=inner)
        for part in (masks[:, 1:-1, :-2], masks[:, 1:-1, 2:], masks[:, 1:-1, 1:-1]):
            inner &= part
        masks = shrunk
    return masks


def pieces(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Connected pieces within each slice: labels (N, S, S), and for each label its area in pixels and the slice it lies in."""
    labels, n = ndimage.label(masks, IN_PLANE)
    areas = np.bincount(labels.ravel(), minlength=n + 1)
    areas[0] = 0
    last = np.maximum.accumulate(labels.max((1, 2)))  # labels count up from slice to slice
    return labels, areas, np.minimum(np.searchsorted(last, np.arange(n + 1)), len(masks) - 1)


def large(masks: np.ndarray, share: float) -> np.ndarray:
    """Of each slice the pieces of at least `share` of the largest one's area; share 1: the largest one alone."""
    labels, areas, owner = pieces(masks)
    largest = np.zeros(len(masks), np.int64)
    np.maximum.at(largest, owner, areas)
    keep = (areas > 0) & (areas >= share * largest[owner])
    if share == 1:  # of equal ones the first
        first = np.zeros(len(masks), np.int64)
        first[owner[keep][::-1]] = np.flatnonzero(keep)[::-1]
        keep = np.zeros_like(keep)
        keep[first[first > 0]] = True
    return keep[labels]


def fill(masks: np.ndarray) -> np.ndarray:
    """Masks with their holes filled: all that the frame's border cannot reach."""
    labels, areas, _ = pieces(~masks)
    outside = np.zeros(len(areas), bool)
    for edge in (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]):
        outside[edge] = True
    outside[0] = False
    return ~outside[labels]


def body_masks(hu: np.ndarray, second: float = 1.1) -> np.ndarray:
    """The patient on slices (N, S, S) of HU: the largest piece left when thin things (couch, tubes) are opened away, filled.

    A chest wall can be thin too: pieces that opening cut off, and dense pixels beside them, are taken back in before the
    lungs are filled. All False where there is none, or where a second piece has at least `second` times the largest one's area.
    """
    dense = hu > BODY_HU
    reach = max(1, round(hu.shape[-1] / 96))  # px
    opened = dilate(erode(dense, reach), reach)
    whole = dilate(large(opened, 0.1), 4 * reach, within=dense)
    whole = np.pad(whole, ((0, 0), (2 * reach, 2 * reach), (2 * reach, 2 * reach)))
    filled = fill(erode(dilate(whole, reach), reach))
    opened = dilate(erode(filled, 2 * reach), 2 * reach)[:, 2 * reach : -2 * reach, 2 * reach : -2 * reach]
    largest = large(opened, 1)
    if second <= 1:
        beside = large(opened & ~largest, 1).sum((1, 2)) >= second * largest.sum((1, 2))
        largest[beside] = False
    return largest


def body_mask(hu: np.ndarray) -> np.ndarray:
    """`body_masks` of one slice (S, S)."""
    return body_masks(hu[None])[0]


def lung_mask(hu: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Air-filled tissue inside `body`, both of the same shape."""
    return body & (hu < LUNG_HU)
