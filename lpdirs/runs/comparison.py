"""Scores of a whole sweep: collected, shown with their spread, and tested with a correction for all comparisons of a table."""

from collections.abc import Mapping
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from lpdirs.base.errors import MissingInput
from lpdirs.base.files import read_json
from lpdirs.base.words import configuration_words, model_words
from lpdirs.discovery.methods import METHODS
from lpdirs.runs.grid import Grid, label_of
from lpdirs.runs.models import sets_of
from lpdirs.runs.scoring import read_scores
from lpdirs.scores.intervals import holm

FLIPS = 100_000  # signs that are drawn at random, where there are more


def collect(folder: Path) -> pd.DataFrame:
    """All scores of a sweep, a row each configuration, generator and seed, in the grid's order; or a table that was kept of one.

    Besides SCORES: configuration, generator, training and seed (of the search), K, run (the folder, which holds the executed notebook).
    MissingInput says how to make a sweep where there is none.
    """
    if not (folder / "grid.json").exists():
        if kept := sorted(folder.glob("scores*.csv")):
            return pd.concat([pd.read_csv(path) for path in kept], ignore_index=True)
        raise MissingInput(f"{folder.name} holds no sweep: python -m lpdirs sweep notebooks/profiles/grid_phantom.yaml makes one")
    grid = Grid(folder.name, **{k: v for k, v in read_json(folder / "grid.json").items() if k != "name"})
    searched = [
        (g, name, *pair) for g in grid.generators for name in grid.configurations for pair in grid.pairs if g in grid.of(name, pair[1])
    ]
    scored = []
    for generator, name, training, seed in searched:
        run = grid.run_of(generator, name, training, seed)
        for name_of_set in sets_of(folder / run):
            path = folder / run / "directions" / name_of_set / "scores.json"
            if path.exists():
                which = {"configuration": name, "generator": label_of(generator), "training": training, "seed": seed, "run": run}
                scored.append(which | {"set": name_of_set} | read_scores(path))
    if not scored:
        raise MissingInput(f"{folder.name} has no scores yet: python -m lpdirs sweep goes on with it")
    return pd.DataFrame(scored)


def sorted_by(rows: pd.DataFrame, score: str) -> list[str]:
    """The configurations from the highest to the lowest mean of a score over generators, each by its median over searches.

    Of one that was not searched on all generators, by how it stands there to those that were.
    """
    each = rows.groupby(["configuration", "generator"])[score].median().unstack()
    usual = each.dropna().mean() if len(each.dropna()) else each.mean()
    return list((each - usual).mean(axis=1).sort_values(ascending=False).index)


def placed_in_chance(rows: pd.DataFrame) -> pd.DataFrame:
    """The same with kappa_fresh_z: by how many SDs of the random sets on the same training, and of as many directions, it lies above."""
    if "random" not in set(rows["configuration"]):
        return rows
    which = [name for name in ("generator", "training", "K") if name in rows]
    band = rows[rows["configuration"] == "random"].groupby(which)["kappa_fresh"].agg(["mean", "std"])
    placed = rows[which].merge(band, left_on=which, right_index=True, how="left")
    return rows.assign(kappa_fresh_z=((rows["kappa_fresh"] - placed["mean"]) / placed["std"].where(placed["std"] > 0)).to_numpy())


def pairs_to_test(configurations: list[str]) -> list[tuple[str, str]]:
    """What `tested` is asked: the paper's method against every other, ours against every other, and what R and A change."""
    papers = sorted((name for name in configurations if name.startswith("lenet-unit-")), key=lambda name: int(name.split("-")[-1]))
    paper = papers[0] if papers else configurations[0]
    computed = [name for name in METHODS if name not in ("reconstructor", "motion")]
    pairs = [(paper, name) for name in (*computed, "lenet-orthonormal-32", "resnet18-unit-32")]
    pairs += [("motion", name) for name in (paper, *computed)]
    pairs += [("lenet-orthonormal-32", "random"), ("resnet18-orthonormal-32", "lenet-orthonormal-32")]
    pairs += [(name, f"random-{name.split('-')[-1]}") for name in papers]
    return [pair for pair in pairs if set(pair) <= set(configurations)]


def spread(rows: pd.DataFrame, columns: list[str], by: tuple[str, ...] = ("generator", "configuration"), digits: int = 2) -> pd.DataFrame:
    """Median of `columns` over searches with lowest and highest, as text, a row each group, in order of coming."""
    groups = rows.groupby(list(by), sort=False)[columns]
    parts = [groups.agg(how) for how in ("median", "min", "max")]
    said = lambda m, a, b: "–" if not np.isfinite(m) else f"{m:.{digits}f}" + (f" [{a:.{digits}f}, {b:.{digits}f}]" if a < b else "")
    text = {name: [said(*values) for values in zip(*(part[name] for part in parts), strict=True)] for name in columns}
    return pd.DataFrame(text, index=parts[0].index)


def medians(rows: pd.DataFrame, columns: Mapping[str, str], methods: list[str]) -> dict[str, pd.DataFrame]:
    """For each generator, in words, a row each of `methods`: medians over its searches of `columns`, under the names they map to."""
    of = lambda part: part.groupby("configuration")[list(columns)].median().reindex(methods).rename(columns=columns)
    return {model_words(name): of(part).rename(index=configuration_words) for name, part in rows.groupby("generator", sort=False)}


def tested(rows: pd.DataFrame, pairs: list[tuple[str, str]], columns: list[str], seed: int = 0) -> pd.DataFrame:
    """One configuration minus another, a row each pair, generator and score: `difference` (mean), `n`, `p`, and `holm`.

    Searches are paired by training and seed; one that has no partner with its seed is compared with the partner's mean in that training.
    p is that of a permutation of the signs of the differences, and holm the same after correction for all rows of the table; with fewer
    than six pairs no p can be small. They speak of these generators: what another training would give is seen in the spread, not tested.
    """
    training = "training" if "training" in rows else "seed"
    found = []
    for one, other in pairs:
        for generator, part in rows.groupby("generator", sort=False):
            mine, theirs = (part[part["configuration"] == name].set_index([training, "seed"])[columns] for name in (one, other))
            if mine.empty or theirs.empty:
                continue
            means = theirs.groupby(level=0).mean()
            partner = theirs.reindex(mine.index).fillna(means.reindex(mine.index.get_level_values(0)).set_axis(mine.index))
            for name in columns:
                difference = (mine[name] - partner[name]).dropna().to_numpy()
                p = _sign_flip(difference, seed) if len(difference) > 1 else float("nan")
                known = {"one": one, "other": other, "generator": generator, "score": name}
                found.append(known | {"difference": difference.mean() if len(difference) else np.nan, "n": len(difference), "p": p})
    table = pd.DataFrame(found, columns=["one", "other", "generator", "score", "difference", "n", "p"])
    return table.assign(holm=holm(table["p"].to_numpy()))


@lru_cache(maxsize=4)
def _signs(n: int, seed: int) -> np.ndarray:
    """All signs of n differences, or where these are more than FLIPS, so many at random, a row each."""
    if 2**n <= FLIPS:
        return np.array(list(product((1.0, -1.0), repeat=n)))
    return np.random.default_rng(seed).choice((1.0, -1.0), (FLIPS, n))


def _sign_flip(difference: np.ndarray, seed: int) -> float:
    """How likely a mean as far from 0 is where the signs are chance: exact, or counting the differences themselves as one more draw."""
    signs, own = _signs(len(difference), seed), abs(difference.sum())
    reached = int((np.abs(signs @ difference) >= own * (1 - 1e-12)).sum())
    return reached / len(signs) if 2 ** len(difference) <= FLIPS else (reached + 1) / (len(signs) + 1)


def heat_maps(tables: Mapping[str, pd.DataFrame], label: str, **style: Any) -> Figure:
    """A heat map of each table, two beside one another, all with the same rows and columns; `label` says what the colours are.

    `style` goes to seaborn's heatmap: cmap, vmin, vmax, center, fmt.
    """
    lines, first = -(-len(tables) // 2), next(iter(tables.values()))
    size, beside = (12, lines * (0.3 * len(first) + 1.2)), min(2, len(tables))
    fig, axes = plt.subplots(lines, beside, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained")
    for ax, (title, table) in zip(axes.flat, tables.items(), strict=False):
        sns.heatmap(table, ax=ax, annot=True, annot_kws={"fontsize": 7}, cbar_kws={"label": label}, **style)
        ax.set(title=title, xlabel="", ylabel="")
    for ax in axes.flat[len(tables) :]:
        ax.axis("off")
    return fig
