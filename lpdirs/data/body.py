"""Body and lungs on slices in HU: the masks that the reader and the anatomy stand on, of stacks (N, S, S) at once.

Lung tissue lies between gas and soft tissue in HU, is more than a rim thick, hangs together from slice to slice, and is large; other gas in
the body (windpipe, stomach, bowel, sinuses) is not.
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


def lung_mask(hu: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Air-filled tissue inside `body`, both of the same shape."""
    return body & (hu < LUNG_HU)


GAS_HU = -950.0  # below is gas alone: air around the patient, windpipe, bowel
DENSE_HU = -600.0  # the median of a piece of lung is below, that of a wall's rim or of stool above
RIM_MM = 2.5  # half the thickness of what counts as a rim
MIN_CM2 = 12.0  # of the slice on which a piece of lung is largest
MIN_SHARE = 0.1  # of the largest piece's volume
SPOT, OPEN_HU = 9, -955.0  # px, and the mean over so many below which the field of view ends at air, and not at lung
SIZE = 128  # px, at which lungs are looked for, whatever the size of the data set


def lung_fractions(hu: np.ndarray, beyond: np.ndarray, pixel_mm: float) -> np.ndarray:
    """Share of the body's area that is lung, (N,), on the slices (N, S, S) of one series in HU, in the order of their positions.

    `beyond` (N, S, S) marks what the scanner did not see: where the field of view ends at lung or chest wall, both are taken to go on,
    so that lungs which touch the frame count.
    """
    body, lung = lung_masks(hu, beyond, pixel_mm)
    return lung.sum((1, 2)) / np.maximum(body.sum((1, 2)), 1)


def lung_masks(hu: np.ndarray, beyond: np.ndarray, pixel_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Bodies and lungs, (N, S, S) each, of one series; see `lung_fractions`."""
    parts = [_bodies(hu[i : i + 64], beyond[i : i + 64]) for i in range(0, len(hu), 64)]
    body = np.concatenate(parts) if parts else np.zeros(hu.shape, bool)
    tissue = body & (hu > GAS_HU) & (hu < LUNG_HU)
    rim = max(1, round(RIM_MM / pixel_mm))
    labels, n = ndimage.label(_without_rim(tissue, rim))
    volume, median, widest = np.zeros(n + 1), np.zeros(n + 1), np.zeros(n + 1)
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        piece = labels[box] == label
        area = piece.sum((1, 2))
        volume[label], widest[label], median[label] = area.sum(), area.max(), np.median(hu[box][piece])
    keep = (volume >= MIN_SHARE * volume.max()) & (widest * (pixel_mm / 10) ** 2 >= MIN_CM2) & (median < DENSE_HU)
    return body, dilate(keep[labels], rim + 1, within=body & (hu < LUNG_HU))


def _bodies(hu: np.ndarray, beyond: np.ndarray) -> np.ndarray:
    """Body masks of slices whose field of view may cut the body: beyond it goes on, as tissue or as air."""
    margin = 4 * max(1, round(hu.shape[-1] / 96))
    around = ((0, 0), (margin, margin), (margin, margin))
    plain = ~beyond.any((1, 2))
    spot = lambda values: ndimage.uniform_filter(values.astype(np.float32), (0, SPOT, SPOT), mode="nearest")
    around_it = spot(np.where(beyond, 0, hu)) / np.maximum(spot(~beyond), 1e-6)  # of lung, single pixels are as thin as air
    hu, around_it = (np.pad(values, around, mode="edge") for values in (hu, around_it))
    beyond = np.pad(beyond, around, constant_values=True)
    hu[plain] = np.where(beyond[plain], np.where(around_it[plain] > OPEN_HU, 0, -1000), hu[plain])
    for i in np.flatnonzero(~plain & ~beyond.all((1, 2))):  # what is nearest
        rows, columns = ndimage.distance_transform_edt(beyond[i], return_distances=False, return_indices=True)
        hu[i][beyond[i]] = np.where(around_it[i][rows, columns][beyond[i]] > OPEN_HU, 0, -1000)
    inner = slice(margin, -margin)
    return body_masks(hu)[:, inner, inner] & ~beyond[:, inner, inner]


def _without_rim(masks: np.ndarray, times: int) -> np.ndarray:
    """Masks (N, S, S) without what is thinner than 2 * `times` pixels; the frame's edge is no rim."""
    for _ in range(times):
        padded = np.pad(masks, ((0, 0), (1, 1), (1, 1)), constant_values=True)
        masks = masks & padded[:, 2:, 1:-1] & padded[:, :-2, 1:-1] & padded[:, 1:-1, 2:] & padded[:, 1:-1, :-2]
    return masks
