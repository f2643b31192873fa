"""Held-out slices at other levels: which pairs there are, and what each way of drawing them comes to."""

import numpy as np
import pandas as pd
import torch

from lpdirs.data.store import Slices
from lpdirs.discovery.curved import fit_path
from lpdirs.discovery.directions import Directions
from lpdirs.models.generators import draw_z
from lpdirs.runs.prediction import Walk, pairs_of, predict

N, SIZE = 20, 16


class Levels(torch.nn.Module):
    """Images whose rows below a level are dense; the level is the first entry of z."""

    latent_dim = 4

    def forward(self, z):
        rows = torch.arange(SIZE, dtype=z.dtype) / SIZE
        return torch.tanh(8 * (rows[None] - z[:, :1]))[:, None, :, None].expand(-1, 1, SIZE, SIZE)


def slices(series: list[str]) -> Slices:
    level = np.tile(np.linspace(0, 1, N), 2)
    x = Levels()(torch.tensor(level, dtype=torch.float32)[:, None].expand(-1, 4))
    table = pd.DataFrame({"patient": np.repeat(["a", "b"], N), "series": series, "z_mm": -200 * level, "z_fraction": level})
    return Slices((x[:, 0].numpy() * 1000).astype(np.int16), table.assign(row=range(2 * N)), (-1000.0, 1000.0))


def test_slices_that_are_alone_have_no_pairs():
    assert len(pairs_of(slices([str(i) for i in range(2 * N)]))) == 0


def test_the_path_that_knows_the_level_reaches_the_floor_and_a_random_direction_does_not():
    held_out, generator = slices(["a"] * N + ["b"] * N), Levels()
    pairs = pairs_of(held_out)
    assert set(pairs["patient"]) == {"a", "b"} and pairs["gap"].max() > 90
    level = lambda x: (x[:, 0, :, 0] < 0).float().mean(1)
    put = lambda x: torch.stack([level(x), *torch.zeros(3, len(x))], 1)
    z = draw_z(generator, 400, 0)
    walk = Walk(generator, fit_path(z, z[:, 0].numpy()), put)
    best = pd.Series({"direction": 0, "slope": 1.0})
    table = predict(walk, Directions(torch.eye(4)), best, pairs, (held_out, held_out), None)
    error = table.groupby("method")["error"].mean()
    floor = error["the slice itself, drawn again"]
    assert error["straight direction"] < 1.3 * floor + 20 and error["curved path"] < 0.5 * error["stays put"]
    assert error["random direction"] > 2 * error["curved path"]
