"""A data set on disk (slices.npy, slices.csv, rejected.csv, dataset.json), who is trained on, and batches from it."""

import hashlib
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from lpdirs.base.checkpoints import stream
from lpdirs.base.errors import UserError
from lpdirs.base.files import read_json


@dataclass(frozen=True)
class Slices:
    """Slices of one split: `hu` (N, S, S) integer HU, memory-mapped; `table`, a row a slice; `window` in HU."""

    hu: np.ndarray
    table: pd.DataFrame
    window: tuple[float, float]

    def __len__(self) -> int:
        return len(self.table)

    @property
    def size(self) -> int:
        """Pixels along a side."""
        return self.hu.shape[-1]

    def tensor(self, rows: Any = slice(None)) -> Tensor:
        """Slices in [-1, 1] (n, 1, S, S), float32."""
        return scale(self.raw(rows).float(), self.window)[:, None]

    def raw(self, rows: Any = slice(None)) -> Tensor:
        """Slices as stored, integer HU (n, S, S)."""
        return torch.from_numpy(self.hu[self.table["row"].to_numpy()[rows]])

    def rows_of(self, index: int, size: int, seed: int) -> np.ndarray:
        """Which slices are in the batch of training step `index`, (size,): epochs without repetition, shuffled by `seed`."""
        position = np.arange(index * size, (index + 1) * size)
        epochs, places = position // len(self), position % len(self)
        rows = np.empty(size, np.int64)
        for epoch in np.unique(epochs):
            rows[epochs == epoch] = _order(len(self), seed, int(epoch))[places[epochs == epoch]]
        return rows


@lru_cache(maxsize=4)
def _order(n: int, seed: int, epoch: int) -> np.ndarray:
    return torch.randperm(n, generator=stream(seed, 0, epoch)).numpy()


class Loader:
    """Training batches straight from the array: loader[index] is that of step `index`, (batch, 1, S, S) in [-1, 1] on `device`.

    A batch depends on (seed, index) alone, so a training that is resumed in mid-epoch goes on with the batch that it missed. For
    a GPU the next batch is read into pinned memory by a thread while the present one is used; the affine runs on the GPU.
    """

    def __init__(self, slices: Slices, batch: int, seed: int, augment: bool | str = False, device: str = "cpu"):
        if not len(slices):
            raise UserError("there is no slice to train on: no patient fell to training; see what notebook 01 says of the patients")
        self.slices, self.batch, self.seed, self.augment, self.device = slices, batch, seed, augment, torch.device(device)
        self._pool = ThreadPoolExecutor(1) if self.device.type == "cuda" else None
        self._next: tuple[int, Future] | None = None

    def _read(self, index: int) -> Tensor:
        x = self.slices.raw(self.slices.rows_of(index, self.batch, self.seed))
        return x.pin_memory() if self._pool else x

    def __getitem__(self, index: int) -> Tensor:
        if self._pool is None:
            x = self._read(index)
        else:
            x = self._next[1].result() if self._next and self._next[0] == index else self._read(index)
            self._next = index + 1, self._pool.submit(self._read, index + 1)
        x = scale(x.to(self.device, non_blocking=True).float(), self.slices.window)[:, None]
        return moved(x, self.motions(index)) if self.augment else x

    def motions(self, index: int) -> Tensor:
        """What is done to each slice of the batch of step `index`: `motions` (batch, 5)."""
        return motions(self.batch, stream(self.seed, 3, index, device=self.device), self.augment == "wide")


def scale(hu: Tensor, window: tuple[float, float]) -> Tensor:
    """HU, clipped to the window, linearly to [-1, 1]."""
    low, high = window
    return hu.clamp(low, high).sub_(low).mul_(2 / (high - low)).sub_(1)


def to_hu(x: Any, window: tuple[float, float]) -> Any:
    """[-1, 1] back to HU."""
    low, high = window
    return (x + 1) * ((high - low) / 2) + low


def motions(n: int, rng: torch.Generator, wide: bool = False) -> Tensor:
    """Random motions (n, 5): a turn in degrees, growth to the side and up, and shifts to the side and down, in half sides.

    The paper's turn by at most 1 degree and grow by at most a tenth, both ways alike. `wide` turns by at most 10 degrees, and grows,
    shrinks and shifts each way by at most a tenth of the side, independently: a model of such slices holds these motions for sure.
    """
    if not wide:
        turn, larger = (torch.rand(n, generator=rng, device=rng.device) for _ in range(2))
        zero, grown = torch.zeros_like(turn), 1 + 0.1 * larger
        return torch.stack([2 * turn - 1, grown, grown, zero, zero], 1)
    turn, across, down, side, fall = 2 * torch.rand(5, n, generator=rng, device=rng.device) - 1
    return torch.stack([10 * turn, 1 + 0.1 * across, 1 + 0.1 * down, 0.2 * side, 0.2 * fall], 1)


def moved(x: Tensor, motions: Tensor) -> Tensor:
    """Slices (N, 1, S, S) grown, turned and shifted by `motions` (N, 5), bilinear, with air where nothing is known."""
    turn, across, down, side, fall = motions.unbind(1)
    cos, sin, across, down = torch.deg2rad(turn).cos(), torch.deg2rad(turn).sin(), 1 / across, 1 / down
    theta = torch.stack([cos * across, -sin * across, sin * down, cos * down], 1).view(-1, 2, 2)
    theta = torch.cat([theta, -theta @ torch.stack([side, fall], 1)[:, :, None]], 2)
    grid = F.affine_grid(theta.to(x), list(x.shape), align_corners=False)
    return F.grid_sample(x + 1, grid, align_corners=False) - 1


def open_dataset(folder: Path, split: str | None = None) -> Slices:
    """The slices of one split ("train", "validation", "test"; None: all) of the data set in `folder`."""
    description = read_json(folder / "dataset.json")
    try:
        table = pd.read_csv(folder / "slices.csv", dtype={"patient": str, "series": str})
        hu, window = np.load(folder / "slices.npy", mmap_mode="r"), tuple(description["window"])
        if hu.ndim != 3 or hu.dtype != np.int16 or not {"patient", "series", "split", "row"} <= set(table) or len(table) != len(hu):
            raise ValueError("array and table do not belong together")
    except (OSError, EOFError, ValueError, KeyError) as error:  # pandas' own errors are ValueErrors
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"the data set in {folder.parent.name}/{folder.name} is damaged ({reason}): run notebook 01 again") from error
    if split is not None:
        table = table[table["split"] == split].reset_index(drop=True)
    return Slices(hu, table, window)


SPLITS = {"train": 0.8, "validation": 0.1, "test": 0.1}
FEW_SLICES = 100  # to train on: a model learns them by heart


def split_of(patient: str) -> str:
    """The patient's split: from a hash of the key alone, so that it never changes when others come or go."""
    place = _place(patient)
    for name, share in SPLITS.items():
        if place < share:
            return name
        place -= share
    return "test"


def split_patients(patients: list[str], written: dict[str, str]) -> dict[str, str]:
    """The split of each patient: as `written`, else `split_of`, or, where that leaves a part empty, by the order of the same hashes.

    Then the last patient is tested on, the one before is for validation, and all others are trained on, as far as there are enough: one
    patient alone is trained on.
    """
    each = {patient: written.get(patient) or split_of(patient) for patient in set(patients)}
    if set(each.values()) == set(SPLITS):
        return each
    ordered = sorted(each, key=_place)
    parts = dict.fromkeys(ordered, "train")
    if len(ordered) > 1:
        parts[ordered[-1]] = "test"
    if len(ordered) > 2:
        parts[ordered[-2]] = "validation"
    return parts


def _place(patient: str) -> float:
    return int.from_bytes(hashlib.blake2b(patient.encode(), digest_size=8).digest(), "big") / 2**64


def notes_on(table: pd.DataFrame, studies: int, shared: int, reasons: Counter) -> list[str]:
    """What to know about a data set before its numbers are believed, a sentence each; nothing where all is well."""
    patients, counts = table["patient"].nunique(), table["split"].value_counts()
    notes = []
    if patients == 1:
        many = f", of {studies} studies: if these are different people, give each a PatientID of its own" if studies > 1 else ""
        notes.append(f"All slices are of one patient{many}. Nothing is held out, so that no number here speaks of new patients.")
    else:
        for split in SPLITS:
            if split not in counts:
                notes.append(f"No patient is left for {split}: {patients} patients are too few. Add patients.")
    if counts.get("train", 0) < FEW_SLICES:
        notes.append(f"There are {counts.get('train', 0)} slices to train on. A model will learn them by heart: add patients or slices.")
    if "true_z" not in table and table["lung_fraction"].notna().any():
        whole = table.groupby("series").agg(n=("z_fraction", "size"), known=("z_fraction", "count"))
        parts = int(((whole["n"] >= 5) & (whole["known"] == 0)).sum())
        if parts:
            notes.append(f"{parts} of {len(whole)} series show a part of the lungs alone, or hardly any: their slices have no z-position.")
    if shared:
        notes.append(f"{shared} series UIDs stand for several patients. If these are one person under several IDs, splits do not hold.")
    if reasons["cannot be read"]:
        notes.append(f"{reasons['cannot be read']} files or folders could not be opened: see rejected.csv; the next build tries again.")
    return notes
