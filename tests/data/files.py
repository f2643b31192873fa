"""Small CT files that do what real ones do: a chest of ellipses, with whatever tags a test gives it."""

from pathlib import Path

import numpy as np

from lpdirs.phantom.cohort import Cohort, to_dicom

COHORT = Cohort("files", 1, 1)
MM = 3.0  # a pixel
SIZE = 128


def chest(z: float, shift: float = 0.0, noise: int = 0) -> np.ndarray:
    """(128, 128) HU: a body of 300 x 210 mm with two lungs where z is from 0 (apex) to 1 (base), moved by `shift` mm to the right."""
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2) * MM
    x = x - shift
    hu = np.full((SIZE, SIZE), -1000.0, np.float32)
    body = (x / 150) ** 2 + (y / 105) ** 2 < 1
    hu[body] = 40
    if 0 <= z <= 1:
        wide = 0.4 + 0.6 * np.sin(np.pi * z)
        for side in (-1, 1):
            hu[((x - side * 70) / (50 * wide)) ** 2 + (y / (75 * wide)) ** 2 < 1] = -850
    hu[body] += np.random.default_rng(int(1e4 * (z + 5)) + noise).integers(-8, 9, body.sum())
    return hu


def write(path: Path, hu: np.ndarray, z_mm: float, number: int = 1, raw: np.ndarray | None = None, **tags: object) -> Path:
    """One slice as a file that says nothing of the phantom; `tags` in place of what it would say, None leaves a tag out."""
    ds = to_dicom(hu, "P1", 0.5, number, COHORT)
    ds.Rows, ds.Columns = hu.shape
    ds.PixelSpacing, ds.ImagePositionPatient, ds.InstanceNumber = [MM, MM], [0, 0, z_mm], number
    ds.SOPInstanceUID = f"2.25.{abs(hash((str(path), number)))}"
    ds.BitsStored, ds.HighBit = 16, 15
    del ds.SyntheticData
    if raw is not None:
        ds.PixelData = raw.astype("<u2" if raw.min() >= 0 else "<i2").tobytes()
        ds.PixelRepresentation = int(raw.min() < 0)
    for name, value in tags.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def series(folder: Path, n: int = 12, top: float = 100.0, gap: float = 5.0, noise: int = 0, shift: float = 0.0, **tags: object) -> None:
    """A series of `n` slices from above the apex to below the base, in a folder of its own."""
    for i in range(n):
        write(folder / f"{i:03d}.dcm", chest((i - 2) / (n - 5), shift, noise), top - gap * i, i + 1, **tags)
