"""The synthetic thorax: a parametric 3D patient, cut at any z into axial slices in HU.

A patient is a set of smooth surfaces (body, fat, lungs, heart, spine, ribs, vessels, liver dome, breasts, shoulders) in a
body frame: u to the patient's left (image right), v towards the back (image down), both in mm from the body's axis, and
t from 0 (lung apex, shoulders) to 1 (liver). A roll and a shift put the body on the couch; edges are anti-aliased to a pixel.
It is a test object with known truth, not a model of any population: ranges are plausible, correlations are invented.
"""

import numpy as np
from scipy.ndimage import gaussian_filter, uniform_filter1d

from lpdirs.phantom.canvas import Canvas, bump, filaments, ramp, sample
from lpdirs.phantom.population import LENGTH_MM, Patient, breast_shape, factors_at, trunk

FOV_MM = 420.0  # side of the square field of view
HILUM = 0.45  # t at which the large vessels of the lungs begin


def render(p: Patient, t, size: int = 128, noise: float = 18.0) -> np.ndarray:
    """Slices of `p` at positions t (N,), as float32 HU (N, size, size); `noise` is its SD in HU."""
    t = np.atleast_1d(np.asarray(t, np.float32))
    f = factors_at(p, t)
    rng = np.random.default_rng(p.seed)
    where = rng.uniform(0, 256, 3)  # which part of the random fields this patient sees
    c = Canvas(f["rotation"], f["x_position"], f["y_position"], size, FOV_MM)
    a, b = trunk(p, t)
    _couch(c, p, f["y_position"])
    _wall(c, p, t, a, b, where)
    ca, cb = _cavity(p, t, a, b)
    _lungs(c, p, t, ca, cb, where, rng)
    _mediastinum(c, p, t, ca, cb)
    _abdomen(c, p, t, ca, cb)
    _bones(c, p, t, a, b, ca, cb)
    if noise > 0:
        c.hu += _noise(p, t, size, noise)
    return np.clip(c.hu, -1024, 3071)


def _noise(p: Patient, t, size: int, sd: float) -> np.ndarray:
    """Grain, and streaks from shoulder to shoulder; a slice's own stream, so it does not depend on which others are cut with it."""
    grain = np.empty((len(t), size, size), np.float32)
    for i, ti in enumerate(t):
        rng = np.random.default_rng([p.seed, int(round(float(ti) * 1e6))])
        one = rng.standard_normal((size, size), np.float32)
        fine = gaussian_filter(one, 0.6 * size / 128, mode="wrap", truncate=3)
        grain[i] = fine * (sd / max(float(fine.std()), 1e-6))
        if ti < 0.14:
            streak = uniform_filter1d(one, max(3, size // 8), axis=1, mode="wrap")
            grain[i] += streak * (1.2 * sd * float(ramp(ti, 0.14, 0.02)) / max(float(streak.std()), 1e-6))
    return grain


def _couch(c: Canvas, p: Patient, y_position):
    """A thin shell under the back, of one of several makers; it stays level when the patient rolls."""
    half, depth, hollow, foam = {
        "flat": (205.0, 26.0, 0.0, -940),
        "curved": (200.0, 22.0, 16.0, -930),
        "cradle": (190.0, 16.0, 34.0, -990),
        "sandwich": (205.0, 42.0, 10.0, -880),
        "deep cradle": (180.0, 30.0, 52.0, -960),
    }[p.couch]
    _, deepest = trunk(p, np.float32(0.7))  # where the back touches the board
    top = (y_position + 0.985 * deepest + 2)[:, None, None]
    y = c.y - top + hollow * (c.x / half) ** 2
    rows = slice(max(int((top.min() - hollow - 4 + FOV_MM / 2) / c.pixel), 0), None)
    y, inside = y[:, rows], c.edge(half - np.abs(c.x))
    hu = c.hu[:, rows]
    for mask, value in (
        (c.edge(depth / 2 - np.abs(y - depth / 2)), foam),
        (c.edge(1.5 - np.abs(np.abs(y - depth / 2) - depth / 2)), -180),
    ):
        hu += mask * inside * (value - hu)


def _wall(c: Canvas, p: Patient, t, a, b, where):
    shoulder = ramp(t, 0.20, 0.02)
    parts = [c.superellipse(0, 0, a, b)]
    for side in (-1, 1):
        parts.append(c.ellipse(side * 0.84 * a, 2, 0.30 * a * shoulder + 1e-3, 0.52 * b * shoulder + 1e-3))
    shape = breast_shape(t)
    reach = p.breast * shape
    bu, bv = 0.41 * a, -0.80 * b
    ra, rb = 0.36 * a * np.sqrt(shape) + 1e-3, reach + 0.16 * b
    if p.breast > 1:
        parts += [c.ellipse(side * bu, bv, ra, rb) for side in (-1, 1)]
    c.paint_all(np.maximum.reduce(parts), -105)  # skin and subcutaneous fat
    for side in (-1, 1):  # glandular tissue in the breasts, muscle of the shoulders
        if p.female:
            c.paint_ellipse(side * bu, bv - 0.35 * reach, 0.45 * ra, 0.55 * reach + 1e-3, 5)
        c.paint_ellipse(side * 0.84 * a, 2, (0.30 * a - 0.8 * p.fat) * shoulder + 1e-3, (0.52 * b - 0.8 * p.fat) * shoulder + 1e-3, 50)
    muscle = c.superellipse(0, 0, a - p.fat, b - p.fat)
    n, y, x = np.nonzero(muscle > 0)
    planes = sample(0, 9.0, t[n] * LENGTH_MM * 0.5, c.v[n, y, x], c.u[n, y, x], where)  # fat between the muscles, drawn out in z
    c.hu[n, y, x] += muscle[n, y, x] * (52 - 130 * np.clip(planes - 0.9, 0, 1) - c.hu[n, y, x])


def _cavity(p: Patient, t, a, b):
    """Half axes of the pleural cavity along t, mm."""
    open_ = np.sqrt(ramp(t, -0.05, 0.42))
    ca = (a - p.fat - 20) * (0.35 + 0.65 * open_)
    cb = (b - p.fat - 17) * (0.55 + 0.45 * open_)
    return ca, cb


def _lungs(c: Canvas, p: Patient, t, ca, cb, where, rng):
    cavity = c.superellipse(0, 3, ca, cb)
    c.paint_all(c.superellipse(0, 3, ca + 3.5, cb + 3.5), 40)
    c.paint_all(cavity, -70)  # mediastinal fat between the lungs
    gap = (20 + 6 * bump(t, 0.62, 0.2)) / p.lung  # half width of the mediastinum, mm
    depth = c.v / cb[:, None, None]  # -1 at the front of the cavity, 1 at its back
    junction = (0.62 * ramp(t, 0.26, 0.36) * ramp(t, 0.75, 0.6))[:, None, None]  # the lungs nearly meet behind the sternum
    waist = gap[:, None, None] * (1 - junction * np.clip(-1.4 * depth - 0.3, 0, 1) - 0.25 * np.clip(1.5 * depth, 0, 1))
    lungs = cavity * c.edge(np.abs(c.u) - waist - 8 * (1 - ramp(t, 0.2, 0.4))[:, None, None] * np.clip(-depth, 0, 1))
    n, y, x = np.nonzero(lungs > 0)
    z, u, v = t[n] * LENGTH_MM, c.u[n, y, x], c.v[n, y, x]
    tissue = -815 - 55 * p.respiration + (70 - 30 * p.respiration) * np.clip(depth[n, y, x], -1, 1)  # denser towards the back
    tissue += 14 * sample(3, 14.0, z, v, u, where)
    small = filaments(1, 11.0, z, v, np.abs(u), where)  # vessels too small and too many to draw one by one
    width = max(1.6, 0.5 * c.pixel)
    tissue += 700 * min(1.0, 2.2 / width) * np.clip(1.6 - small / width, 0, 1)
    c.hu[n, y, x] += lungs[n, y, x] * (tissue.astype(np.float32) - c.hu[n, y, x])
    reach = [float(half) for half in _cavity(p, HILUM, *trunk(p, np.float32(HILUM)))]
    for _ in range(18):
        _vessel(c, t, ca, cb, gap, reach, lungs, rng)


def _vessel(c: Canvas, t, ca, cb, gap, reach, lungs, rng):
    """A tube from the hilum outwards and two branches of it, each straight, tapering and continuous in z."""
    side, slope = rng.choice((-1, 1)), rng.uniform(-1, 1)
    slope = 0.06 * np.sign(slope) if abs(slope) < 0.06 else slope
    ends = [(0.0, 1.0, 0.42 * slope, rng.uniform(0.1, 0.95), rng.uniform(-0.9, 0.9))]
    for _ in range(2):
        _, _, drop, to_u, to_v = ends[0]
        turn = rng.normal(0, 0.3, 3)
        start, to_u, to_v = rng.uniform(0.25, 0.5), np.clip(to_u + turn[1], 0.05, 1), np.clip(to_v + turn[2], -0.95, 0.95)
        ends.append((start, 0.72, drop + 0.3 * turn[0], to_u, to_v))
    for start, thick, drop, to_u, to_v in ends:
        origin = [start * k for k in ends[0][2:]]  # drop in t, and shares of the way to the wall and to front or back
        end = (drop, to_u, to_v) if start == 0 else (origin[0] + (1 - start) * drop, to_u, to_v)
        fall = end[0] - origin[0]
        fall = np.copysign(max(abs(fall), 0.02), fall)
        along = (t - HILUM - origin[0]) / fall  # 0 at its beginning, 1 at its end
        share = [o + np.clip(along, 0, 1) * (e - o) for o, e in zip(origin[1:], end[1:], strict=True)]
        du, dv = side * (end[1] - origin[1]) * (reach[0] - 30), (end[2] - origin[2]) * reach[1] * 0.8
        tilt = np.hypot(du, dv) / (abs(fall) * LENGTH_MM)  # how far it runs sideways for each mm of z
        radius = np.clip(5.6 * thick * (1.1 - start - (1 - start) * along), 1.1, 6) * ((along > -0.1) & (along < 1))
        long = np.minimum(radius * np.sqrt(1 + tilt**2), 0.35 * np.hypot(du, dv) + radius)
        angle = float(np.rad2deg(np.arctan2(dv, du)))
        angle -= 180 * np.round(angle / 180)
        c.paint_ellipse(side * (gap + 6 + share[0] * (ca - gap - 8)), 3 + share[1] * cb * 0.8, long, radius, 25, angle=angle, within=lungs)


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
    for side in (-1, 1):  # pulmonary arteries and veins at the hila
        hilum = bump(t, 0.48, 0.09) ** 0.5
        c.paint_ellipse(side * 36.0 * k, 6 + 40 * (t - 0.48), 15 * hilum + 1e-3, 8 * hilum + 1e-3, blood, angle=side * 35)
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
    """Liver dome at the patient's right, spleen and stomach at the left: ellipsoids that rise into the lungs, more so breathed out."""
    risen = 0.07 * (0.75 - p.respiration)
    dome = lambda top: np.sqrt(np.clip(1 - ((1.12 - t) / (1.12 - top + risen)) ** 2, 0, 1))
    right, left = dome(0.70), dome(0.80)
    inner = c.superellipse(0, 3, ca + 1, cb + 1)
    c.paint_all(inner * c.ellipse(0.10 * ca, -0.25 * cb, 0.62 * ca * left + 1e-3, 0.68 * cb * left + 1e-3), -80)
    c.paint_ellipse(-0.42 * ca, -0.04 * cb, 0.60 * ca * right + 1e-3, 0.88 * cb * right + 1e-3, 85 + 0.2 * p.contrast, within=inner)
    c.paint_ellipse(0.62 * ca, 0.38 * cb, 0.33 * ca * left + 1e-3, 0.42 * cb * left + 1e-3, 80 + 0.3 * p.contrast, within=inner)
    c.paint_ellipse(0.36 * ca, -0.30 * cb, 0.36 * ca * left + 1e-3, 0.36 * cb * left + 1e-3, 25, within=inner)
    c.paint_ellipse(0.38 * ca, -0.52 * cb, 0.18 * ca * left**2 + 1e-3, 0.10 * cb * left**2 + 1e-3, -900, within=inner)


def _bones(c: Canvas, p: Patient, t, a, b, ca, cb):
    z = t * LENGTH_MM
    su, sv = p.scoliosis * np.sin(np.pi * (t - 0.05) / 0.8), cb * 0.62 + 6  # the spine sits against the back of the cavity
    c.paint_ellipse(su, sv + 4, 30 + 0 * t, 26 + 0 * t, 45)  # muscle and pleura around it
    disc_space = 0.5 + 0.5 * np.cos(2 * np.pi * z / 26)
    c.paint_ellipse(su, sv, 18 + 0 * t, 15 + 0 * t, 520 - 280 * disc_space)
    c.paint_ellipse(su, sv, 14.5 + 0 * t, 11.5 + 0 * t, 210 - 90 * disc_space)
    for side in (-1, 1):
        c.paint_ellipse(su + side * 17, sv + 21, 15 + 0 * t, 4.5 + 0 * t, 380, angle=side * 15)
    c.paint_ellipse(su * 0.8, sv + 28, 4.5 + 0 * t, 13 + 0 * t, 420)  # spinous process: bent vertebrae also turn
    c.paint_ellipse(su, sv + 19, 8.5 + 0 * t, 7.5 + 0 * t, 25)  # canal
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
    q2 = du**2 + dv**2 + 1e-12
    radius = np.sqrt(q2)
    q = np.sqrt(q2 * (1 + 0.16 * (2 * np.abs(du * dv) / q2) ** 2))  # near the superellipse of the cavity
    radial = c.edge(4.2 - np.abs(q - 1.03) * 0.5 * (ca + cb))
    n, y, x = np.nonzero(radial > 0)
    down = 95 * (1 - dv[n, y, x] / radius[n, y, x]) / 2  # mm by which the rib has sunk since the spine
    phase = np.cos(2 * np.pi * (z[n, 0, 0] - down) / 25)
    front_gap = np.clip((np.abs(du[n, y, x]) - 0.16) / 0.1, 0, 1)  # no ribs at sternum and spine
    mask = radial[n, y, x] * np.clip(2.6 * phase + 0.3, 0, 1) * front_gap
    c.hu[n, y, x] += mask * (430 - c.hu[n, y, x])
