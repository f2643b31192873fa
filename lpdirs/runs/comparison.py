"""Scores of a whole sweep: collected, and compared over seeds."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from lpdirs.base.errors import MissingInput
from lpdirs.base.files import read_json
from lpdirs.runs.grid import Grid, label_of
from lpdirs.runs.models import sets_of
from lpdirs.runs.scoring import read_scores


def collect(folder: Path) -> pd.DataFrame:
    """All scores of a sweep, a row each configuration, generator and seed, in the grid's order; or a table that was kept of one.

    Besides SCORES: configuration, generator, training and seed (of the search), K, run (the folder, which holds the executed notebook).
    MissingInput says how to make a sweep where there is none.
    """
    if not (folder / "grid.json").exists():
        if (folder / "scores.csv").exists():
            return pd.read_csv(folder / "scores.csv")
        raise MissingInput(f"{folder.name} holds no sweep: python -m lpdirs sweep notebooks/profiles/grid_demo.yaml makes one")
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


def against(rows: pd.DataFrame, one: str, other: str, columns: list[str]) -> pd.DataFrame:
    """One configuration minus another in `columns`, a row each generator: mean over the seeds that both have, and the half width of
    its 95 percent interval (paired Student's t; NaN for a single seed), like `over_seeds`."""
    sides = [rows[rows["configuration"] == name].set_index(["generator", "seed"])[columns] for name in (one, other)]
    difference = (sides[0] - sides[1]).dropna(how="all").reset_index()
    return over_seeds(difference, columns, ("generator",))


def over_seeds(rows: pd.DataFrame, columns: list[str], by: tuple[str, ...] = ("generator", "configuration")) -> pd.DataFrame:
    """Mean of `columns` and the half width of its 95 percent interval (Student's t over seeds), a row each group, in order of coming."""
    groups = rows.groupby(list(by), sort=False)[columns]
    mean, n, deviation = groups.mean(), groups.count(), groups.std()
    half = deviation / np.sqrt(n) * stats.t.ppf(0.975, np.maximum(n - 1, 1))
    return pd.concat({"mean": mean, "half": half.where(n > 1)}, axis=1)


def in_words(table: pd.DataFrame, digits: int = 2) -> pd.DataFrame:
    """`over_seeds` as text: mean ± half width."""
    mean, half = table["mean"], table["half"]
    text = {
        name: [
            f"{m:.{digits}f} ± {h:.{digits}f}" if np.isfinite(h) else f"{m:.{digits}f}" for m, h in zip(mean[name], half[name], strict=True)
        ]
        for name in mean
    }
    return pd.DataFrame(text, index=mean.index)
