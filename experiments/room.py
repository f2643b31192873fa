"""p with room: the shipped models' sets of directions against 100 disjoint random sets in place of 20, so that p can be 0.01.

python -m experiments.room DATA [gan | vae]

DATA is that of `experiments.chest`.

Measures 2,560 more random directions on each model, with the starting images, shifts and measures of the 640 that are there, and places
every set among all 3,200. Two hours a model on one core; what is measured is kept in outputs/reference/room, and taken up again.
"""

import gzip
import sys
from pathlib import Path

import pandas as pd
import torch

from experiments.chest import FILES, SAMPLES, K
from experiments.chest_figures import OUT
from lpdirs.base.files import read_json, write_atomic
from lpdirs.data.store import open_dataset
from lpdirs.discovery.closed_form import random
from lpdirs.discovery.directions import Directions
from lpdirs.measures.measures import Measures
from lpdirs.measures.thorax import fit_z, thorax
from lpdirs.models.files import load_generator
from lpdirs.models.generators import Generator
from lpdirs.scores.chance import Chance, _sets, open_chance
from lpdirs.scores.response import HALVES, respond

SETS = 100  # disjoint ones
KEPT = OUT.parent / "room"
AT_A_TIME = 128
COLUMNS = ["direction", "factor", "missing", *(f"{name}_{half}" for name in ("r", "effect", "selectivity") for half in HALVES)]


def matrix_of(generator: Generator) -> torch.Tensor:
    """The directions that `random_sets(generator, k=K, times=SETS)` draws; the first 640 are those of the committed table."""
    d = generator.latent_dim
    rotations = range(-(-SETS * K // d))
    return torch.cat([random(d, d, 1_000_003 + i, orthonormal=True) for i in rotations])[: SETS * K]


def measures_of(data: Path) -> Measures:
    about = read_json(data / "dataset.json")
    z = fit_z(open_dataset(data, "train"), open_dataset(data, "test"))
    return thorax(tuple(about["window"]), about["pixel_mm"], z)


def measured(name: str, generator: Generator, measures: Measures) -> Chance:
    """The committed random directions and the further ones, in one table."""
    before = open_chance(OUT / "directions" / "chance" / f"{name}-{K}.csv", K)
    matrix, tables = matrix_of(generator), [before.table]
    for first in range(before.table["direction"].nunique(), len(matrix), AT_A_TIME):
        path = KEPT / f"{name}-{first:04}.csv.gz"
        if not path.exists():
            some = Directions(matrix[first : first + AT_A_TIME])
            table = respond(generator, some, measures, before.shifts, SAMPLES, before.seed).table(0, 2)
            table["direction"] += first
            KEPT.mkdir(parents=True, exist_ok=True)
            write_atomic(path, gzip.compress(table[COLUMNS].to_csv(index=False, float_format="%.5g").encode(), mtime=0))
            print(path, flush=True)
        tables.append(pd.read_csv(path))
    table = pd.concat([part[COLUMNS] for part in tables], ignore_index=True)
    return Chance(table, _sets(len(matrix), K, 1000, 0), SAMPLES, before.shifts, before.seed)


def placed(name: str, measures: Measures) -> pd.DataFrame:
    """Each set's best direction of each factor among the random sets: a row a set and factor."""
    generator = load_generator(OUT / FILES[name])
    chance, rows = measured(name, generator, measures), []
    for folder in sorted((OUT / "directions").glob(f"{name}-*{K}*")):
        table = pd.read_csv(folder / "responses.csv")
        directions = Directions.load(folder / "directions.safetensors")
        found = chance.place(generator, directions, measures, table=table)
        rows.append(found.reset_index().assign(set=folder.name.removeprefix(f"{name}-"), model=name, sets=chance.disjoint))
    return pd.concat(rows)


def main(data: Path, *names: str) -> None:
    torch.set_num_threads(1)
    measures = measures_of(data)
    for name in names or FILES:
        placed(name, measures).to_csv(KEPT / f"{name}.csv", index=False, float_format="%.5g")
    tables = [KEPT / f"{name}.csv" for name in FILES]
    if all(path.exists() for path in tables):
        pd.concat(map(pd.read_csv, tables)).to_csv(OUT / "room.csv", index=False, float_format="%.5g")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
