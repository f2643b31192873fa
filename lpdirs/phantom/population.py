"""Who the synthetic patients are: build, sex, breath, posture, and the true factors of each of their slices.

Body size, sex, breast size, fat and lung size go together as they roughly do in people; the numbers are plausible, not fitted.
"""

from dataclasses import asdict, dataclass

import numpy as np

from lpdirs.phantom.canvas import bump, ramp

LENGTH_MM = 300.0  # apex to liver, the range of t
COUCHES = ("flat", "curved", "cradle", "sandwich", "deep cradle")  # shapes as vendors make them

# Factors that are written to the table for each slice; mm unless said.
FACTORS = {
    "rotation": "roll of the body, degrees, positive clockwise in the image",
    "x_position": "body axis right of the field's centre (patient's left), mm",
    "y_position": "body axis below the field's centre (towards the couch), mm",
    "width": "left-right extent of the trunk at this z, mm",
    "thickness": "front-back extent of the trunk at this z, without breasts, mm",
    "fat": "thickness of the subcutaneous fat, mm",
    "breast": "forward reach of the breasts at this z, mm",
    "lung": "lung size, 1 is average",
    "heart": "heart size, 1 is average",
    "z": "position from lung apex (0) to liver (1)",
    "respiration": "0 breathed out, 1 breathed in",
    "scoliosis": "largest sideways bend of the spine, towards the patient's left, mm",
}


@dataclass(frozen=True)
class Patient:
    """What makes one synthetic patient; lengths in mm, angles in degrees."""

    key: str
    seed: int
    female: bool
    height_cm: float
    bmi: float
    rotation: float
    x_position: float
    y_position: float
    width: float
    thickness: float
    fat: float
    breast: float
    lung: float
    heart: float
    respiration: float
    scoliosis: float
    twist: float = 0.0  # change of the roll from t = 0 to 1, degrees
    tilt: float = 0.0  # change of y from t = 0 to 1, mm
    contrast: float = 45.0  # HU of blood
    couch: str = "flat"


def sample_patients(n: int, seed: int) -> list[Patient]:
    """Draw `n` patients; patient i is the same whatever `n` is."""
    return [_sample_patient(i, seed) for i in range(n)]


def _sample_patient(index: int, seed: int) -> Patient:
    rng = np.random.default_rng([seed, index])

    def normal(mean: float, sd: float, low: float, high: float) -> float:
        return float(np.clip(rng.normal(mean, sd), low, high))

    female = bool(rng.random() < 0.5)
    height = normal(164, 6.5, 148, 182) if female else normal(177, 7, 160, 197)
    bmi = normal(26, 4.3, 17.5, 38)
    breath = normal(0.75, 0.22, 0, 1)
    tall, heavy = (height - 170) / 9, (bmi - 26) / 4.3
    bend = normal(0, 14, -26, 26) if rng.random() < 0.12 else normal(0, 2.5, -6, 6)
    return Patient(
        key=f"P{index:04d}",
        seed=int(rng.integers(2**31)),
        female=female,
        height_cm=height,
        bmi=bmi,
        rotation=normal(0, 9, -20, 20),
        x_position=normal(0, 9, -18, 18),
        y_position=normal(0, 18, -38, 38),
        width=float(np.clip(333 + 13 * heavy + 8 * tall + rng.normal(0, 9), 275, 392)),
        thickness=float(np.clip(236 + 15 * heavy + 8 * (breath - 0.75) + rng.normal(0, 15), 170, 305)),
        fat=float(np.clip(13 + 4.5 * heavy + 3 * female + rng.normal(0, 2.5), 5, 30)),
        breast=float(np.clip(33 + 6 * heavy + rng.normal(0, 10), 8, 62) if female else np.clip(3 + 2 * heavy + rng.normal(0, 1.5), 0, 11)),
        lung=float(np.clip(1 + 0.03 * tall + 0.12 * (breath - 0.75) + rng.normal(0, 0.05), 0.85, 1.15)),
        heart=normal(1 + 0.02 * heavy, 0.085, 0.8, 1.2),
        respiration=breath,
        scoliosis=bend,
        twist=normal(0, 2, -4, 4),
        tilt=normal(0, 4, -8, 8),
        contrast=float(rng.choice([45.0, 150.0])) + normal(0, 12, -25, 25),
        couch=str(rng.choice(COUCHES)),
    )


def factors_at(p: Patient, t: np.ndarray) -> dict[str, np.ndarray]:
    """True factors of the slices of `p` at positions t (N,), each (N,), named as in FACTORS."""
    t = np.asarray(t, np.float32)
    a, b = trunk(p, t)
    varying = {
        "rotation": p.rotation + p.twist * (t - 0.5),
        "y_position": p.y_position + p.tilt * (t - 0.5),
        "width": 2 * a,
        "thickness": 2 * b,
        "breast": p.breast * breast_shape(t),
        "z": t,
    }
    patient = asdict(p)
    return {name: np.asarray(varying.get(name, np.full_like(t, patient.get(name, 0))), np.float32) for name in FACTORS}


def breast_shape(t):
    """Forward reach of the breasts along t, 1 at their largest section."""
    return bump(t, 0.50, 0.24)


def trunk(p: Patient, t):
    """Half width and half thickness of the trunk along t, mm."""
    a = 0.5 * p.width * (0.90 + 0.10 * bump(t, 0.55, 0.45) - 0.10 * ramp(t, 0.10, 0.0))
    b = 0.5 * p.thickness * (0.80 + 0.20 * ramp(t, 0.0, 0.45) - 0.03 * ramp(t, 0.8, 1.0))
    return a, b
