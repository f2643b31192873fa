"""What random directions reach: the band that every score of a found set is placed in, best of K against best of K."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lpdirs.base.errors import UserError
from lpdirs.base.files import write_atomic
from lpdirs.base.progress import Progress
from lpdirs.discovery.closed_form import random
from lpdirs.discovery.directions import Directions
from lpdirs.measures.measures import Measures
from lpdirs.measures.moments import measures_for
from lpdirs.models.generators import info_of, latent_dim_of
from lpdirs.scores.disentanglement import one_to_one
from lpdirs.scores.naming import Rules, earned, image_changes, main_factors, name_directions, with_names
from lpdirs.scores.response import STILL, Responses, best_directions, cross_fitted, respond

TIMES = (
    20  # as many random directions are measured as the set has: then a rule that none of them meets, a random set meets in 1 of 20 cases
)

UNUSED = ("r_pooled", "rho", "q", "missing_first", "missing_last")  # columns of a response table that nothing asks of random directions
LEAST = 0.5  # selectivity that a name takes, however little random directions reach: at least half of what the direction does


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
        write_atomic(path, lambda partial: short.assign(**about).to_csv(partial, index=False, float_format="%.5g"))

    def best(self) -> dict[str, pd.DataFrame]:
        """For each score (|r|, selectivity) what each factor's best direction has in each random set, `cross_fitted`: a row a set."""
        return cross_fitted(self.table, self.sets)

    def names(self, rules: Rules) -> np.ndarray:
        """How many directions of each random set earn a name by the rules, (S,)."""
        named = earned(main_factors(self.table), rules)
        return np.array([int(named.loc[rows].sum()) for rows in self.sets])

    def rules(self, rules: Rules | None = None) -> Rules:
        """The rules with the least selectivity, LEAST or more, that no random direction here reaches together with their other conditions.

        Directions of a new random set are exchangeable with the N measured ones, so that the chance that any of its K earns a name is at
        most K / (N + 1): under 5 percent with N = 20 K.
        """
        rules = rules or Rules()
        main = main_factors(self.table)
        met = main["selectivity"][earned(main, replace(rules, selectivity=0.0))]
        return replace(rules, selectivity=max(float(np.nextafter(met.max(), 1)) if len(met) else 0.0, LEAST))

    def measure(self, generator: nn.Module, directions: Directions, measures: Measures, seed: int = 0) -> pd.DataFrame:
        """Responses.table() of a set, measured as the random ones were, from the same starting images; `seed` is of resamples alone."""
        self._check(len(directions), generator, measures)
        return respond(generator, directions, measures, self.shifts, self.samples, self.seed).table(seed)

    def place(
        self, generator: nn.Module, directions: Directions, measures: Measures, seed: int = 0, table: pd.DataFrame | None = None
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
        columns = [self.against(name, found.iloc[0], bands[name]) for name, found in cross_fitted(table).items()]
        return pd.concat(columns, axis=1).rename_axis("factor").assign(direction=best_directions(table)["direction"])

    def against(self, name: str, found: pd.Series, band: pd.DataFrame | None = None) -> pd.DataFrame:
        """What a set reaches for each factor by a score ("r" or "selectivity", `cross_fitted`), against the random sets: a row a factor.

        `_chance` is the median of random sets, `_z` how many of their SDs the value lies above their mean, `_p` how likely a random set
        reaches it, and `_corrected` how likely one lies as far out for any factor of the table: the p that is small for one random set in
        twenty at most (Westfall and Young's single step, 1993). How far out is there taken from the mean and in the SD of the random sets
        and this one together, since a random set would stand among the others in the same way. With n disjoint sets of the measured
        directions neither p goes below 1 / (n + 1), 0.048. `band` is that score in `best()`, where it is there.
        """
        band, n = self.best()[name] if band is None else band, self._disjoint()
        value, spread = found.reindex(band.columns), band.std().where(band.std() > STILL)  # what does not vary tells nothing
        z, own = (value - band.mean()) / spread, value.fillna(band.mean())
        middle = (n * band.mean() + own) / (n + 1)
        width = np.sqrt((n * ((band - middle) ** 2).mean() + (own - middle) ** 2) / (n + 1)).where(spread.notna())
        farthest, out = ((band - middle) / width).max(axis=1), (value - middle) / width
        reached = out.map(lambda one: float((farthest >= one).mean()))
        columns = {"": value, "_chance": band.median(), "_z": z, "_p": self._p((band >= value).mean()).where(value.notna())}
        columns["_corrected"] = self._p(reached).where(z.notna(), value * 0 + 1)
        return pd.DataFrame({name + key: column for key, column in columns.items()})

    def _check(self, k: int, generator: nn.Module, measures: Measures) -> None:
        other, factors = info_of(generator).fingerprint, set(self.table["factor"])
        if self.generator and other and self.generator != other:
            raise UserError(f"these random sets were measured on another generator (fingerprint {self.generator}, not {other})")
        if not set(measures.factors) <= factors:
            raise UserError(f"these random sets have {', '.join(sorted(factors))}, and the measures {', '.join(measures.factors)}")
        if k > self.sets.shape[1]:
            raise UserError(
                f"these are {k} directions, and the random sets have {self.sets.shape[1]}: the best of more is better by chance; "
                f"measure random_sets of {k}"
            )

    def _disjoint(self) -> int:
        """How many random sets the measured directions make that have none in common."""
        return self.table["direction"].nunique() // self.sets.shape[1]

    def _p(self, share: pd.Series) -> pd.Series:
        """How likely a set is among those that reach a value, which `share` of the random sets do: of n disjoint ones and itself."""
        n = self._disjoint()
        return (1 + n * share) / (n + 1)


def random_sets(
    generator: nn.Module,
    measures: Measures,
    k: int,
    *,
    sets: int = 1000,
    shifts: tuple[float, ...] = (-4, -2, 0, 2, 4),
    samples: int = 32,
    seed: int = 0,
) -> Chance:
    """Measure random directions, and make `sets` random sets of k of them.

    Where k is at most latent_dim they are rows of random rotations, else random vectors, as `discover(generator, "random", k)` gives;
    sets mix the rows of several. 20 k directions are measured, from which the sets are drawn; where that is sets * k, or more, every set
    has its own.
    """
    if not isinstance(k, int | np.integer) or k < 1:
        raise UserError(f"random sets must be of a whole number of directions, at least 1, not {k!r}")
    if not isinstance(sets, int | np.integer) or sets < 2:
        raise UserError(f"chance takes at least two random sets, not {sets!r}")
    d = latent_dim_of(generator)
    pool = min(TIMES, sets) * k
    turns = range(-(-pool // (d if k <= d else pool)))
    matrix = torch.cat([random(d if k <= d else pool, d, 1_000_003 * (seed + 1) + i, orthonormal=k <= d) for i in turns])[:pool]
    table = respond(generator, Directions(matrix), measures, shifts, samples, seed).table(seed, 400)
    which = _sets(len(table["direction"].unique()), k, sets, seed)
    return Chance(table, which, samples, tuple(shifts), seed, info_of(generator).fingerprint)


def random_codes(sample: tuple[Tensor, pd.DataFrame], k: int, sets: int = 100, seed: int = 0) -> pd.DataFrame:
    """What random sets of k reach by the scores of `one_to_one` (MIG, SAP, DCI) on a sample, `Measures.sample`: a row a set."""
    z, factors = sample
    d, bar, rows = z.shape[1], Progress("scoring random sets"), []
    for i in range(sets):
        matrix = random(k, d, 7_000_003 * (seed + 1) + i, orthonormal=k <= d)
        rows.append(one_to_one((z @ matrix.T).numpy(), factors, seed))
        bar(i + 1, sets)
    return pd.DataFrame(rows)


def against(values: dict[str, float], band: pd.DataFrame) -> dict[str, float]:
    """Scores in the band of random sets: for each its `_chance` (median of random sets), `_z` (in their SDs from their mean) and `_p`."""
    row: dict[str, float] = {}
    for name in band.columns.intersection(list(values)):
        random_ones = band[name].to_numpy()
        row[f"{name}_chance"] = float(np.median(random_ones))
        row[f"{name}_z"] = float((values[name] - random_ones.mean()) / random_ones.std(ddof=1))
        row[f"{name}_p"] = float((np.sum(random_ones >= values[name]) + 1) / (len(random_ones) + 1))
    return row


def open_chance(path: Path, k: int, seed: int = 0, sets: int = 1000) -> Chance:
    """What `Chance.save` wrote, with random sets of k."""
    table = pd.read_csv(path, dtype={"generator": str})
    if not {"direction", "factor", "selectivity", "samples", "shifts"} <= set(table):
        raise UserError(f"{path.name} holds no random directions: run notebook 04 again")
    shifts = tuple(float(shift) for shift in str(table["shifts"][0]).split())
    started = int(table["seed"][0]) if "seed" in table else 0  # of before it was written
    made_by = str(table["generator"][0]) if "generator" in table else ""
    known = table.drop(columns=["samples", "shifts", "seed", "generator"], errors="ignore")
    return Chance(known, _sets(known["direction"].nunique(), k, sets, seed), int(table["samples"][0]), shifts, started, made_by)


def _sets(pool: int, k: int, sets: int, seed: int) -> np.ndarray:
    if pool == sets * k:
        return np.arange(pool).reshape(sets, k)
    rng = np.random.default_rng(seed)
    return np.stack([rng.choice(pool, k, replace=False) for _ in range(sets)])


def name(
    generator: nn.Module,
    directions: Directions,
    responses: Responses,
    measures: Measures | None = None,
    rules: Rules | None = None,
    seed: int = 0,
) -> Directions:
    """The same directions with names of those that earn one by the `rules`, and for all in words what they do, with sizes and units.

    Where no rules are given, twenty times as many random directions are measured on the generator, from at most 32 images, and a name
    takes what none of them meets: a random set then earns one in at most one case of twenty. It takes two to three times as long as
    responses from 256 images, and more beside those from fewer; `rules=lp.Rules()` takes fixed ones, which with few factors random
    directions meet too. UserError for responses of other directions, of another generator, or to other measures.
    """
    if not isinstance(responses, Responses) or not isinstance(rules, Rules | None):
        given = f"{type(responses).__name__} and {type(rules).__name__}"
        raise UserError(f"what lp.respond gives is wanted, and rules as lp.Rules(...) or none, not {given}")
    directions.check(generator)
    responses.check(directions, generator)
    if measures is not None and set(measures.factors) != set(responses.spread.index):
        factors = ", ".join(responses.spread.index)
        raise UserError(f"the responses are of {factors}, and the measures of {', '.join(measures.factors)}: give those they came from")
    own, table, judged = measures or responses.measures or measures_for(generator), responses.table(seed), None
    if rules is None:
        shifts = tuple(float(shift) for shift in responses.shifts)
        band = random_sets(generator, own, len(directions), shifts=shifts, samples=min(32, responses.values.shape[2]))
        rules, judged = band.rules(), band.measure(generator, directions, own)
    named = name_directions(table, directions, image_changes(generator, directions, seed=seed), own.units, rules, judged)
    return with_names(directions, named, responses)
