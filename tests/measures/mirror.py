"""A second opinion on the roll of a body: the angle at which what is in it, bones and lungs and all, is its own mirror image best."""

import numpy as np
import torch
from torch.nn import functional as F

from lpdirs.data.body import body_masks

SIZE = 96
ANGLES = np.arange(-14, 14.1)


def mirror_axis(hu: np.ndarray) -> np.ndarray:
    """Degrees, positive clockwise, of slices (N, S, S) in HU; NaN where the best angle is the first or the last."""
    inside = np.where(body_masks(hu), np.clip(hu, -1000, 600) + 1000, 0).astype(np.float32)
    x = F.interpolate(torch.from_numpy(inside)[:, None], (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
    alike = []
    for angle in np.deg2rad(ANGLES):
        cos, sin = float(np.cos(angle)), float(np.sin(angle))
        theta = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]]).expand(len(x), 2, 3)
        turned = F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)[:, 0]
        wave = torch.fft.rfft(F.pad(turned, (0, SIZE)), dim=2)  # a row times itself mirrored, at all places of the mirror
        alike.append(torch.fft.irfft(wave * wave, n=2 * SIZE, dim=2).sum(1).max(1).values / turned.square().sum((1, 2)))
    likeness = torch.stack(alike, 1).numpy()
    best = likeness.argmax(1)
    inner = np.clip(best, 1, len(ANGLES) - 2)
    left, peak, right = (likeness[np.arange(len(x)), inner + i] for i in (-1, 0, 1))
    found = ANGLES[inner] + 0.5 * (left - right) / (left - 2 * peak + right) * (ANGLES[1] - ANGLES[0])
    return np.where(best == inner, found, np.nan)
