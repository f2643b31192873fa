"""All methods on many generators, into outputs/reference/methods/judged.csv: each factor's best direction, cross-fitted, and the time.

python -m tests.judge CHEST PHANTOM DATA_CHEST DATA_PHANTOM [--methods motion pca ...]

The first two are folders of generators (gan0.safetensors, vae1.safetensors, ...), the others the data sets that they learned. A row that
is there is not made again.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from torch import nn

import lpdirs as lp
from lpdirs.base.files import read_json
from lpdirs.data.store import open_dataset
from lpdirs.discovery.methods import discover
from lpdirs.measures.zposition import fit_z
from lpdirs.models.files import load_generator
from lpdirs.scores.chance import random_sets
from lpdirs.scores.naming import image_changes, name_directions
from lpdirs.scores.response import best_directions, cross_fitted
from tests.notebooks.refresh import ROOT

OUT = ROOT / "outputs" / "reference" / "methods" / "judged.csv"
METHODS = (
    "motion",
    "jacobian",
    "sparse",
    "local-basis",
    "pca",
    "ica",
    "sefa",
    "sefa-released",
    "random",
    "oracle",
    "oracle-alone",
    "reconstructor",
)
K, SAMPLES = 32, 48


def named(kind: str, path: Path, generator: nn.Module, measures: lp.Measures, methods: Sequence[str]) -> None:
    """Which factors earn a name by the calibrated rules, for each method: rows of named.csv."""
    target = OUT.with_name("named.csv")
    rows = pd.read_csv(target).to_dict("records") if target.exists() else []
    which = {"data": kind, "model": path.stem[:3], "training": int(path.stem[3:])}
    if any(all(row[key] == value for key, value in which.items()) for row in rows):
        return
    band = random_sets(generator, measures, K, samples=SAMPLES)
    rules = band.rules()
    for method in methods:
        factors = measures.sample(generator, 1024, 5) if method.startswith("oracle") else None
        directions = discover(generator, method, K, known=factors)
        answers = lp.respond(generator, directions, measures, band.shifts, band.samples)
        table, placed = answers.table(), band.place(generator, directions, measures, table=answers.table())
        names = name_directions(table, directions, image_changes(generator, directions), measures.units, rules)
        factors_named = names.loc[names["kind"] == "named", "factor"].nunique()
        beyond = {name: int((placed[f"{name}_corrected"] <= 0.05).sum()) for name in ("r", "selectivity")}
        least = {
            "selectivity_needed": round(rules.selectivity, 3),
            "selectivity_chance": round(band.best()["selectivity"].mean(1).median(), 3),
        }
        rows.append(which | {"method": method, "factors_named": factors_named} | {f"beyond_{k}": v for k, v in beyond.items()} | least)
        print(*which.values(), method, factors_named, beyond, least, flush=True)
    pd.DataFrame(rows).to_csv(target, index=False)


def linear(kind: str, path: Path, generator: nn.Module, measures: lp.Measures) -> list[dict]:
    """How well the oracle predicts each factor from z, on samples that it has not seen: rows of oracle.csv."""
    factors = measures.sample(generator, 4096, 5)
    of = {"data": kind, "model": path.stem[:3], "training": int(path.stem[3:]), "samples": int(factors[1].notna().all(axis=1).sum())}
    r2 = discover(generator, "oracle", K, known=factors).info.notes["r2"]
    return [of | {"factor": factor, "r2": value} for factor, value in r2.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("chest", "phantom", "data_chest", "data_phantom"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--names", action="store_true", help="of the phantom's: which factors earn names, against random sets")
    parser.add_argument("--oracle", action="store_true", help="of all: how far the factors are linear in z")
    given, linearity = parser.parse_args(), []
    rows = pd.read_csv(OUT).to_dict("records") if OUT.exists() else []
    for kind, models, data in (("phantom", given.phantom, given.data_phantom), ("chest", given.chest, given.data_chest)):
        about = read_json(data / "dataset.json")
        measures = lp.thorax(tuple(about["window"]), about["pixel_mm"], fit_z(*(open_dataset(data, split) for split in ("train", "test"))))
        if kind == "chest" and given.names:
            continue
        for path in sorted(models.glob("*.safetensors")):
            generator = load_generator(path)
            if given.oracle:
                linearity += linear(kind, path, generator, measures)
                pd.DataFrame(linearity).to_csv(OUT.with_name("oracle.csv"), index=False)
                continue
            if kind == "phantom" and given.names:
                named(kind, path, generator, measures, ("motion", "jacobian", "pca", "oracle", "oracle-alone", "reconstructor"))
                continue
            for method in given.methods:
                known = {"data": kind, "model": path.stem[:3], "training": int(path.stem[3:]), "method": method}
                if any(all(row[key] == value for key, value in known.items()) for row in rows):
                    continue
                if method == "reconstructor" and kind == "chest":
                    continue  # hours on a CPU: outputs/reference/chest has those that were found on a GPU
                factors = measures.sample(generator, 1024, 5) if method.startswith("oracle") else None
                began = time.time()
                directions = discover(generator, method, K, known=factors)
                seconds = time.time() - began
                table = lp.respond(generator, directions, measures, samples=SAMPLES).table(resamples=50)
                best, fitted = best_directions(table), cross_fitted(table)
                for factor, row in best.iterrows():
                    found = {name: values[factor].iloc[0] for name, values in fitted.items()} | {"slope": row["slope"]}
                    rows.append(
                        known | {"factor": factor, "seconds": round(seconds, 1)} | {k: round(float(v), 4) for k, v in found.items()}
                    )
                OUT.parent.mkdir(parents=True, exist_ok=True)
                pd.DataFrame(rows).to_csv(OUT, index=False)
                print(*known.values(), f"{seconds:.0f} s, mean selectivity {fitted['selectivity'].mean(axis=1)[0]:.2f}", flush=True)


if __name__ == "__main__":
    main()
