"""Steering without any anatomy: by the moments of the picture, which need no labels and no chest. `python -m experiments.labelfree [gan]`

Place, size, shape, tilt and brightness of whatever is in the picture (`lpdirs.measures.measures.moments`) are steered one by one while the
others hold; what that does to the thorax's factors is then measured, and each factor's best path is chosen on one half of the slices and
judged on the other, as straight directions are, beside random sets of as many.
Writes steering_labelfree.csv in outputs/reference/chest, a row a model and factor. An hour a model on one core.
"""

import sys

import numpy as np
import pandas as pd
import torch

import lpdirs as lp
from experiments.chest_figures import OUT
from experiments.steering import AMOUNTS
from lpdirs.measures.measures import moments
from lpdirs.scores.chance import against
from lpdirs.scores.response import Responses, cross_fitted, spread_of
from lpdirs.scores.steering import fit_steering, steered_ends

STARTS, SAMPLES = 32, 4000


def main(names: list[str]) -> None:
    done, path = set(), OUT / "steering_labelfree.csv"
    for label, (generator, _) in lp.load(OUT).items():
        name = label.partition("-")[0]
        if name in done or (names and name not in names):
            continue
        done.add(name)
        blind, measures = generator.but(measures=moments()), generator.measures
        steering = fit_steering(blind, samples=SAMPLES)
        z = generator.draw(STARTS, torch.Generator().manual_seed(1_000_003))
        factors = steering.can_move
        values = np.empty((len(factors), len(AMOUNTS), STARTS, len(measures.factors)))
        for k, factor in enumerate(factors):
            ends, _ = steered_ends(blind, z, factor, AMOUNTS, steering=steering)
            values[k] = np.stack([measures.of(generator, end).to_numpy() for end in ends])
        spread, _ = spread_of(generator, measures, measures.of(generator, generator.draw(512, 0)))
        table = Responses(values, np.asarray(AMOUNTS), spread, measures.levels, None, measures.units, measures).table(0, 100)
        chance = lp.random_sets(generator, measures, len(factors), samples=STARTS)
        found, bands = cross_fitted(table), chance.best()
        placed = pd.concat([against(score, one.iloc[0], bands[score], chance.disjoint) for score, one in found.items()], axis=1)
        best = table.loc[table.assign(m=table["r"].abs() * table["selectivity"]).groupby("factor")["m"].idxmax().dropna()]
        which = best.set_index("factor")["direction"].map(dict(enumerate(factors)))
        rows = pd.DataFrame([{"model": name, "factor": f, "by": which.get(f)} | row.to_dict() for f, row in placed.iterrows()])
        before = [pd.read_csv(path).query("model != @name")] if path.exists() else []
        pd.concat([*before, rows]).to_csv(path, index=False, float_format="%.4g")
        print(rows.round(2).to_string(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
