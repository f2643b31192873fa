"""Ten seeds of search in each of several trainings, scored as a sweep scores purity and names, but without its notebooks' time.

python -m experiments.seeds TARGET RUN [RUN ...] [--models gan vae] [--sets main peers lenet resnet] [--strips]

TARGET is a folder of tables, RUN a run with a GAN or a VAE whose seed is the training's. A file for each model, scores_gan.csv and
scores_vae.csv; a row that is there is not made again. First the paper's method and `motion` with ten seeds, and what they are compared
with most ("main"); the other methods are "peers", and the paper's other configurations "lenet" and "resnet". "random" are ten
disjoint sets of the random directions that chance is measured with, and "random-100" ten of a hundred, for the paper's sets of a hundred.
With --strips, only a picture of each model: one factor by every method. A quarter of an hour a training and model.
"""

import argparse
import time
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

import lpdirs as lp
from experiments import MODELS
from experiments.chest_figures import save_greys
from lpdirs.base.files import read_json
from lpdirs.data.store import open_dataset
from lpdirs.discovery.methods import discover
from lpdirs.discovery.objective import DiscoverySettings
from lpdirs.measures.measures import factor_words
from lpdirs.measures.thorax import fit_z
from lpdirs.models.files import load_generator
from lpdirs.runs.models import GENERATORS
from lpdirs.runs.search import KNOWN
from lpdirs.scores.chance import Chance, open_chance, random_sets
from lpdirs.scores.naming import Rules, image_changes, name_directions
from lpdirs.scores.response import best_directions, cross_fitted
from lpdirs.show.plots import film_strips, shift_heads, strip

K, MANY, SAMPLES, SEEDS = 32, 100, 48, 10
MAIN = {"lenet-unit-32": SEEDS, "motion": SEEDS, "jacobian": 1, "pca": 1, "oracle-alone": 1, "oracle": 1}
PEERS = dict.fromkeys(("sefa", "sefa-released", "ica", "sparse", "local-basis", "hessian", "latentclr", "disco", "coordinate"), 1)
GROUPS = {
    "main": MAIN,
    "peers": PEERS,
    "lenet": {"lenet-orthonormal-32": 3, f"lenet-unit-{MANY}": 3},
    "resnet": {"resnet18-unit-32": 1, "resnet18-orthonormal-32": 1, f"resnet18-unit-{MANY}": 1},
}


@lru_cache
def measures_of(run: Path) -> lp.Measures:
    """What the run's slices are measured with."""
    about = read_json(run / "data" / "dataset.json")
    z = fit_z(*(open_dataset(run / "data", split) for split in ("train", "test")))
    return lp.thorax(tuple(about["window"]), about["pixel_mm"], z)


def k_of(configuration: str) -> int:
    return MANY if configuration.endswith(f"-{MANY}") else K


def found(generator: lp.Generator, configuration: str, measures: lp.Measures, seed: int) -> lp.Directions:
    """The directions of a configuration of a grid."""
    if "-unit-" in configuration or "-orthonormal-" in configuration:
        reconstructor, basis, _ = configuration.split("-")
        settings = DiscoverySettings(reconstructor=reconstructor, basis=basis)
        return discover(generator, "reconstructor", k_of(configuration), seed=seed, settings=settings)
    known = measures.sample(generator, KNOWN[configuration], seed) if configuration in KNOWN else None
    return discover(generator, configuration, K, seed=seed, known=known)


def scored(generator: lp.Generator, directions: lp.Directions, measures: lp.Measures, band: Chance) -> dict[str, float]:
    """How pure and how straight the best directions are, against chance, and what is named."""
    table = band.measure(generator, directions, measures)
    placed, level = band.place(generator, directions, measures, table=table), best_directions(table)["r_level"].abs()
    rules = Rules().beyond(band)
    names = name_directions(directions, table, image_changes(generator, directions), measures.units, (table, placed), rules)
    row = {"selectivity": placed["selectivity"].mean(), "r": placed["r"].mean()}
    row["factors_named"] = names.loc[names["kind"] == "named", "factor"].nunique()
    row["beyond_chance"] = int((placed["selectivity_corrected"] <= 0.05).sum())
    for factor, values in placed.iterrows():
        kept = ("r", "selectivity", "selectivity_chance", "selectivity_z", "selectivity_p")
        row |= {f"{factor}_{name}": values[name] for name in kept}
        row |= {f"{factor}_r_level": level.get(factor), f"{factor}_direction": values["direction"]}
    return row | {f"{factor}_r2": value for factor, value in directions.info.notes.get("r2", {}).items()}


def by_chance(band: Chance) -> list[dict[str, float]]:
    """Disjoint sets of the measured random directions, as many as there are seeds."""
    k = band.sets.shape[1]
    sets = band.table["direction"].unique()[: SEEDS * k].reshape(SEEDS, k)
    best = cross_fitted(band.table, sets)
    rows = pd.concat([values.add_suffix(f"_{name}") for name, values in best.items()], axis=1).to_dict("records")
    return [{name: values.iloc[seed].mean() for name, values in best.items()} | row for seed, row in enumerate(rows)]


def strips(target: Path, run: Path, model: str, factor: str = "rotation") -> None:
    """strips_<model>.png: one factor by each method's best direction of the first seed, in the training of `run`."""
    training, generator = training_of(run), load_generator(run / GENERATORS[model])
    rows = pd.read_csv(target / f"scores_{model}.csv").query(
        f"training == @training and seed == 0 and K == {K} and configuration != 'random'"
    )
    pictures, labels, shifts = [], [], np.linspace(-4.5, 4.5, 7)
    for row in rows.sort_values(f"{factor}_selectivity", ascending=False).to_dict("records"):
        directions = lp.Directions.load(target / "directions" / f"{model}-{training}-{row['configuration']}.safetensors")
        pictures.append(strip(generator, directions, generator.typical(), int(row[f"{factor}_direction"]), shifts))
        labels.append(f"{row['title']}: {row[f'{factor}_selectivity']:.2f}")
    of = {"seeds_demo": " of real CT", "seeds_phantom": " of the synthetic thorax"}.get(target.name, "")
    title = f"{MODELS[model]}{of}: {factor_words(factor)} by each method's best direction, with its selectivity"
    path = target / f"strips_{model}.png"
    save_greys(film_strips(np.stack(pictures), shift_heads(shifts), labels, title), path)


def training_of(run: Path) -> int:
    """The seed that the run's models were trained with."""
    return int(next(iter(read_json(run / "run.json").values()))["seed"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("target", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--models", nargs="+", default=("gan", "vae"), choices=("gan", "vae"))
    parser.add_argument("--sets", nargs="+", default=("main",), choices=GROUPS)
    parser.add_argument("--strips", action="store_true")
    given = parser.parse_args()
    for name in ("directions", "bands"):
        (given.target / name).mkdir(parents=True, exist_ok=True)
    for model in given.models:
        if given.strips:
            strips(given.target, given.runs[0], model)
            continue
        path = given.target / f"scores_{model}.csv"
        rows = pd.read_csv(path).to_dict("records") if path.exists() else []
        for run in given.runs:
            training = training_of(run)
            done = {(row["configuration"], row["seed"]) for row in rows if row["training"] == training}
            asked = {name: seeds for group in given.sets for name, seeds in GROUPS[group].items()}
            wanted = [(name, seed) for name, seeds in asked.items() for seed in range(seeds) if (name, seed) not in done]
            if not wanted:
                continue
            generator, measures, bands = load_generator(run / GENERATORS[model]), measures_of(run), {}
            for k, label in ((K, "random"), (MANY, f"random-{MANY}")):
                if not any(k_of(name) == k for name, _ in wanted):
                    continue
                kept = given.target / "bands" / (f"{model}-{training}.csv" if k == K else f"{model}-{training}-{k}.csv")
                if not kept.exists():
                    random_sets(generator, measures, k, samples=SAMPLES).save(kept)
                bands[k] = open_chance(kept, k)
                which = {"generator": model, "training": training, "K": k, "title": f"random, K = {k}", "method": "random"}
                if (label, 0) not in done:
                    rows += [which | {"configuration": label, "seed": seed} | row for seed, row in enumerate(by_chance(bands[k]))]
            for name, seed in wanted:
                began = time.time()
                directions = found(generator, name, measures, seed)
                seconds = round(time.time() - began, 1)
                if seed == 0:
                    directions.save(given.target / "directions" / f"{model}-{training}-{name}.safetensors")
                which, band = {"generator": model, "training": training, "K": k_of(name)}, bands[k_of(name)]
                row = scored(generator, directions, measures, band)
                info = directions.info
                of = {"title": directions.id.search}
                of |= {key: getattr(info, key) for key in ("method", "basis", "reconstructor", "start")}
                rows.append(which | of | {"configuration": name, "seed": seed, "seconds": seconds} | row)
                pd.DataFrame(rows).to_csv(path, index=False, float_format="%.5g")
                print(*which.values(), name, seed, seconds, {k: round(float(row[k]), 2) for k in list(row)[:4]}, flush=True)


if __name__ == "__main__":
    main()
