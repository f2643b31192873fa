"""Steering on the shipped models of real chest CT: one factor moves, the others hold. `python -m experiments.steering [gan | vae]`

Writes steering.csv (a row a model and factor, beside the best straight direction and random sets), steering_kid.csv (how real the ends are,
where real slices lie beside the checkout) and steering_<model>.png into outputs/reference/chest. What is there is not made again. An hour a
model on one core.
"""

import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

import lpdirs as lp
from experiments import FACTORS, MODELS
from experiments.chest_figures import OUT, K, save_greys
from lpdirs.measures.measures import factor_words
from lpdirs.scores.realism import features, kernel_distance
from lpdirs.scores.response import best_directions
from lpdirs.scores.steering import Steering, fit_steering, respond_steered, steered_ends
from lpdirs.show.plots import film_strips, set_style
from tests.notebooks.refresh import ROOT

SAMPLES, STARTS, ENDS = 4000, 64, 40  # that are learned from, from which every factor is steered, and of which KID is measured
REAL = ROOT.parent / "shared" / "ct_chest"
AMOUNTS = (-1.5, -0.75, 0.0, 0.75, 1.5)  # SDs
SHOWN = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)


def purity(name: str, generator: lp.Generator, steering: Steering) -> pd.DataFrame:
    """Each factor steered, the best straight direction of `motion` and of the paper's method, and the median of random sets."""
    table = respond_steered(generator, steering, amounts=AMOUNTS, samples=STARTS).table()
    own = table[table["factor"] == table["direction"].map(dict(enumerate(steering.factors)))].set_index("factor")
    against = pd.read_csv(OUT / "against_chance.csv").query("model == @name").set_index(["set", "factor"])
    names = ["selectivity", "selectivity_low", "selectivity_high", "r", "sign_consistency"]
    found = own[names].assign(reached=own["effect"], measured=1 - own["missing"], r2=pd.Series(steering.r2))
    found["motion"], found["paper"] = (against.loc[label]["selectivity"] for label in (f"motion{K}", f"unit{K}-lenet"))
    return found.assign(chance=against.loc[f"motion{K}"]["selectivity_chance"], model=name).reset_index()


def realism(name: str, generator: lp.Generator, steering: Steering, real: np.ndarray) -> pd.DataFrame:
    """KID to real slices, a row a factor: of where ENDS slices end that are steered by 1.5 SDs either way, and that are shifted along
    the best direction of `motion` by as much of the factor (at most 6), beside that of slices as they are drawn."""
    z, names, extract = generator.draw(ENDS, 1_000_005), list(FACTORS), features()
    folder = OUT / "directions" / f"{name}-motion{K}"
    best, directions = best_directions(pd.read_csv(folder / "responses.csv")), lp.Directions.load(folder / "directions.safetensors")
    away = lambda z: dict(zip(("KID", "error"), kernel_distance(real, extract(generator.images(z))), strict=True))
    rows = [{"factor": "start", "way": "start"} | away(generator.draw(2 * ENDS, 1_000_005))]
    for factor in names:
        far = min(1.5 * steering.spread[steering.factors.index(factor)] / abs(best.loc[factor, "slope"]), 6)
        ends = {
            "steered": list(steered_ends(generator, z, factor, (-1.5, 1.5), steering=steering)[0]),
            "motion": [directions.shift(z, int(best.loc[factor, "direction"]), side * far) for side in (-1, 1)],
        }
        rows += [{"factor": factor, "way": way, "shift": far} | away(torch.cat(both)) for way, both in ends.items()]
    return pd.DataFrame(rows).assign(model=name)


def figure(name: str, generator: lp.Generator, steering: Steering, table: pd.DataFrame) -> None:
    """A row each factor, with what steering reaches on average: from the slice nearest to the mean of those on which all that is shown
    in the row can be measured; that is one with free sides for width and x-position, which the frame cuts on many."""
    z, rows, labels = generator.draw(512, 2), [], []
    images, known = generator.images(z), generator.measures.of(generator, z)
    away = (images - images.mean(0)).square().flatten(1).mean(1)
    for factor, row in table.set_index("factor").loc[list(FACTORS)].iterrows():
        start = z[torch.where(torch.from_numpy(known[factor].notna().to_numpy()), away, torch.inf).argmin()]
        path, _ = steered_ends(generator, start[None], str(factor), SHOWN, steering=steering)
        rows.append(generator.display.pictures(generator.images(path[:, 0])))
        pure = f"selectivity {row['selectivity']:.2f} [{row['selectivity_low']:.2f}, {row['selectivity_high']:.2f}]"
        labels.append(f"{factor_words(str(factor))}\n{pure}\nmotion: {row['motion']:.2f}, chance {row['chance']:.2f}")
    title = f"{MODELS[name]} of real chest CT, steered: one factor goes, six hold"
    save_greys(film_strips(np.stack(rows), [f"{amount:+.1f} SD" for amount in SHOWN], labels, title), OUT / f"steering_{name}.png")


def main(only: str = "") -> None:
    set_style()
    pairs = {label.partition("-")[0]: generator for label, (generator, _) in lp.load(OUT).items()}
    real = None
    for name, generator in pairs.items():
        if only and name != only:
            continue
        kept = ROOT / "build" / f"steering_{name}.safetensors"
        if not kept.exists():
            kept.parent.mkdir(exist_ok=True)
            fit_steering(generator, samples=SAMPLES).save(kept)
        steering = Steering.load(kept)
        add("steering.csv", name, lambda: purity(name, generator, steering))  # noqa: B023
        if not (OUT / f"steering_{name}.png").exists():
            figure(name, generator, steering, pd.read_csv(OUT / "steering.csv").query("model == @name"))
        if REAL.is_dir():
            if real is None:
                slices = lp.read_slices(REAL, size=128).tensor()
                real = features()(slices[np.random.default_rng(0).permutation(len(slices))[:1000]])
            add("steering_kid.csv", name, lambda: realism(name, generator, steering, real))  # noqa: B023


def add(file: str, name: str, make: Callable[[], pd.DataFrame]) -> None:
    """Rows of a model to a table, unless they are there."""
    if (OUT / file).exists() and name in set(pd.read_csv(OUT / file)["model"]):
        return
    new = make()
    print(new.round(2).to_string(), flush=True)
    old = [pd.read_csv(OUT / file)] if (OUT / file).exists() else []
    pd.concat([*old, new]).sort_values("model", kind="stable").to_csv(OUT / file, index=False, float_format="%.5g")


if __name__ == "__main__":
    main(*sys.argv[1:])
