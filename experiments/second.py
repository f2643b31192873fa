"""Steering judged by what it was not fed: the same factors by a second definition. `python -m experiments.second`

What is held in steering is what is counted, so that a part of its purity is taught to the test. Here one factor of shape after the other is
steered by its outline, as always, and what moves is then read by lungs and bones (`lpdirs.measures.inner`); so is what moves along the best
straight direction of `motion` and of random sets, chosen by the outline. At last both definitions are asked for and held together.
Writes outputs/reference/chest/steering_second.csv, a row a model, way and factor; `outline` is the selectivity by the outline, where both
were fed. A quarter of an hour on two cores.
"""

import numpy as np
import pandas as pd
import torch

import lpdirs as lp
from experiments.chest_figures import OUT, K
from lpdirs.discovery.closed_form import random
from lpdirs.measures.inner import INNER
from lpdirs.scores.response import Responses, best_directions, respond
from lpdirs.scores.steering import Steering, fit_steering, steered_ends
from tests.notebooks.refresh import ROOT

PAIRS = dict(zip(("rotation", "x_position", "y_position", "width", "thickness"), INNER, strict=True))
STARTS, SETS, FAR = 16, 2, (-4.0, 0.0, 4.0)
AMOUNTS = (-1.5, 0.0, 1.5)  # SDs


def steered(generator: lp.Generator, steering: Steering, measures: lp.Measures) -> pd.DataFrame:
    """The table of inner measures along paths on which a factor of PAIRS is steered by its outline, k by k."""
    z = generator.draw(STARTS, torch.Generator().manual_seed(1_000_003))
    values = np.empty((len(PAIRS), len(AMOUNTS), STARTS, len(INNER)))
    for k, name in enumerate(PAIRS):
        ends, _ = steered_ends(generator, z, name, AMOUNTS, steering=steering)
        values[k] = np.stack([measures.of(generator, end).to_numpy() for end in ends])
    spread = measures.of(generator, generator.draw(512, 0)).std()
    return Responses(values, np.asarray(AMOUNTS), spread, {}, None, measures.units, measures).table(0, 200)


def judged(table: pd.DataFrame, chosen: dict[str, int]) -> dict[str, pd.Series]:
    """The row of each factor's inner definition along the path or direction that was chosen for it."""
    rows = table.set_index(["direction", "factor"])
    return {name: rows.loc[(k, PAIRS[name])] for name, k in chosen.items()}


def of_straight(generator: lp.Generator, measures: lp.Measures, directions: lp.Directions) -> dict[str, pd.Series]:
    """The same along the straight directions that are best for each factor by its outline."""
    best = best_directions(respond(generator, directions, shifts=FAR, samples=STARTS).table(0, 50))
    chosen = {name: int(best.loc[name, "direction"]) for name in PAIRS if np.isfinite(best.loc[name, "direction"])}
    return judged(respond(generator, directions, measures, FAR, STARTS).table(0, 200), chosen)


def by_both(generator: lp.Generator, window: tuple[float, float], pixel_mm: float) -> list[dict]:
    """Rows of the factors of PAIRS, each steered by both of its definitions while all others of both hold."""
    inner = lp.thorax(window, pixel_mm, factors="inner")
    units = {**generator.measures.units, **inner.units}
    both = lp.Measures(lambda x: pd.concat([generator.measures(x), inner(x)], axis=1), units)
    fed, z = generator.but(measures=both), generator.draw(STARTS, torch.Generator().manual_seed(1_000_003))
    steering = fit_steering(fed, samples=4000)
    factors = list(steering.factors)
    values = np.empty((len(PAIRS), len(AMOUNTS), STARTS, len(factors)))
    for k, pair in enumerate(PAIRS.items()):
        values[k] = steered_ends(fed, z, pair, AMOUNTS, steering=steering)[1]
    found = {}
    for group in (list(generator.measures.units), list(INNER)):
        at = [factors.index(name) for name in group]
        spread = pd.Series(steering.spread[at], group)
        table = Responses(values[..., at], np.asarray(AMOUNTS), spread).table(0, 200).set_index(["direction", "factor"])
        found[group[0]] = table
    outline, inside = found.values()
    rows = []
    for k, (factor, second) in enumerate(PAIRS.items()):
        row = inside.loc[(k, second), ["selectivity", "selectivity_low", "selectivity_high", "r", "effect", "missing"]].abs().to_dict()
        rows.append({"way": "both", "factor": factor, "second": second} | row | {"outline": outline.loc[(k, factor), "selectivity"]})
    return rows


def main() -> None:
    rows = pd.read_csv(OUT / "steering_second.csv").to_dict("records") if (OUT / "steering_second.csv").exists() else []
    for label, (generator, _) in lp.load(OUT).items():
        name, info = label.partition("-")[0], generator.info
        if rows and not any(row["model"] == name and row["way"] == "both" for row in rows):
            rows += [{"model": name} | row for row in by_both(generator, info.window, info.pixel_mm)]
            pd.DataFrame(rows).to_csv(OUT / "steering_second.csv", index=False, float_format="%.4g")
    for label, (generator, _) in lp.load(OUT).items():
        name = label.partition("-")[0]
        if name in {row["model"] for row in rows}:
            continue
        window, pixel_mm = generator.info.window, generator.info.pixel_mm
        measures = lp.thorax(window, pixel_mm, factors="inner")
        steering = Steering.load(ROOT / "build" / f"steering_{name}.safetensors")
        ways = {"steered": [judged(steered(generator, steering, measures), {f: k for k, f in enumerate(PAIRS)})]}
        ways["motion"] = [
            of_straight(generator, measures, lp.Directions.load(OUT / "directions" / f"{name}-motion{K}" / "directions.safetensors"))
        ]
        sets = [lp.Directions(random(K, generator.latent_dim, 50 + i, orthonormal=True)) for i in range(SETS)]
        ways["random"] = [of_straight(generator, measures, one) for one in sets]
        for way, found in ways.items():
            for factor, second in PAIRS.items():
                known = pd.DataFrame([one[factor] for one in found if factor in one])
                median = known[["selectivity", "selectivity_low", "selectivity_high", "r", "effect", "missing"]].abs().median()
                rows.append({"model": name, "way": way, "factor": factor, "second": second} | median.to_dict())
        pd.DataFrame(rows).to_csv(OUT / "steering_second.csv", index=False, float_format="%.4g")
        print(pd.DataFrame(rows).query("model == @name").round(2).to_string(), flush=True)


if __name__ == "__main__":
    main()
