"""Body and lung on a slice in HU: the two masks that the reader and the anatomy stand on."""

import numpy as np
from scipy import ndimage

BODY_HU = -300.0  # between air (-1000) and fat (-100)
LUNG_HU = -400.0  # lung tissue is below, the rest of the body above


def body_mask(hu: np.ndarray) -> np.ndarray:
    """The patient on one slice (S, S) of HU: the largest piece left when thin things (couch, tubes) are opened away, filled.

    A chest wall can be thin too: pieces that opening cut off, and dense pixels beside them, are taken back in before the
    lungs are filled. All False where there is none.
    """
    dense = hu > BODY_HU
    cross = ndimage.generate_binary_structure(2, 1)
    reach = max(1, round(hu.shape[0] / 96))  # px
    labels, n = ndimage.label(ndimage.binary_opening(dense, cross, iterations=reach))
    if n == 0:
        return np.zeros(hu.shape, bool)
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    pieces = np.flatnonzero(areas >= 0.1 * areas.max())
    whole = ndimage.binary_dilation(np.isin(labels, pieces), cross, iterations=4 * reach, mask=dense)
    filled = ndimage.binary_fill_holes(ndimage.binary_closing(np.pad(whole, reach), cross, iterations=reach))
    labels, _ = ndimage.label(ndimage.binary_opening(filled, cross, iterations=2 * reach)[reach:-reach, reach:-reach])
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    return labels == areas.argmax() if areas.max() else np.zeros(hu.shape, bool)


def lung_mask(hu: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Air-filled tissue inside `body`, both (S, S)."""
    return body & (hu < LUNG_HU)


def lung_fraction(hu: np.ndarray) -> float:
    """Share of the body's area that is lung on one slice (S, S) of HU; 0 where there is no body."""
    body = body_mask(hu)
    return float(lung_mask(hu, body).sum() / max(body.sum(), 1))
