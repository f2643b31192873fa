"""Names for directions: what each does, in words, the best for each factor, and which earns a name, beyond chance and by stated rules."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import InstanceOf

from lpdirs.base.checked import Seed, checked
from lpdirs.base.errors import UserError
from lpdirs.discovery.directions import Best, Directions
from lpdirs.measures.measures import Measures, factor_words
from lpdirs.models.generators import Generator
from lpdirs.scores.chance import Chance, random_sets
from lpdirs.scores.response import MISSING, PIXEL, Responses, best_directions

STEADY = 0.05  # of q, at most: else a direction is not said to move its main factor
HALF = 0.5  # selectivity that a name takes, however little random directions reach: at least half of what the direction does
CERTAIN = 0.05  # of the corrected p of selectivity, at most, of a factor whose direction earns a name


@dataclass(frozen=True)
class Rules:
    """When a direction is named after a factor; all must hold, and at least half of the factors, two or more, must have been measured.

    Beside these, chance decides (`lp.random_sets`): the direction is more selective than every random one that meets the other rules,
    and its factor is one for which the set is beyond chance, corrected for all factors.
    """

    effect: float = 0.10  # SDs per unit of shift, at least
    r: float = 0.80  # |r|, at least
    selectivity: float = HALF  # at least
    sign_consistency: float = 0.95  # share of starting images that move the same way, at least
    movement: float = 0.6  # share of all that moves, in squares of SDs, also where it bends, or goes up here and down there, at least
    missing: float = MISSING  # share of walks on which the factor could not be measured, at most
    dead: float = 0.05  # a direction whose ends differ by less than this share of what two random slices differ by does nothing
    same: float = 0.90  # |cosine| of two directions, or of the changes that they make, from which they are duplicates

    def beyond(self, chance: Chance) -> "Rules":
        """The same with the least selectivity, HALF or more, that no random direction reaches together with the other rules.

        Directions of a new random set are exchangeable with the N measured ones, so that the chance that any of its K earns a name is at
        most K / (N + 1): under 5 percent with N = 20 K.
        """
        main = main_factors(chance.table)
        met = main["selectivity"][earned(main, replace(self, selectivity=0.0))]
        return replace(self, selectivity=max(float(np.nextafter(met.max(), 1)) if len(met) else 0.0, self.selectivity))


@torch.no_grad()
def image_changes(
    generator: Generator, directions: Directions, shift: float = 2.0, samples: int = 32, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """How much each direction changes a slice, (K,), and how alike the changes of any two are, (K, K).

    The change is G(z + shift * a) - G(z - shift * a), its size a root mean square relative to that of two random slices. Likeness
    is the cosine of two directions' changes from the same z, averaged over `samples` of them; -1 is the reverse.
    """
    z = generator.draw(samples, seed)
    draw = lambda z: generator.images(z).flatten(1)
    plain = draw(z)
    random = (plain - plain.roll(1, 0)).square().mean().sqrt()
    changes = torch.stack([draw(directions.shift(z, k, shift)) - draw(directions.shift(z, k, -shift)) for k in range(len(directions))])
    size = changes.square().mean((1, 2)).sqrt() / random.clamp(min=1e-12)
    unit = changes / changes.norm(dim=2, keepdim=True).clamp(min=1e-12)
    alike = torch.einsum("kns,lns->kl", unit, unit) / samples
    return size.numpy(), alike.numpy()


def main_factors(table: pd.DataFrame) -> pd.DataFrame:
    """The row of each direction's main factor, the one of largest effect, of a response table; `compared` is the share of all factors
    that could be measured along it (of one factor alone none), and `movement` its share of all squares of what moves."""
    largest = table["effect"].abs().dropna().sort_values(ascending=False, kind="stable").index
    known = table.groupby("direction")["effect"].count() / table["factor"].nunique()
    main = table.loc[largest].drop_duplicates("direction").set_index("direction").reindex(np.unique(table["direction"]))
    main["compared"] = known.where(known * table["factor"].nunique() >= 2, 0.0)
    main["movement"] = main["moved"] ** 2 / (table["moved"] ** 2).groupby(table["direction"]).sum()
    return main


def earned(main: pd.DataFrame, rules: Rules) -> pd.Series:
    """Whether each direction of `main_factors` earns the name of its factor by the rules."""
    return (
        (main["effect"].abs() >= rules.effect)
        & (main["r"].abs() >= rules.r)
        & (main["selectivity"] >= rules.selectivity)
        & (main["sign_consistency"] >= rules.sign_consistency)
        & (main["missing"] <= rules.missing)
        & (main["compared"] >= 0.5)
        & (main["movement"] >= rules.movement)
    )


def name_directions(
    directions: Directions,
    table: pd.DataFrame,
    changes: tuple[np.ndarray, np.ndarray],
    units: Mapping[str, str],
    judged: tuple[pd.DataFrame, pd.DataFrame],
    rules: Rules,
    least: pd.Series | None = None,
) -> pd.DataFrame:
    """A row a direction: its main factor with slope and selectivity, `name` ("" if none is earned), `kind`, `same_as`, and `words`.

    `table` is Responses.table(), `changes` come from image_changes, `units` are the measures'. `kind` is named, mixed (it changes
    images, but no factor clearly) or dead. `same_as` is an earlier direction that points the same way or makes the same change, else -1.
    Directions that earn the same factor are told apart by a number, the most selective one first. Whether a name is earned is read from
    `judged`, the same measured as random directions were (`Chance.measure`) and its factors placed among these (`Chance.place`), by
    `rules` (`Rules.beyond`); `least` is by how much of each factor, in its unit, a unit of shift must change it at least.
    """
    change, alike = changes
    main = main_factors(table).reindex(range(len(directions)))
    strict = main_factors(judged[0]).reindex(range(len(directions)))
    certain = judged[1]["selectivity_corrected"] <= CERTAIN
    beyond = strict["factor"].isin(certain.index[certain])
    named = earned(strict, rules) & (strict["factor"] == main["factor"]) & beyond
    if least is not None:
        named &= strict["slope"].abs() >= strict["factor"].map(least).astype(float)
    cosines = _likeness(directions, alike)
    earlier = (cosines >= rules.same) & (np.arange(len(directions))[None] < np.arange(len(directions))[:, None])
    shown = ["factor", "slope", "r", "effect", "selectivity", "selectivity_low", "selectivity_high", "sign_consistency", "q"]
    rows = main[shown].copy()
    rows["change"] = change
    rows["kind"] = np.where(change < rules.dead, "dead", np.where(named, "named", "mixed"))
    rows["same_as"] = np.where(earlier.any(1), earlier.argmax(1), -1)
    rows["least"] = table.groupby("direction")["missing"].min().reindex(rows.index)
    rows["unmeasured"] = rows["least"] > rules.missing
    rows["alone"] = table["factor"].nunique() == 1
    rows["appears"] = _appearing(table).reindex(rows.index)
    rows["bends"] = main["movement"] < rules.movement * main["selectivity"]
    rows["words"] = [_words(row, units) for row in rows.itertuples()]
    rows["name"] = ""
    for factor, group in rows[rows["kind"] == "named"].sort_values("selectivity", ascending=False).groupby("factor"):
        others = (name for number in count(2) if (name := f"{factor} {number}") not in units)
        for k, name in zip(group.index, chain([factor], others), strict=False):
            rows.loc[k, "name"] = name
    return rows


def best_of(table: pd.DataFrame, placed: pd.DataFrame) -> dict[str, Best]:
    """The best direction for each factor of a response table, with what it reaches and where `placed` (Chance.place) puts that."""
    number = lambda value: float(value) if np.isfinite(value) else None
    found = {}
    for factor, row in best_directions(table).dropna(subset=["direction"]).iterrows():
        among = placed.loc[factor]
        known = {"slope": row["slope"], "r": among["r"], "selectivity": among["selectivity"]}
        known |= {"chance": among["selectivity_chance"], "p": among["selectivity_corrected"]}
        found[str(factor)] = Best(direction=int(row["direction"]), **{name: number(value) for name, value in known.items()})
    return found


def _likeness(directions: Directions, alike: np.ndarray) -> np.ndarray:
    """|cosine| of any two directions, or of the changes that they make where that is more, (K, K)."""
    return np.maximum(np.abs((directions.matrix @ directions.matrix.T).numpy()), np.abs(alike))


def distinct(generator: Generator, directions: Directions, rules: Rules | None = None, seed: int = 0) -> Directions:
    """The directions that do something, each once, in their order: without dead ones and duplicates of earlier ones (`rules.dead`,
    `rules.same`). No labels are needed. The info's `notes` say which were kept; names stay with their directions."""
    directions.check(generator)
    rules, (change, alike) = rules or Rules(), image_changes(generator, directions, seed=seed)
    cosines = _likeness(directions, alike)
    kept: list[int] = []
    for k in range(len(directions)):
        if change[k] >= rules.dead and (cosines[k, kept] < rules.same).all():
            kept.append(k)
    if not kept:
        raise UserError("every direction is dead: none changes images by more than a few hundredths of what two random ones differ by")
    info, place = directions.info, {k: i for i, k in enumerate(kept)}
    own = lambda said: {place[k]: value for k, value in said.items() if k in place}
    moved: dict[str, Any] = {name: own(getattr(info, name)) for name in ("names", "words", "curves")}
    moved["best"] = {f: best.but(direction=place[best.direction]) for f, best in info.best.items() if best.direction in place}
    bends = {place[k]: bend for k, bend in directions.bends.items() if k in place}
    return Directions(directions.matrix[kept], info.but(**moved, notes=info.notes | {"kept": kept}), bends)


def _appearing(table: pd.DataFrame) -> pd.Series:
    """For each direction along which a factor appears or disappears, words that say so; a measure has no value where its object is not."""
    change = (table["missing_first"] - table["missing_last"]).abs()
    found = table.assign(change=change)[change >= 0.5].sort_values("change", ascending=False).drop_duplicates("direction")
    said = [
        f"; {factor_words(row.factor)} can be measured on {1 - row.missing_first:.0%} of images at the lowest shift and on "
        f"{1 - row.missing_last:.0%} at the highest"
        for row in found.itertuples()
    ]
    return pd.Series(said, found["direction"].to_numpy(), dtype=object)


def _words(row: Any, units: Mapping[str, str]) -> str:
    return _does(row, units) + (row.appears if isinstance(row.appears, str) else "")


def _does(row: Any, units: Mapping[str, str]) -> str:
    if row.kind == "dead":
        return "dead: it changes almost nothing"
    if row.unmeasured:
        return f"not measured: no factor could be measured on more than {1 - row.least:.0%} of images along it"
    if row.kind == "mixed" and (not isinstance(row.factor, str) or row.q > STEADY):
        return "mixed: it moves no factor steadily"
    unit = f" {units[row.factor]}" if units.get(row.factor) else ""
    if row.alone:
        moves = f"{factor_words(row.factor)}, {row.slope:+.3g}{unit} per unit of shift, |r| {abs(row.r):.2f}"
        return f"{moves}; no name, since with one factor nobody knows what else it moves: measure two or more"
    if row.kind == "mixed" and row.bends:
        return f"mixed: {factor_words(row.factor)} steadily, and more that bends or differs between images"
    if row.kind == "mixed":
        most = "mostly" if row.selectivity >= HALF else "first of all"
        return f"mixed: {most} {factor_words(row.factor)}, {row.selectivity:.0%} of what it does"
    share = f"{row.selectivity:.0%} [{row.selectivity_low:.0%}, {row.selectivity_high:.0%}] of what it does"
    return f"{factor_words(row.factor)}, {row.slope:+.3g}{unit} per unit of shift, {share}"


@dataclass(frozen=True)
class Named:
    """`directions` with all that was found in their info; `rows` a row a direction (`name_directions`), `placed` a row a factor
    (`Chance.place`), `table` the responses', and `rules` those that held."""

    directions: Directions
    rows: pd.DataFrame
    placed: pd.DataFrame
    table: pd.DataFrame
    rules: Rules


def judge(
    generator: Generator, directions: Directions, responses: Responses, measures: Measures, chance: Chance, rules: Rules, seed: int = 0
) -> Named:
    """All that is said of a set: what each direction does, the best for each factor, names. Computed here and nowhere else."""
    table, strict = responses.table(seed), chance.measure(generator, directions, measures)
    placed, rules = chance.place(generator, directions, measures, table=strict), rules.beyond(chance)
    changes = image_changes(generator, directions, seed=seed)
    least = PIXEL * measures.of_a_pixel(generator.images(generator.draw(8, 0)))
    rows = name_directions(directions, table, changes, measures.units, (strict, placed), rules, least)
    best = best_of(table, placed)
    placed = placed.assign(direction=pd.Series({factor: one.direction for factor, one in best.items()}, dtype=float))
    order = np.argsort(responses.shifts)
    paths = {k: responses.mean_path(k, factor)[order] for k, factor in rows["factor"].items() if isinstance(factor, str)}
    known = {
        "names": {int(k): name for k, name in rows["name"].items() if name},
        "words": {int(k): text for k, text in rows["words"].items()},
        "curves": {int(k): [round(float(v), 3) for v in path] for k, path in paths.items() if np.isfinite(path).all()},
        "best": best,
    }
    return Named(directions.with_info(**known), rows, placed, table, rules)


@checked
def name(
    generator: InstanceOf[Generator],
    directions: InstanceOf[Directions],
    responses: InstanceOf[Responses],
    measures: InstanceOf[Measures] | None = None,
    rules: InstanceOf[Rules] | None = None,
    seed: Seed = 0,
    chance: InstanceOf[Chance] | None = None,
) -> Directions:
    """The same directions with names of those that earn one by the `rules` and beyond chance, and for all in words what they do, with
    sizes and units, and which is best for each factor.

    Twenty times as many random directions are measured on the generator, from at most 32 images, unless `chance` holds them
    (`lp.random_sets`): a random set then earns a name in at most one case of twenty. It takes two to three times as long as responses
    from 256 images. UserError for responses of other directions, of another generator, or to other measures.
    """
    directions.check(generator)
    responses.check(directions, generator)
    if measures is not None and set(measures.factors) != set(responses.spread.index):
        factors = ", ".join(responses.spread.index)
        raise UserError(f"the responses are of {factors}, and the measures of {', '.join(measures.factors)}: give those they came from")
    own = measures or responses.measures or generator.measures
    if chance is None:
        shifts = tuple(float(shift) for shift in responses.shifts)
        chance = random_sets(generator, own, len(directions), shifts=shifts, samples=min(32, responses.values.shape[2]))
    return judge(generator, directions, responses, own, chance, rules or Rules(), seed).directions
