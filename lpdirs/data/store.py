"""A data set on disk (slices.npy, slices.csv, rejected.csv, dataset.json) and batches from it."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from lpdirs.checkpoints import stream


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

    def tensor(self, rows=slice(None)) -> Tensor:
        """Slices in [-1, 1] (n, 1, S, S), float32."""
        where = self.table["row"].to_numpy()[rows]
        return scale(torch.from_numpy(self.hu[where].astype(np.float32)), self.window)[:, None]

    def batch(self, index: int, size: int, seed: int, augment: bool = False) -> Tensor:
        """The batch of training step `index`: epochs without repetition, shuffled by `seed`; (size, 1, S, S) in [-1, 1]."""
        position = np.arange(index * size, (index + 1) * size)
        epochs, places = position // len(self), position % len(self)
        rows = np.empty(size, np.int64)
        for epoch in np.unique(epochs):
            order = torch.randperm(len(self), generator=stream(seed, 0, int(epoch))).numpy()
            rows[epochs == epoch] = order[places[epochs == epoch]]
        x = self.tensor(rows)
        return affine(x, stream(seed, 3, index)) if augment else x


def scale(hu: Tensor, window: tuple[float, float]) -> Tensor:
    """HU, clipped to the window, linearly to [-1, 1]."""
    low, high = window
    return (hu.clamp(low, high) - low) * (2 / (high - low)) - 1


def to_hu(x, window: tuple[float, float]):
    """[-1, 1] back to HU."""
    low, high = window
    return (x + 1) * ((high - low) / 2) + low


def affine(x: Tensor, rng: torch.Generator, degrees: float = 1.0, zoom: float = 1.1) -> Tensor:
    """The paper's augmentation: rotation by +-1 degree and scale from 1 to 1.1, bilinear, with air in the corners."""
    angle = torch.deg2rad((2 * torch.rand(len(x), generator=rng) - 1) * degrees)
    factor = 1 / (1 + (zoom - 1) * torch.rand(len(x), generator=rng))
    cos, sin, zero = angle.cos() * factor, angle.sin() * factor, torch.zeros_like(angle)
    theta = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x + 1, grid, align_corners=False) - 1


def open_dataset(folder: Path, split: str | None = None) -> Slices:
    """The slices of one split ("train", "validation", "test"; None: all) of the data set in `folder`."""
    description = json.loads((folder / "dataset.json").read_text())
    table = pd.read_csv(folder / "slices.csv", dtype={"patient": str, "series": str})
    if split is not None:
        table = table[table["split"] == split].reset_index(drop=True)
    return Slices(np.load(folder / "slices.npy", mmap_mode="r"), table, tuple(description["window"]))
