"""Second definitions of the thorax's shape, by what lies inside: lungs and bones, and the line about which they mirror best.

The outline is not read, so that slices whose sides the frame cuts can be measured, and what steering was fed by one definition can be
judged by the other. Soft tissue counts for nothing: a bulge of the skin moves none of them.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lpdirs.data.body import body_masks, erode

INNER = {  # name: (what it is, unit)
    "axis_rotation": ("turn of the line about which lungs and bones mirror best, positive clockwise in the image", "degrees"),
    "axis_x": ("where that line passes the middle of what it mirrors, right of the frame's centre", "mm"),
    "spine_y": ("middle of the bone on that line in the back half, below the frame's centre", "mm"),
    "lungs_width": ("extent of the lungs across that line", "mm"),
    "lungs_depth": ("extent of the lungs along it", "mm"),
}
SIZE, ANGLES = 96, np.arange(-22.0, 22.1, 2.0)  # px at which mirrors are looked for, and degrees
SOFT_HU, LUNG_HU, BONE_HU = 40.0, -500.0, 150.0
MIRRORED_HU = (-300.0, 400.0)  # to which values are clipped, so that a pocket of gas counts no more than bone
SPINE_MM, EXTENT = 30.0, (0.02, 0.98)  # half width of where the spine is, and the quantiles that an extent goes from and to
MIRRORED = 0.4  # share of what is mirrored that lies on its like, at least
LEAST_CM2 = 20.0  # of lung on either side


def inner(hu: np.ndarray, pixel_mm: float) -> dict[str, np.ndarray]:
    """INNER of slices (N, S, S) in HU with pixels of `pixel_mm`, (N,) each; NaN where there is no body, no mirror, or a lung lacks."""
    body, size = body_masks(hu), hu.shape[-1]
    inside = np.where(body, np.clip(hu, *MIRRORED_HU) - SOFT_HU, 0).astype(np.float32)
    angle, place, middle, alike = _mirror(torch.from_numpy(inside)[:, None])
    turn, half = np.deg2rad(angle), size * pixel_mm / 2
    cos, sin = np.cos(turn), np.sin(turn)
    axis = ((np.arange(size) + 0.5) * 2 / size - 1) * half
    x0, y0 = half * (cos * place - sin * middle), half * (sin * place + cos * middle)  # on the line, in the middle of what it mirrors
    found = {name: np.full(len(hu), np.nan) for name in INNER}
    lungs = erode(body & (hu < LUNG_HU))
    for i in np.flatnonzero(alike >= MIRRORED):
        dx, dy = axis[None] - x0[i], axis[:, None] - y0[i]
        u, v = dx * cos[i] + dy * sin[i], dy * cos[i] - dx * sin[i]
        found["axis_rotation"][i], found["axis_x"][i] = angle[i], x0[i]
        bone = np.clip(hu[i] - BONE_HU, 0, 400) * (body[i] & (np.abs(u) < SPINE_MM) & (v > 0))
        if bone.sum() > 0:
            found["spine_y"][i] = y0[i] + cos[i] * float((bone * v).sum() / bone.sum())
        sides = (lungs[i] & (u < 0)).sum(), (lungs[i] & (u > 0)).sum()
        if min(sides) * (pixel_mm / 10) ** 2 >= LEAST_CM2:
            for name, way in (("lungs_width", u), ("lungs_depth", v)):
                found[name][i] = np.ptp(np.quantile(way[lungs[i]], EXTENT))
    return found


def _mirror(inside: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For pictures (N, 1, S, S): the angle in degrees of the line about which each mirrors best, where it lies and the middle of what is
    mirrored on it, in half sides of the turned frame, and the share that lies on its like, (N,) each; NaN where the angle is the last."""
    x = F.interpolate(inside, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
    shares, places, middles = [], [], []
    steps = (torch.arange(SIZE) + 0.5) * 2 / SIZE - 1
    for angle in np.deg2rad(ANGLES):
        cos, sin = float(np.cos(angle)), float(np.sin(angle))
        theta = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]]).expand(len(x), 2, 3)
        turned = F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)[:, 0]
        wave = torch.fft.rfft(turned, n=2 * SIZE, dim=2)  # a row times itself mirrored, at all places of the mirror
        product = torch.fft.irfft(wave * wave, n=2 * SIZE, dim=2).sum(1)
        best = product.argmax(1).clamp(1, 2 * SIZE - 2)
        left, peak, right = (product.gather(1, best[:, None] + i)[:, 0] for i in (-1, 0, 1))
        curve = (left - 2 * peak + right).clamp(max=-1e-6)
        energy = turned.square()
        shares.append(peak / energy.sum((1, 2)).clamp(min=1e-6))
        places.append((best + 0.5 * (left - right) / curve + 1) / SIZE - 1)
        middles.append((energy.sum(2) * steps).sum(1) / energy.sum((1, 2)).clamp(min=1e-6))
    share, place, middle = (torch.stack(parts, 1).double().numpy() for parts in (shares, places, middles))
    n, best = np.arange(len(share)), share.argmax(1)
    near = np.clip(best, 1, len(ANGLES) - 2)
    left, peak, right = (share[n, near + i] for i in (-1, 0, 1))
    offset = 0.5 * (left - right) / np.minimum(left - 2 * peak + right, -1e-9)
    angle = np.where(best == near, ANGLES[near] + offset * (ANGLES[1] - ANGLES[0]), np.nan)
    return angle, place[n, best], middle[n, best], np.where(np.isfinite(angle), share[n, best], 0.0)
