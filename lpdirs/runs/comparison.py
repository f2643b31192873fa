"""Scores of a whole sweep: collected, shown with their spread, and tested with a correction for all comparisons of a table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from scipy.stats import permutation_test

from lpdirs.base.errors import MissingInput
from lpdirs.discovery.directions import MODELS
from lpdirs.runs.grid import Grid, label_of
from lpdirs.runs.models import sets_of
from lpdirs.runs.search import read_scores
from lpdirs.scores.response import holm

FLIPS = 100_000  # signs that are drawn at random, where there are more


def collect(folder: Path) -> pd.DataFrame:
    """All scores of a sweep, a row each configuration, generator and seed, in the grid's order; or a table that was kept of one.

    Besides SCORES: configuration, `title` (the search in words), method, basis, reconstructor, start, K, generator, training and seed (of
    the search), run (the folder, which holds the executed notebook). MissingInput says how to make a sweep where there is none.
    """
    if not (folder / "grid.json").exists():
        if kept := sorted(folder.glob("scores*.csv")):
            text = {name: str for name in ("basis", "reconstructor", "start")}
            return pd.concat([pd.read_csv(path, dtype=text, keep_default_na=True) for path in kept], ignore_index=True).fillna(
                dict.fromkeys(text, "")
            )
        raise MissingInput(f"{folder.name} holds no sweep: python -m lpdirs sweep notebooks/profiles/grid_phantom.yaml makes one")
    grid, scored = Grid.of_folder(folder), []
    for generator, name, training, seed in sorted(grid.searches(), key=lambda one: grid.generators.index(one[0])):
        run = grid.run_of(generator, name, training, seed)
        for label in sets_of(folder / run):
            path = folder / run / "directions" / label / "scores.json"
            if path.exists():
                which = {"configuration": name, "training": training, "run": run, "set": label}
                scored.append(which | read_scores(path) | {"generator": label_of(generator), "seed": seed})
    if not scored:
        raise MissingInput(f"{folder.name} has no scores yet: python -m lpdirs sweep goes on with it")
    return pd.DataFrame(scored)


def model_words(generator: str) -> str:
    """A generator in words: GAN, VAE, or the name of one's own."""
    return MODELS.get(generator, generator)


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


def pairs_to_test(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Which configurations `tested` compares: the paper's method against every other, ours against every other, and what R, A and K
    change."""
    each = rows.drop_duplicates("configuration").set_index("configuration")
    learned = each[(each["method"] == "reconstructor") & (each["start"].isin(["", "random"]))]
    papers = learned[(learned["basis"] == "unit") & (learned["reconstructor"] == "lenet")].sort_values("K").index
    paper = papers[0] if len(papers) else each.index[0]
    computed = list(each.index[~each["method"].isin(["reconstructor", "motion"])])
    k = each.loc[paper, "K"]
    changed = learned[(learned["K"] == k) & ((learned["basis"] == "unit") ^ (learned["reconstructor"] == "lenet"))].index
    pairs = [(paper, name) for name in (*computed, *changed)]
    pairs += [(name, other) for name in each.index[each["method"] == "motion"] for other in (paper, *computed)]
    by_chance = each.index[each["method"] == "random"]
    pairs += [(name, other) for name in learned.index for other in by_chance if each.loc[name, "K"] == each.loc[other, "K"]]
    return [pair for pair in dict.fromkeys(pairs) if pair[0] != pair[1]]


def spread(rows: pd.DataFrame, columns: list[str], by: tuple[str, ...] = ("generator", "configuration"), digits: int = 2) -> pd.DataFrame:
    """Median of `columns` over searches with lowest and highest, as text, a row each group, in order of coming."""
    groups = rows.groupby(list(by), sort=False)[columns]
    parts = [groups.agg(how) for how in ("median", "min", "max")]
    said = lambda m, a, b: "–" if not np.isfinite(m) else f"{m:.{digits}f}" + (f" [{a:.{digits}f}, {b:.{digits}f}]" if a < b else "")
    text = {name: [said(*values) for values in zip(*(part[name] for part in parts), strict=True)] for name in columns}
    return pd.DataFrame(text, index=parts[0].index)


def medians(rows: pd.DataFrame, columns: Mapping[str, str], configurations: list[str]) -> dict[str, pd.DataFrame]:
    """For each generator, in words, a row each of `configurations`, by title: medians over its searches of `columns`, under the names
    they map to."""
    title = titles(rows)
    of = lambda part: part.groupby("configuration")[list(columns)].median().reindex(configurations).rename(index=title, columns=columns)
    return {model_words(name): of(part) for name, part in rows.groupby("generator", sort=False)}


def titles(rows: pd.DataFrame) -> dict[str, str]:
    """What each configuration is called for readers."""
    return dict(rows.drop_duplicates("configuration")[["configuration", "title"]].to_numpy())


def tested(rows: pd.DataFrame, pairs: list[tuple[str, str]], columns: list[str], seed: int = 0) -> pd.DataFrame:
    """One configuration minus another, a row each pair, generator and score: `difference` (mean), `n`, `p`, and `holm`.

    Searches are paired by training and seed; one that has no partner with its seed is compared with the partner's mean in that training.
    p is that of a permutation of the signs of the differences, and holm the same after correction for all rows of the table; with fewer
    than six pairs no p can be small. They speak of these generators: variation between trainings is shown in the spread, not tested.
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


def _sign_flip(difference: np.ndarray, seed: int) -> float:
    """How likely a mean as far from 0 is where the signs are chance: exact, or where there are more than FLIPS signs, by so many."""
    test = permutation_test((difference,), np.mean, permutation_type="samples", n_resamples=FLIPS, random_state=seed)
    return float(test.pvalue)


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
