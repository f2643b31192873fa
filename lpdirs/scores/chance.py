"""What random directions reach: the band that every score of a found set is placed in, best of K against best of K."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pydantic import InstanceOf
from torch import Tensor

from lpdirs.base.checked import Count, Numbers, Seed, Whole, checked
from lpdirs.base.errors import UserError
from lpdirs.base.files import write_atomic
from lpdirs.base.progress import Progress
from lpdirs.discovery.closed_form import random
from lpdirs.discovery.directions import Directions
from lpdirs.measures.measures import Measures
from lpdirs.models.generators import Generator
from lpdirs.scores.disentanglement import one_to_one
from lpdirs.scores.response import STILL, best_directions, cross_fitted, respond

TIMES = 20  # as many random directions as the set has: a rule that none of them meets, a random set meets in one case of 20
UNUSED = ("q", "missing_first", "missing_last")  # columns of a response table that nothing asks of random directions


def against(name: str, found: pd.Series, band: pd.DataFrame, disjoint: int) -> pd.DataFrame:
    """Values (a row each) of a score against those of random sets, `band`, a row a set: the one way in which p is found.

    `_chance` is the median of random sets, `_z` how many of their SDs the value lies above their mean, `_p` how likely a random set
    reaches it, and `_corrected` how likely one lies as far out for any row of the table: the p that is small for one random set in
    twenty at most (Westfall and Young's single step, 1993). How far out is there taken from the mean and in the SD of the random sets
    and this one together, since a random set would stand among the others in the same way. With n `disjoint` sets among them neither p
    goes below 1 / (n + 1).
    """
    value, spread, n = found.reindex(band.columns), band.std().where(band.std() > STILL), disjoint  # what does not vary tells nothing
    p_of = lambda share: (1 + n * share) / (n + 1)
    z, own = (value - band.mean()) / spread, value.fillna(band.mean())
    middle = (n * band.mean() + own) / (n + 1)
    width = np.sqrt((n * ((band - middle) ** 2).mean() + (own - middle) ** 2) / (n + 1)).where(spread.notna())
    farthest, out = ((band - middle) / width).max(axis=1), (value - middle) / width
    reached = out.map(lambda one: float((farthest >= one).mean()))
    columns = {"": value, "_chance": band.median(), "_z": z, "_p": p_of((band >= value).mean()).where(value.notna())}
    columns["_corrected"] = p_of(reached).where(z.notna(), value * 0 + 1)
    return pd.DataFrame({name + key: column for key, column in columns.items()})


@dataclass(frozen=True)
class Chance:
    """`table` is Responses.table() of many random directions, `sets` (S, K) says which of them make up each random set."""

    table: pd.DataFrame
    sets: np.ndarray
    samples: int
    shifts: tuple[float, ...]
    seed: int = 0  # of the starting images
    generator: str = ""  # fingerprint of that which they were measured on

    def save(self, path: Path) -> None:
        """Write what was measured as a table, which `open_chance` reads."""
        about = {"samples": self.samples, "shifts": " ".join(f"{shift:g}" for shift in self.shifts), "seed": self.seed}
        about |= {"generator": self.generator} if self.generator else {}
        short = self.table.drop(columns=[name for name in self.table if name.endswith(("_low", "_high", "_level")) or name in UNUSED])
        write_atomic(path, short.assign(**about).to_csv(index=False, float_format="%.5g"))

    def best(self) -> dict[str, pd.DataFrame]:
        """For each score (|r|, selectivity) what each factor's best direction has in each random set, `cross_fitted`: a row a set."""
        return cross_fitted(self.table, self.sets)

    @property
    def disjoint(self) -> int:
        """How many random sets the measured directions make that have none in common."""
        return self.table["direction"].nunique() // self.sets.shape[1]

    def measure(self, generator: Generator, directions: Directions, measures: Measures, seed: int = 0) -> pd.DataFrame:
        """Responses.table() of a set, measured as the random ones were, from the same starting images; `seed` is of resamples alone."""
        self._check(len(directions), generator, measures)
        return respond(generator, directions, measures, self.shifts, self.samples, self.seed).table(seed)

    def place(
        self, generator: Generator, directions: Directions, measures: Measures, seed: int = 0, table: pd.DataFrame | None = None
    ) -> pd.DataFrame:
        """Each factor's best direction of a set against chance, a row a factor.

        `r` and `selectivity` are `cross_fitted`, of the found set and of random ones alike; with `_chance`, `_z`, `_p` and `_corrected`
        of `against`. `direction` is the best one over all starting images. `table` is that of `measure` where it is there. UserError for a
        set of more directions than the random ones have.
        """
        if table is None:
            table = self.measure(generator, directions, measures, seed)
        self._check(table["direction"].nunique(), generator, measures)
        bands = self.best()
        columns = [against(name, found.iloc[0], bands[name], self.disjoint) for name, found in cross_fitted(table).items()]
        return pd.concat(columns, axis=1).rename_axis("factor").assign(direction=best_directions(table)["direction"])

    def _check(self, k: int, generator: Generator, measures: Measures) -> None:
        other, factors = generator.info.fingerprint, set(self.table["factor"])
        if self.generator and other and self.generator != other:
            raise UserError(f"these random sets were measured on another generator (fingerprint {self.generator}, not {other})")
        if not set(measures.factors) <= factors:
            raise UserError(f"these random sets have {', '.join(sorted(factors))}, and the measures {', '.join(measures.factors)}")
        if k > self.sets.shape[1]:
            raise UserError(
                f"these are {k} directions, and the random sets have {self.sets.shape[1]}: the best of more is better by chance; "
                f"measure random_sets of {k}"
            )


@checked
def random_sets(
    generator: InstanceOf[Generator],
    measures: InstanceOf[Measures] | None = None,
    k: Count = 32,
    *,
    sets: Whole = 1000,
    times: Count = TIMES,
    shifts: Numbers = (-4, -2, 0, 2, 4),
    samples: Whole = 32,
    seed: Seed = 0,
) -> Chance:
    """Measure random directions, and make `sets` random sets of k of them, from `samples` starting images.

    Where k is at most latent_dim they are rows of random rotations, else random vectors, as `discover(generator, "random", k)` gives;
    sets mix the rows of several. `times` * k directions are measured, from which the sets are drawn; where that is sets * k, or more,
    every set has its own. No p goes below 1 / (times + 1).
    """
    if sets < 2:
        raise UserError(f"chance takes at least two random sets, not {sets!r}")
    measures, d = measures or generator.measures, generator.latent_dim
    pool = min(times, sets) * k
    turns = range(-(-pool // (d if k <= d else pool)))
    matrix = torch.cat([random(d if k <= d else pool, d, 1_000_003 * (seed + 1) + i, orthonormal=k <= d) for i in turns])[:pool]
    table = respond(generator, Directions(matrix), measures, shifts, samples, seed).table(seed, 400)
    return Chance(table, _sets(table["direction"].nunique(), k, sets, seed), samples, tuple(shifts), seed, generator.info.fingerprint)


def random_codes(sample: tuple[Tensor, pd.DataFrame], k: int, sets: int = 100, seed: int = 0) -> pd.DataFrame:
    """What random sets of k reach by the scores of `one_to_one` (MIG, DCI) on a sample, `Measures.sample`: a row a set."""
    z, factors = sample
    d, bar, rows = z.shape[1], Progress("scoring random sets"), []
    for i in range(sets):
        matrix = random(k, d, 7_000_003 * (seed + 1) + i, orthonormal=k <= d)
        rows.append(one_to_one((z @ matrix.T).numpy(), factors, seed))
        bar(i + 1, sets)
    return pd.DataFrame(rows)


def open_chance(path: Path, k: int, seed: int = 0, sets: int = 1000) -> Chance:
    """What `Chance.save` wrote, with random sets of k."""
    table = pd.read_csv(path, dtype={"generator": str})
    if not {"direction", "factor", "selectivity", "samples", "shifts", "seed"} <= set(table) or not len(table):
        raise UserError(f"{path.name} holds no random directions: run notebook 04 again")
    shifts = tuple(float(shift) for shift in str(table["shifts"][0]).split())
    made_by = str(table["generator"][0]) if "generator" in table else ""
    known = table.drop(columns=["samples", "shifts", "seed", "generator"], errors="ignore")
    sets_of = _sets(known["direction"].nunique(), k, sets, seed)
    return Chance(known, sets_of, int(table["samples"][0]), shifts, int(table["seed"][0]), made_by)


def _sets(pool: int, k: int, sets: int, seed: int) -> np.ndarray:
    if pool == sets * k:
        return np.arange(pool).reshape(sets, k)
    rng = np.random.default_rng(seed)
    return np.stack([rng.choice(pool, k, replace=False) for _ in range(sets)])
