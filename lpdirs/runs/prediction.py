"""Slices of a run's held-out patients, walked to other levels of the body by a generator of the run, beside what needs no generator."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lpdirs.data.store import Slices
from lpdirs.discovery.closed_form import random
from lpdirs.discovery.curved import LatentPath, fit_path
from lpdirs.discovery.directions import Directions
from lpdirs.measures.measures import Measures
from lpdirs.measures.zposition import known_z
from lpdirs.models.files import load_model
from lpdirs.models.generators import draw_z, generate
from lpdirs.models.training import encode
from lpdirs.models.vae import VAE
from lpdirs.runs.models import GENERATORS
from lpdirs.runs.stage import Stage
from lpdirs.scores import third_dimension as third
from lpdirs.scores.inversion import invert, invert_by_encoder

GAPS_MM = (10, 20, 40, 60, 100)  # how far apart slices are, to the nearest that the series have
PATIENTS = 24  # at most
FAR = 12.0  # the largest shift along a straight direction


@dataclass(frozen=True)
class Walk:
    """A generator of the run with its curved `path` through the levels, and `put`, which puts slices (N, 1, S, S) into its latent space."""

    generator: nn.Module
    path: LatentPath
    put: Callable[[Tensor], Tensor]

    def chest(self, slices: Tensor, start: int, z: np.ndarray) -> Tensor:
        """The slices at levels z (N,) as the generator draws them from the one numbered `start` alone."""
        latent = self.put(slices[start : start + 1]).expand(len(z), -1)
        return generate(self.generator, self.path.move(latent, np.full(len(z), z[start]), z))


def walk_of(stage: Stage, name: str, generator: nn.Module, measures: Measures, train: Slices) -> Walk:
    """The walk of the run's GAN or VAE: its path is fitted to encoded training slices, or to the GAN's own samples, of measured level."""
    if name == "vae":
        vae, _ = load_model(stage.need(GENERATORS["vae"]), stage.device)
        assert isinstance(vae, VAE)
        path = fit_path(encode(vae, train.tensor())[0].cpu(), known_z(train.table), train.table["patient"].to_numpy())
        return Walk(generator, path, lambda x: invert_by_encoder(vae, x, train.window).z)
    z = draw_z(generator, 2000, stage.seed + 7)
    steps = stage.settings.analysis.inversion_steps
    path = fit_path(z, measures.of(generator, z)["z_position"].to_numpy())
    return Walk(generator, path, lambda x: invert(generator, x, train.window, steps, 2, stage.seed).z)


def pairs_of(held_out: Slices) -> pd.DataFrame:
    """Pairs of held-out slices of a series (`third_dimension.pairs_of`) at about GAPS_MM; none where the series are single slices."""
    steps = held_out.table.groupby("series")["z_mm"].apply(lambda z: np.median(np.abs(np.diff(np.sort(z)))) if len(z) > 1 else np.nan)
    if not np.isfinite(steps).any():
        return third.pairs_of(held_out, ()).head(0)
    step = float(steps.median())
    pairs = third.pairs_of(held_out, tuple(sorted({step * max(1, round(gap / step)) for gap in GAPS_MM})), starts=2)
    return pairs[pairs["patient"].isin(sorted(pairs["patient"].unique())[:PATIENTS])].reset_index(drop=True)


def predict(
    walk: Walk, directions: Directions, best: pd.Series, pairs: pd.DataFrame, data: tuple[Slices, Slices], measures: Measures, seed: int = 0
) -> pd.DataFrame:
    """`third_dimension.predictions` of every way to draw a patient's slice at another level; `data` is train and held-out.

    `best` is the row of the best direction for z of `best_directions`. The slice unchanged, or drawn again and staying put, a random
    direction and the mean slice need not know where to go; the last, the patient's own slice there drawn again, is the floor.
    """
    train, held_out = data
    generator, d = walk.generator, directions.latent_dim
    used = np.unique(pairs[["start", "end"]])
    known = dict(zip(used, walk.put(held_out.tensor(used)), strict=True))
    at = lambda rows, which: torch.stack([known[i] for i in rows[which]])
    found = np.isfinite(best["direction"])  # else no direction moves z, and a straight walk goes nowhere
    straight = directions.matrix[int(best["direction"])] if found else torch.zeros(d)
    away = ((pairs["z_end"] - pairs["z_start"]) / (best["slope"] if found else np.inf)).to_numpy()
    far = torch.tensor(away, dtype=torch.float32).clamp(-FAR, FAR)[:, None]
    anyhow = random(1, d, seed)[0]
    curved = lambda rows: walk.path.move(at(rows, "start"), rows["z_start"].to_numpy(), rows["z_end"].to_numpy())
    return third.predictions(
        held_out,
        pairs,
        {
            "unchanged slice": lambda rows: held_out.tensor(rows["start"].to_numpy(int)),
            "stays put": lambda rows: generate(generator, at(rows, "start")),
            "random direction": lambda rows: generate(generator, at(rows, "start") + far * anyhow),
            "straight direction": lambda rows: generate(generator, at(rows, "start") + far * straight),
            "curved path": lambda rows: generate(generator, curved(rows)),
            "mean training slice there": lambda rows: third.mean_slices(train, rows["z_end"].to_numpy()),
            "the slice itself, drawn again": lambda rows: generate(generator, at(rows, "end")),
        },
        measures,
    )
