"""The first figure of the README: one factor along a random direction, along the best found one, and steered. python -m experiments.front

A minute on two cores. Writes outputs/reference/front.png and front.csv, what was measured on the slices that are shown.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import lpdirs as lp
from experiments.chest_figures import K, save_greys
from lpdirs.measures.measures import factor_words
from lpdirs.scores.steering import Steering
from tests.notebooks.refresh import ROOT

OUT = ROOT / "outputs" / "reference"
MODEL, FACTOR, SEED = "gan", "rotation", 11
AMOUNTS = np.array([-1.5, -0.75, 0.0, 0.75, 1.5])  # SDs
FARTHEST = 6.0  # shift


def start_of(generator: lp.Generator) -> torch.Tensor:
    """Of 256 random z the most ordinary one on which everything can be measured: the nearest to the mean in all factors."""
    z = generator.draw(256, SEED)
    known = generator.measures.of(generator, z)
    away = ((known - known.mean()) / known.std()).abs().sum(axis=1).where(known.notna().all(axis=1))
    return z[int(away.idxmin())]


def main() -> None:
    models = lp.load(OUT / "chest")
    generator = models[f"{MODEL}-motion{K}"][0]
    steering = Steering.load(ROOT / "build" / f"steering_{MODEL}.safetensors")
    pure = pd.read_csv(OUT / "chest" / "steering.csv").query("model == @MODEL").set_index("factor").loc[FACTOR, "selectivity"]
    start, rows = start_of(generator), {}
    straight = {"the best of 32 random\ndirections": f"{MODEL}-random{K}", "the best direction\nthat was found": f"{MODEL}-motion{K}"}
    for title, label in straight.items():
        best = models[label][1].info.best[FACTOR]
        shifts = np.linspace(-FARTHEST, FARTHEST, len(AMOUNTS)) * np.sign(best.slope)
        z = torch.cat([models[label][1].shift(start[None], best.direction, shift) for shift in shifts])
        rows[title] = (z, best.selectivity)
    to = lambda amount: lp.steer(generator, start, {FACTOR: amount}, unit="sd", steering=steering).end if amount else start[None]
    rows["steered: one factor goes,\nthe others hold"] = (torch.cat([to(amount) for amount in AMOUNTS]), pure)
    fig, axes = plt.subplots(
        len(rows), len(AMOUNTS) + 1, figsize=(9.6, 5.3), width_ratios=[1.25] + [1] * len(AMOUNTS), layout="constrained"
    )
    measured = []
    for line, (title, (z, selectivity)) in zip(axes, rows.items(), strict=True):
        table = generator.measures.of(generator, z).assign(row=title.replace("\n", " "), selectivity=selectivity)
        measured.append(table)
        line[0].axis("off")
        line[0].text(0, 0.62, title, fontsize=12, va="center", transform=line[0].transAxes)
        line[0].text(
            0, 0.25, f"{selectivity:.0%} of the change\nis {factor_words(FACTOR)}", fontsize=15, va="center", transform=line[0].transAxes
        )
        for ax, picture, turned in zip(line[1:], generator.display.pictures(generator.images(z)), table[FACTOR], strict=True):
            ax.imshow(generator.display.to_grey(picture), cmap="gray", vmin=0, vmax=255)
            ax.set_xticks([])
            ax.set_yticks([])
            ax.set_xlabel("not measured" if np.isnan(turned) else f"{turned:+.1f}°", fontsize=12, labelpad=2)
    save_greys(fig, OUT / "front.png", dpi=100)
    pd.concat(measured).to_csv(OUT / "front.csv", index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
