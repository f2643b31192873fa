"""Ten seeds of search in each of three trainings of the phantom's models, into outputs/reference/methods/seeds_gan.csv and seeds_vae.csv.

python -m tests.seeds MODEL PHANTOM DATA_PHANTOM

MODEL is gan or vae, PHANTOM a folder of generators of which nothing was tuned on those numbered 1 to 3, the last the data set that they
learned. What is computed hardly depends on the seed and is searched less often. A row that is there is not made again; about half an hour.
"""

import argparse
import time
from pathlib import Path

import pandas as pd

import lpdirs as lp
from lpdirs.base.files import read_json
from lpdirs.data.store import open_dataset
from lpdirs.discovery.methods import discover
from lpdirs.measures.zposition import fit_z
from lpdirs.models.files import load_generator
from lpdirs.scores.chance import random_sets
from lpdirs.scores.naming import image_changes, name_directions
from tests.judge import SAMPLES, K
from tests.notebooks.refresh import ROOT

OUT = ROOT / "outputs" / "reference" / "methods"
TRAININGS = (1, 2, 3)
SEEDS = {"reconstructor": 10, "random": 10, "motion": 5, "jacobian": 3, "pca": 3, "oracle-alone": 3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", choices=("gan", "vae"))
    parser.add_argument("phantom", type=Path)
    parser.add_argument("data_phantom", type=Path)
    given = parser.parse_args()
    target, about = OUT / f"seeds_{given.model}.csv", read_json(given.data_phantom / "dataset.json")
    rows = pd.read_csv(target).to_dict("records") if target.exists() else []
    z = fit_z(*(open_dataset(given.data_phantom, split) for split in ("train", "test")))
    measures = lp.thorax(tuple(about["window"]), about["pixel_mm"], z)
    for training in TRAININGS:
        generator = load_generator(given.phantom / f"{given.model}{training}.safetensors")
        wanted = [(method, seed) for seed in range(10) for method, seeds in SEEDS.items() if seed < seeds]
        done = {(row["method"], row["seed"]) for row in rows if row["training"] == training}
        band = random_sets(generator, measures, K, samples=SAMPLES) if set(wanted) - done else None
        for method, seed in wanted:
            if band is None or (method, seed) in done:
                continue
            began = time.time()
            factors = measures.sample(generator, 1024, 5 + seed) if method == "oracle-alone" else None
            directions = discover(generator, method, K, seed=seed, known=factors)
            seconds = time.time() - began
            table = lp.respond(generator, directions, measures, band.shifts, SAMPLES, band.seed).table(resamples=50)
            placed = band.place(generator, directions, measures, table=table)
            names = name_directions(table, directions, image_changes(generator, directions, seed=seed), measures.units, band.rules())
            found = {"selectivity": placed["selectivity"].mean(), "r": placed["r"].mean(), "seconds": seconds}
            found |= {f"{factor}_selectivity": value for factor, value in placed["selectivity"].items()}
            found |= {f"{factor}_r": value for factor, value in placed["r"].items()}
            counts = {
                "beyond_chance": int((placed["selectivity_corrected"] <= 0.05).sum()),
                "factors_named": names.loc[names["kind"] == "named", "factor"].nunique(),
            }
            which = {"generator": given.model, "training": training, "configuration": method, "method": method, "seed": seed}
            rows.append(which | counts | {key: round(float(value), 4) for key, value in found.items()})
            pd.DataFrame(rows).to_csv(target, index=False)


if __name__ == "__main__":
    main()
