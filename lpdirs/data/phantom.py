"""The synthetic thorax: a parametric 3D patient, cut at any z into axial slices in HU.

A patient is a set of smooth surfaces (body, fat, lungs, heart, spine, ribs, vessels, liver dome, breasts, shoulders) in a
body frame: u to the patient's left (image right), v towards the back (image down), both in mm from the body's axis, and
t from 0 (lung apex, shoulders) to 1 (liver). A roll and a shift put the body on the couch; edges are anti-aliased to a pixel.
It is a test object with known truth, not a model of any population: ranges are plausible, correlations are invented.
"""

from dataclasses import asdict, dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from lpdirs.data.canvas import Canvas, bump, ramp

LENGTH_MM = 300.0  # apex to liver, the range of t
FOV_MM = 420.0  # side of the square field of view

# Factors that are written to the table for each slice; mm unless said.
FACTORS = {
    "rotation": "roll of the body, degrees, positive clockwise in the image",
    "x_position": "body axis right of the field's centre (patient's left), mm",
    "y_position": "body axis below the field's centre (towards the couch), mm",
    "width": "left-right extent of the trunk at this z, mm",
    "thickness": "front-back extent of the trunk at this z, without breasts, mm",
    "fat": "thickness of the subcutaneous fat, mm",
    "breast": "forward reach of the breasts at their largest section, mm",
    "lung": "lung size, 1 is average",
    "heart": "heart size, 1 is average",
    "z": "position from lung apex (0) to liver (1)",
}


@dataclass(frozen=True)
class Patient:
    """What makes one synthetic patient; lengths in mm, angles in degrees."""

    key: str
    seed: int
    rotation: float
    x_position: float
    y_position: float
    width: float
    thickness: float
    fat: float
    breast: float
    lung: float
    heart: float
    twist: float = 0.0  # change of the roll from t = 0 to 1, degrees
    tilt: float = 0.0  # change of y from t = 0 to 1, mm
    contrast: float = 45.0  # HU of blood
    couch: float = 0.0  # curvature of the couch, 0 (flat) to 1 (cradle)


def sample_patients(n: int, seed: int) -> list[Patient]:
    """Draw `n` patients; patient i is the same whatever `n` is."""
    return [_sample_patient(i, seed) for i in range(n)]


def _sample_patient(index: int, seed: int) -> Patient:
    rng = np.random.default_rng([seed, index])
    normal = lambda mean, sd, low, high: float(np.clip(rng.normal(mean, sd), low, high))
    size = normal(0, 1, -2, 2)  # overall build, shared by width, thickness and fat
    female = rng.random() < 0.5
    width = 335 + 18 * size + normal(0, 12, -25, 25)
    return Patient(
        key=f"P{index:04d}",
        seed=int(rng.integers(2**31)),
        rotation=normal(0, 9, -20, 20),
        x_position=normal(0, 8, -18, 18),
        y_position=normal(0, 18, -38, 38),
        width=width,
        thickness=222 + 16 * size + normal(0, 18, -38, 38),
        fat=float(np.clip(14 + 5 * size + rng.normal(0, 3), 5, 30)),
        breast=normal(34, 12, 10, 62) if female else normal(3, 2, 0, 8),
        lung=normal(1, 0.07, 0.85, 1.15),
        heart=normal(1, 0.09, 0.8, 1.2),
        twist=normal(0, 2, -4, 4),
        tilt=normal(0, 4, -8, 8),
        contrast=float(rng.choice([45.0, 150.0])) + normal(0, 12, -25, 25),
        couch=float(rng.random()),
    )


def factors_at(p: Patient, t: np.ndarray) -> dict[str, np.ndarray]:
    """True factors of the slices of `p` at positions t (N,), each (N,), named as in FACTORS."""
    t = np.asarray(t, np.float32)
    a, b = _trunk(p, t)
    constant = {name: np.full_like(t, asdict(p)[name]) for name in ("x_position", "fat", "breast", "lung", "heart")}
    varying = {
        "rotation": p.rotation + p.twist * (t - 0.5),
        "y_position": p.y_position + p.tilt * (t - 0.5),
        "width": 2 * a,
        "thickness": 2 * b,
        "z": t,
    }
    return {name: (constant | varying)[name].astype(np.float32) for name in FACTORS}


def _trunk(p: Patient, t):
    """Half width and half thickness of the trunk along t, mm."""
    a = 0.5 * p.width * (0.90 + 0.10 * bump(t, 0.55, 0.45) - 0.10 * ramp(t, 0.10, 0.0))
    b = 0.5 * p.thickness * (0.80 + 0.20 * ramp(t, 0.0, 0.45) - 0.03 * ramp(t, 0.8, 1.0))
    return a, b


def render(p: Patient, t, size: int = 128, noise: float = 18.0) -> np.ndarray:
    """Slices of `p` at positions t (N,), as float32 HU (N, size, size); `noise` is its SD in HU."""
    t = np.atleast_1d(np.asarray(t, np.float32))
    f = factors_at(p, t)
    rng = np.random.default_rng(p.seed)
    c = Canvas(f["rotation"], f["x_position"], f["y_position"], size, FOV_MM)
    a, b = _trunk(p, t)
    _couch(c, p, f["y_position"])
    _trunk_wall(c, p, t, a, b)
    ca, cb = _cavity(p, t, a, b)
    _lungs(c, p, t, ca, cb, rng)
    _mediastinum(c, p, t, ca, cb)
    _abdomen(c, p, t, ca, cb)
    _bones(c, p, t, a, b, ca, cb)
    if noise > 0:  # per slice its own stream, so a slice does not depend on which others are cut with it
        for i, ti in enumerate(t):
            grain = np.random.default_rng([p.seed, int(round(float(ti) * 1e6))]).standard_normal((size, size), np.float32)
            grain = gaussian_filter(grain, 0.6 * size / 128)
            c.hu[i] += noise * grain / max(float(grain.std()), 1e-6)
    return np.clip(c.hu, -1024, 3071)


def _couch(c: Canvas, p: Patient, y_position):
    """A thin curved board under the back; it stays level when the patient rolls."""
    half = 200.0
    _, deepest = _trunk(p, np.float32(0.7))  # where the back touches the board
    top = (y_position + 0.985 * deepest)[:, None, None]
    y = c.y - top + (p.couch * 26.0) * (c.x / half) ** 2
    inside = c.edge(half - np.abs(c.x))
    c.paint_all(c.edge(13 - np.abs(y - 15)) * inside, -930)
    c.paint_all(c.edge(3.0 - np.abs(np.abs(y - 15) - 12)) * inside, -180)


def _trunk_wall(c: Canvas, p: Patient, t, a, b):
    shoulder = ramp(t, 0.20, 0.02)
    parts = [c.superellipse(0, 0, a, b, 2.5)]
    for side in (-1, 1):
        parts.append(c.ellipse(side * 0.84 * a, 2, 0.30 * a * shoulder + 1e-3, 0.52 * b * shoulder + 1e-3))
    reach = p.breast * bump(t, 0.50, 0.24)
    bu, bv = 0.40 * a, -0.80 * b
    ra, rb = 0.36 * a * np.sqrt(bump(t, 0.50, 0.24)) + 1e-3, reach + 0.16 * b
    if p.breast > 1:
        parts += [c.ellipse(side * bu, bv, ra, rb) for side in (-1, 1)]
    body = np.maximum.reduce(parts)
    c.paint_all(body, -105)  # skin and subcutaneous fat
    for side in (-1, 1):  # glandular tissue in the breasts, muscle of the shoulders
        if p.breast > 12:
            c.paint_ellipse(side * bu, bv - 0.35 * reach, 0.45 * ra, 0.55 * reach + 1e-3, 5)
        c.paint_ellipse(side * 0.84 * a, 2, (0.30 * a - 0.8 * p.fat) * shoulder + 1e-3, (0.52 * b - 0.8 * p.fat) * shoulder + 1e-3, 50)
    c.paint_all(c.superellipse(0, 0, a - p.fat, b - p.fat, 2.5), 52)  # muscle


def _cavity(p: Patient, t, a, b):
    """Half axes of the pleural cavity along t, mm."""
    open_ = np.sqrt(ramp(t, -0.05, 0.42))
    ca = (a - p.fat - 20) * (0.35 + 0.65 * open_)
    cb = (b - p.fat - 17) * (0.55 + 0.45 * open_)
    return ca, cb


def _lungs(c: Canvas, p: Patient, t, ca, cb, rng):
    cavity = c.superellipse(0, 3, ca, cb, 2.3)
    c.paint_all(c.superellipse(0, 3, ca + 3.5, cb + 3.5, 2.3), 40)
    gap = (20 + 6 * bump(t, 0.62, 0.2)) / p.lung  # half width of the mediastinum, mm
    in_lung = c.edge(np.abs(c.u) - gap[:, None, None] - 10 * c.v.clip(-80, 0) / -80)
    lungs = cavity * in_lung
    c.paint_all(cavity, -70)  # mediastinal fat between the lungs
    gradient = -860 + 40 * np.clip(c.v / cb[:, None, None], -1, 1)  # denser towards the back
    c.paint_all(lungs, gradient.astype(np.float32))
    for _ in range(34):  # vessels: straight tubes from the hila, continuous in z
        side = rng.choice((-1, 1))
        slope = rng.uniform(-1, 1)
        spread_u, spread_v = rng.uniform(0.15, 0.95), rng.uniform(-0.85, 0.85)
        along = (t - 0.45) / (0.42 * slope if abs(slope) > 0.08 else 0.0336)
        show = ((along > 0.12) & (along < 1)).astype(np.float32)
        if not show.any():
            continue
        u = side * (gap + 6 + along * spread_u * (ca - gap - 8))
        v = 3 + along * spread_v * cb * 0.8
        radius = np.clip(5.5 * (1.1 - along), 1.2, 5.5) * show
        c.paint_ellipse(u, v, radius + 1e-3, radius + 1e-3, 20, within=lungs)


def _mediastinum(c: Canvas, p: Patient, t, ca, cb):
    blood, k = p.contrast, 0.92 + 0.08 * p.width / 335
    disc = lambda u, v, r, hu, s=1.0: c.paint_ellipse(u, v, r * s + 1e-3, r * s + 1e-3, hu)
    for u in (-17, 15):  # great vessels of the neck and arms
        disc(u * k, -14, 7.0, blood, ramp(t, 0.33, 0.29))
    c.paint_ellipse(6.0, -8 + 60 * (t - 0.31), 12 * k + 0 * t, 28 * bump(t, 0.33, 0.05) + 1e-3, blood)  # arch
    disc(-20 * k, -22, 9.0, blood, bump(t, 0.40, 0.18) ** 0.3)  # superior vena cava
    disc(-6 * k, -24, 14.0, blood, ramp(t, 0.33, 0.37) * ramp(t, 0.58, 0.52))  # ascending aorta
    disc(22 * k, 34, 12.0, blood, ramp(t, 0.32, 0.36))  # descending aorta
    disc(18 * k, -20, 13.0, blood, bump(t, 0.45, 0.07) ** 0.5)  # pulmonary trunk
    c.paint_ellipse(0.0, -4.0 + 0 * t, 34 * bump(t, 0.47, 0.05) + 1e-3, 9 * bump(t, 0.47, 0.05) + 1e-3, blood)
    h = p.heart * np.sqrt(np.clip(1 - ((t - 0.68) / 0.19) ** 2, 0, 1))  # the heart, an ellipsoid leaning left
    c.paint_ellipse(17 * k, -20, 60 * k * h + 1e-3, 45 * k * h + 1e-3, -60, angle=28)
    c.paint_ellipse(17 * k, -20, 56 * k * h + 1e-3, 41 * k * h + 1e-3, 60, angle=28)
    c.paint_ellipse(24 * k, -22, 26 * h + 1e-3, 18 * h + 1e-3, blood, angle=28)
    c.paint_ellipse(-12 * k, -20, 20 * h + 1e-3, 22 * h + 1e-3, blood)
    disc(0.0, 2, 9.0, -990, ramp(t, 0.42, 0.39))  # trachea, then the main bronchi
    apart = 120 * np.clip(t - 0.39, 0, 0.2)
    for side in (-1, 1):
        disc(side * apart * 1.6, 4 + apart * 0.3, 6.5, -980, ramp(t, 0.39, 0.41) * ramp(t, 0.52, 0.47))
    disc(2.0, 24, 6.0, 35)  # oesophagus


def _abdomen(c: Canvas, p: Patient, t, ca, cb):
    """Liver dome at the patient's right, spleen and stomach at the left, as ellipsoids that rise into the lungs."""
    dome = lambda top, reach: np.sqrt(np.clip(1 - ((1.12 - t) / (1.12 - top)) ** 2, 0, 1)) * reach
    right, left = dome(0.70, 1.0), dome(0.80, 1.0)
    inner = c.superellipse(0, 3, ca + 1, cb + 1, 2.3)
    c.paint_all(inner * c.ellipse(0.10 * ca, -0.25 * cb, 0.62 * ca * left + 1e-3, 0.68 * cb * left + 1e-3), -80)
    c.paint_ellipse(-0.42 * ca, -0.04 * cb, 0.60 * ca * right + 1e-3, 0.88 * cb * right + 1e-3, 85 + 0.2 * p.contrast, within=inner)
    c.paint_ellipse(0.62 * ca, 0.38 * cb, 0.33 * ca * left + 1e-3, 0.42 * cb * left + 1e-3, 80 + 0.3 * p.contrast, within=inner)
    c.paint_ellipse(0.36 * ca, -0.30 * cb, 0.36 * ca * left + 1e-3, 0.36 * cb * left + 1e-3, 25, within=inner)
    c.paint_ellipse(0.38 * ca, -0.52 * cb, 0.18 * ca * left**2 + 1e-3, 0.10 * cb * left**2 + 1e-3, -900, within=inner)


def _bones(c: Canvas, p: Patient, t, a, b, ca, cb):
    z = t * LENGTH_MM
    sv = cb * 0.62 + 6  # the spine sits against the back of the cavity
    c.paint_ellipse(0.0, sv + 4, 30 + 0 * t, 26 + 0 * t, 45)  # muscle and pleura around it
    disc_space = 0.5 + 0.5 * np.cos(2 * np.pi * z / 26)
    c.paint_ellipse(0.0, sv, 18 + 0 * t, 15 + 0 * t, 520 - 280 * disc_space)
    c.paint_ellipse(0.0, sv, 14.5 + 0 * t, 11.5 + 0 * t, 210 - 90 * disc_space)
    for side in (-1, 1):
        c.paint_ellipse(side * 17, sv + 21, 15 + 0 * t, 4.5 + 0 * t, 380, angle=side * 15)
    c.paint_ellipse(0.0, sv + 28, 4.5 + 0 * t, 13 + 0 * t, 420)  # spinous process
    c.paint_ellipse(0.0, sv + 19, 8.5 + 0 * t, 7.5 + 0 * t, 25)  # canal
    _ribs(c, t, z, ca, cb)
    front = ramp(t, 0.12, 0.18) * ramp(t, 0.74, 0.68)
    c.paint_ellipse(0.0, 3 - cb - 7, 19 * front + 1e-3, 6.5 * front + 1e-3, 330)  # sternum
    shoulder = ramp(t, 0.20, 0.02)
    for side in (-1, 1):
        blade = ramp(t, 0.02, 0.10) * ramp(t, 0.48, 0.34)
        c.paint_ellipse(side * 0.62 * a, 0.66 * b, 34 * blade + 1e-3, 4.5 * blade + 1e-3, 420, angle=-side * 38)
        c.paint_ellipse(side * 0.90 * a, 0.0, 21 * shoulder**0.5 + 1e-3, 21 * shoulder**0.5 + 1e-3, 480)
        c.paint_ellipse(side * 0.90 * a, 0.0, 17 * shoulder**0.5 + 1e-3, 17 * shoulder**0.5 + 1e-3, 230)
        collar = bump(t, 0.08, 0.05)
        c.paint_ellipse(side * 0.34 * a, -0.70 * b, 42 * collar + 1e-3, 6 * collar + 1e-3, 450, angle=side * 14)


def _ribs(c: Canvas, t, z, ca, cb):
    """Each rib runs round the cavity and down towards the front, so a slice cuts several of them obliquely."""
    ca, cb, z = (x[:, None, None] for x in (ca, cb, z))
    du, dv = c.u / (ca + 7), (c.v - 3) / (cb + 7)
    q = np.sqrt(du**2 + dv**2) + 1e-6
    q = np.sqrt(q**2 * (1 + 0.16 * (2 * np.abs(du * dv) / q**2) ** 2))  # near the superellipse of the cavity
    down = 95 * (1 - dv / q) / 2  # mm by which the rib has sunk since the spine
    phase = np.cos(2 * np.pi * (z - down) / 25)
    radial = c.edge(4.2 - np.abs(q - 1.03) * 0.5 * (ca + cb))
    front_gap = np.clip((np.abs(du) - 0.16) / 0.1, 0, 1)  # no ribs at sternum and spine
    c.paint_all((radial * np.clip(2.6 * phase + 0.3, 0, 1) * front_gap).astype(np.float32), 430)
