"""What steering loses on the way: factors that were to hold and can no longer be measured. `python -m experiments.lost [gan | vae]`

Each factor is steered by 1.5 SDs either way, and the same slices are shifted along the best direction of `motion` by as much (at most 6).
Of the other factors that could be measured at the start: what share can not be at the end; and how typical z is there (the share of the
prior that lies further out, median). Writes steering_lost.csv in outputs/reference/chest. Ten minutes a model on one core.
"""

import sys

import numpy as np
import pandas as pd
import torch

import lpdirs as lp
from experiments import FACTORS
from experiments.chest_figures import OUT, K
from experiments.steering import add
from lpdirs.scores.response import best_directions
from lpdirs.scores.steering import Steering, steered_ends
from tests.notebooks.refresh import ROOT

STARTS, FAR = 24, 1.5


def lost(name: str, generator: lp.Generator, steering: Steering) -> pd.DataFrame:
    """A row a factor and way."""
    z, measures, rows = generator.draw(STARTS, torch.Generator().manual_seed(1_000_003)), generator.measures, []
    before, folder = measures.of(generator, z), OUT / "directions" / f"{name}-motion{K}"
    best, directions = best_directions(pd.read_csv(folder / "responses.csv")), lp.Directions.load(folder / "directions.safetensors")
    for factor in FACTORS:
        far = min(FAR * steering.spread[steering.factors.index(factor)] / abs(best.loc[factor, "slope"]), 6)
        ends = {
            "steered": list(steered_ends(generator, z, factor, (-FAR, FAR), steering=steering)[0]),
            "motion": [directions.shift(z, int(best.loc[factor, "direction"]), side * far) for side in (-1, 1)],
        }
        for way, both in ends.items():
            held = before.drop(columns=factor).notna().to_numpy()
            gone = np.stack([measures.of(generator, end).drop(columns=factor).isna().to_numpy() & held for end in both])
            typical = np.median([generator.typicality(end) for end in both])
            rows.append({"factor": factor, "way": way, "held": 2 * held.sum(), "lost": gone.sum(), "typicality": typical})
    return pd.DataFrame(rows).assign(start=np.median(generator.typicality(z)), model=name)


def main(names: list[str]) -> None:
    for label, (generator, _) in lp.load(OUT).items():
        name = label.partition("-")[0]
        if not names or name in names:
            add("steering_lost.csv", name, lambda: lost(name, generator, Steering.load(ROOT / "build" / f"steering_{name}.safetensors")))  # noqa: B023


if __name__ == "__main__":
    main(sys.argv[1:])
