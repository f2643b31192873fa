"""Steering judged by the phantom's truth: by a network that learned it from painted patients alone. `python -m experiments.truth`

The thorax's measures steer the phantom's GAN and VAE (outputs/reference/phantom), one factor after the other; so do the moments of the
picture, which know no anatomy. What moves is then read by a convolutional network that was trained on painted slices of other patients,
whose factors are known because they were painted, and that no method has seen; so it is along the best straight direction of `motion`, of
the paper's method and of random sets. Which path or direction is a factor's is chosen by the thorax's measures on other starts.
Writes outputs/reference/phantom/truth.csv, a row a model, way and factor, and truth_reader.csv, how well the network reads painted slices
of patients that it has not seen. Twenty minutes on two cores.
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import lpdirs as lp
from experiments.steering import AMOUNTS
from lpdirs.base.checkpoints import stream
from lpdirs.data.store import Slices
from lpdirs.discovery.closed_form import random
from lpdirs.measures.measures import moments
from lpdirs.phantom.cohort import Cohort, write_cohort
from lpdirs.scores.response import Responses, best_directions, respond
from lpdirs.scores.steering import Steering, fit_steering, steered_ends
from tests.notebooks.refresh import ROOT

OUT = ROOT / "outputs" / "reference" / "phantom"
TRUTH = ("rotation", "x_position", "y_position", "width", "thickness", "breast", "z")  # as painted
FACTORS = dict(zip(("rotation", "x_position", "y_position", "width", "thickness", "breast", "z_position"), TRUTH, strict=True))
PATIENTS, SLICES, EPOCHS, BATCH = 400, 12, 40, 64  # that the network learns from
STARTS, SETS, SHIFTS, K = 48, 4, (-4.0, -2.0, 0.0, 2.0, 4.0), 32


class Reader(nn.Module):
    """Slices (N, 1, 64, 64) to the factors that they were painted with, in SDs."""

    def __init__(self) -> None:
        super().__init__()
        wide = (1, 32, 64, 128, 128)
        layers = [
            part
            for i, o in zip(wide, wide[1:], strict=False)
            for part in (nn.Conv2d(i, o, 3, stride=2, padding=1), nn.BatchNorm2d(o), nn.SiLU())
        ]
        self.net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 16, 256), nn.SiLU(), nn.Dropout(0.1), nn.Linear(256, len(TRUTH)))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def painted() -> Slices:
    """Slices of patients that are in no training: through DICOM and the reader of files, as the models' own came."""
    with tempfile.TemporaryDirectory() as temporary:
        write_cohort(Cohort("truth", PATIENTS, SLICES, 128, seed=77), Path(temporary) / "dicom")
        return lp.read_slices(Path(temporary) / "dicom", size=64)


def trained(slices: Slices) -> tuple[Reader, pd.Series, pd.Series, pd.DataFrame]:
    """The network, mean and SD of the factors, and how it reads slices of a fifth of the patients that it has not seen."""
    x, table = slices.tensor(), slices.table[[f"true_{name}" for name in TRUTH]].set_axis(list(TRUTH), axis=1)
    mean, sd = table.mean(), table.std()
    y = torch.tensor(((table - mean) / sd).to_numpy()).float()
    unseen = torch.tensor(slices.table["patient"].str[-1].isin(["0", "5"]).to_numpy())
    torch.manual_seed(0)
    reader, rows = Reader(), torch.where(~unseen)[0]
    optimiser = torch.optim.AdamW(reader.parameters(), 1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=EPOCHS * -(-len(rows) // BATCH))
    for epoch in range(EPOCHS):
        rng = stream(0, 1, epoch)
        for some in rows[torch.randperm(len(rows), generator=rng)].split(BATCH):
            noisy = x[some] + 0.03 * torch.randn(x[some].shape, generator=rng)
            loss = (reader(noisy) - y[some]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    reader.eval().requires_grad_(False)
    off = (reader(x[unseen]) - y[unseen]).numpy()
    r2 = 1 - (off**2).mean(0) / y[unseen].var(0).numpy()
    known = pd.DataFrame({"factor": TRUTH, "r2": r2, "error": np.abs(off).mean(0) * sd.to_numpy(), "patients": PATIENTS // 5})
    return reader, mean, sd, known


def along(generator: lp.Generator, by: Steering, measures: lp.Measures, seed: int) -> pd.DataFrame:
    """What `measures` read where each factor of `by` is steered, path by path, as `respond` says it of directions."""
    z = generator.draw(STARTS, torch.Generator().manual_seed(seed))
    values = np.empty((len(by.can_move), len(AMOUNTS), STARTS, len(measures.factors)))
    for k, factor in enumerate(by.can_move):
        ends, _ = steered_ends(generator, z, factor, AMOUNTS, steering=by)
        values[k] = np.stack([measures.of(generator, end).to_numpy() for end in ends])
    spread = measures.of(generator, generator.draw(512, 0)).std()
    return Responses(values, np.asarray(AMOUNTS), spread, {}, None, measures.units, measures).table(0, 200)


def judged(chosen: dict[str, int], table: pd.DataFrame) -> pd.DataFrame:
    """The row of the truth of each factor, along the path or direction that was chosen for it."""
    rows = table.set_index(["direction", "factor"])
    names = ["selectivity", "selectivity_low", "selectivity_high", "r", "effect", "missing"]
    return pd.DataFrame({name: rows.loc[(k, FACTORS[name]), names] for name, k in chosen.items()}).T.abs()


def best(table: pd.DataFrame) -> dict[str, int]:
    """The number of the path or direction that is best for each factor, by what chooses."""
    return {name: int(k) for name, k in best_directions(table)["direction"].dropna().items() if name in FACTORS}


def rows_of(generator: lp.Generator, truth: lp.Measures, paper: lp.Directions) -> pd.DataFrame:
    """A row a way and factor, by the truth."""
    blind, found = generator.but(measures=moments()), {}
    by = fit_steering(generator)
    found["steered"] = judged({name: by.can_move.index(name) for name in FACTORS}, along(generator, by, truth, 1))
    free = fit_steering(blind)
    found["label-free"] = judged(best(along(blind, free, generator.measures, 2)), along(blind, free, truth, 1))
    sets = [lp.Directions(random(K, generator.latent_dim, 50 + i, orthonormal=True)) for i in range(SETS)]
    straight = {"motion": [lp.discover(generator, "motion", K)], "paper": [paper], "random": sets}
    for way, several in straight.items():
        parts = []
        for directions in several:
            chosen = best(respond(generator, directions, shifts=SHIFTS, samples=STARTS, seed=2).table(0, 50))
            parts.append(judged(chosen, respond(generator, directions, truth, SHIFTS, STARTS, seed=1).table(0, 200)))
        found[way] = pd.concat(parts).groupby(level=0).median()
    return pd.concat(found, names=["way", "factor"]).reset_index()


def main() -> None:
    reader, mean, sd, known = trained(painted())
    known.to_csv(OUT / "truth_reader.csv", index=False, float_format="%.4g")
    print(known.round(3).to_string(), flush=True)
    read = lambda x: pd.DataFrame(reader(x).double().numpy() * sd.to_numpy() + mean.to_numpy(), columns=list(TRUTH))
    truth, rows = lp.Measures(read, dict.fromkeys(TRUTH, "")), []
    for label, (generator, paper) in lp.load(OUT).items():
        rows.append(rows_of(generator, truth, paper).assign(model=label.partition("-")[0]))
        pd.concat(rows).to_csv(OUT / "truth.csv", index=False, float_format="%.4g")
        print(rows[-1].pivot_table(index="way", columns="factor", values="selectivity").round(2).to_string(), flush=True)


if __name__ == "__main__":
    main()
