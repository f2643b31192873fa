"""Names for directions, given by stated rules from what was measured; what does nothing, or the same as another, is said too."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from lpdirs.base.errors import UserError
from lpdirs.base.words import factor_words
from lpdirs.discovery.directions import Directions
from lpdirs.models.generators import draw_z, generate
from lpdirs.scores.response import Responses, best_directions

STEADY = 0.05  # of q, at most: else a direction is not said to move its main factor


@dataclass(frozen=True)
class Rules:
    """When a direction is named after a factor; all must hold, and at least half of the factors, two or more, must have been measured.

    Selectivity is the one that chance meets, more on some generators than on others, and the more the fewer factors are measured:
    `random_sets(...).rules()` has what it must be on one. The default is one that random sets met on none of the four generators of the
    reference runs, with their seven factors.
    """

    effect: float = 0.10  # SDs per unit of shift, at least
    r: float = 0.80  # |r|, at least
    selectivity: float = 0.70  # at least
    sign_consistency: float = 0.95  # share of starting images that move the same way, at least
    movement: float = 0.6  # share of all that moves, in squares of SDs, also where it bends, or goes up here and down there, at least
    missing: float = 0.5  # share of walks on which the factor could not be measured, at most
    dead: float = 0.05  # a direction whose ends differ by less than this share of what two random slices differ by does nothing
    same: float = 0.90  # |cosine| of two directions, or of the changes that they make, from which they are duplicates


@torch.no_grad()
def image_changes(
    generator: nn.Module, directions: Directions, reach: float = 2.0, samples: int = 32, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """How much each direction changes a slice, (K,), and how alike the changes of any two are, (K, K).

    The change is G(z + reach * a) - G(z - reach * a), its size a root mean square relative to that of two random slices. Likeness
    is the cosine of two directions' changes from the same z, averaged over `samples` of them; -1 is the reverse.
    """
    z = draw_z(generator, samples, seed)
    draw = lambda z: generate(generator, z).flatten(1)
    plain = draw(z)
    random = (plain - plain.roll(1, 0)).square().mean().sqrt()
    changes = torch.stack([draw(directions.shift(z, k, reach)) - draw(directions.shift(z, k, -reach)) for k in range(len(directions))])
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
    if "moved" in table:  # not in what was measured before
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
        & (main["movement"] >= rules.movement if "movement" in main else True)
    )


def name_directions(
    table: pd.DataFrame,
    directions: Directions,
    changes: tuple[np.ndarray, np.ndarray],
    units: Mapping[str, str],
    rules: Rules | None = None,
    judged: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """A row a direction: its main factor with slope and selectivity, `name` ("" if none is earned), `kind`, `same_as`, and `words`.

    `table` is Responses.table(), `changes` come from image_changes, `units` are the measures'. `kind` is named, mixed (it changes
    images, but no factor clearly) or dead. `same_as` is an earlier direction that points the same way or makes the same change, else -1.
    Directions that earn the same factor are told apart by a number, the most selective one first. Whether a name is earned is read from
    `judged` where it is given: the same measured as random directions were (`Chance.measure`), from which the rules come.
    """
    rules, (change, alike) = rules or Rules(), changes
    main = main_factors(table).reindex(range(len(directions)))
    strict = main if judged is None else main_factors(judged).reindex(range(len(directions)))
    named = earned(strict, rules) & (strict["factor"] == main["factor"])
    kind = np.where(change < rules.dead, "dead", np.where(named, "named", "mixed"))
    cosines = _likeness(directions, alike)
    earlier = (cosines >= rules.same) & (np.arange(len(directions))[None] < np.arange(len(directions))[:, None])
    same_as = np.where(earlier.any(1), earlier.argmax(1), -1)
    shown = ["factor", "slope", "r", "effect", "selectivity", "selectivity_low", "selectivity_high", "sign_consistency", "q"]
    rows = main[shown].copy()
    rows = rows.assign(change=change, kind=kind, same_as=same_as)
    rows["least"] = table.groupby("direction")["missing"].min().reindex(rows.index)
    rows["unmeasured"] = rows["least"] > rules.missing
    rows["alone"] = table["factor"].nunique() == 1
    rows["appears"] = _appearing(table).reindex(rows.index)
    rows["bends"] = main.get("movement", pd.Series(1.0, main.index)) < rules.movement * main["selectivity"]
    rows["words"] = [_words(row, units) for row in rows.itertuples()]
    rows["name"] = ""
    named = rows[rows["kind"] == "named"].sort_values("selectivity", ascending=False)
    for factor, group in named.groupby("factor"):
        others = (name for number in count(2) if (name := f"{factor} {number}") not in units)
        for k, name in zip(group.index, chain([factor], others), strict=False):
            rows.loc[k, "name"] = name
    rows["best_for"] = ""
    measured = table[~table["direction"].isin(rows.index[rows["unmeasured"]])]
    best = best_directions(measured).dropna(subset=["direction"]).sort_values("selectivity")
    for factor, k in best["direction"].items():  # of a direction that is the best for several, the one that it follows most alone
        rows.loc[int(k), "best_for"] = factor
    return rows


def _likeness(directions: Directions, alike: np.ndarray) -> np.ndarray:
    """|cosine| of any two directions, or of the changes that they make where that is more, (K, K)."""
    return np.maximum(np.abs((directions.matrix @ directions.matrix.T).numpy()), np.abs(alike))


def distinct(generator: nn.Module, directions: Directions, rules: Rules | None = None, seed: int = 0) -> Directions:
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
    moved = {name: own(getattr(info, name)) for name in ("names", "best_for", "words", "curves")}
    bends = {place[k]: bend for k, bend in directions.bends.items() if k in place}
    return Directions(directions.matrix[kept], info.but(**moved, notes=info.notes | {"kept": kept}), bends)


def _appearing(table: pd.DataFrame) -> pd.Series:
    """For each direction along which a factor appears or disappears, words that say so; a measure has no value where its object is not."""
    if "missing_first" not in table:  # of what was measured before
        return pd.Series(dtype=object)
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
        most = "mostly" if row.selectivity >= 0.5 else "first of all"
        return f"mixed: {most} {factor_words(row.factor)}, {row.selectivity:.0%} of what it does"
    interval = f"{row.selectivity:.2f} [{row.selectivity_low:.2f}, {row.selectivity_high:.2f}]"
    return f"{factor_words(row.factor)}, {row.slope:+.3g}{unit} per unit of shift, selectivity {interval}"


def with_names(directions: Directions, rows: pd.DataFrame, responses: Responses | None = None) -> Directions:
    """The same directions with the names and words of `rows` (name_directions) in their info.

    With `responses` also curves: how each direction's main factor goes along it, in SDs, at the shifts that were measured.
    """
    changes: dict[str, dict] = {
        "names": {int(k): name for k, name in rows["name"].items() if name},
        "best_for": {int(k): factor for k, factor in rows["best_for"].items() if factor},
        "words": {int(k): text for k, text in rows["words"].items()},
    }
    if responses is not None:
        order = np.argsort(responses.shifts)
        paths = {k: responses.mean_path(k, factor)[order] for k, factor in rows["factor"].items() if isinstance(factor, str)}
        changes["curves"] = {int(k): [round(float(v), 3) for v in path] for k, path in paths.items() if np.isfinite(path).all()}
    return directions.with_info(**changes)
