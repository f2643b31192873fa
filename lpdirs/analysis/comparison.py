"""One row of scores for a set of directions, whatever method found it, and tables over seeds."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import nn

from lpdirs.analysis import disentanglement
from lpdirs.analysis.geometry import additivity, coherence
from lpdirs.analysis.naming import image_changes, name_directions
from lpdirs.analysis.recoverability import recoverability
from lpdirs.analysis.response import FACTORS, NAMED, best_directions, measure_all
from lpdirs.analysis.zposition import ZPosition
from lpdirs.discovery.directions import Directions
from lpdirs.errors import MissingInput
from lpdirs.generative.generators import generate

FOUND = {"r": 0.9, "sign_consistency": 0.95}  # when a factor counts as found by its best direction

# what a column of `score_set` says, and which way is better
SCORES = {
    "found": "of the paper's five factors, those whose best direction has |r| >= 0.9 and sign consistency >= 0.95",
    "found_at_level": "the same, with breast size judged on starting slices at whose level there are breasts",
    "named": "directions that earn a name",
    "factors_named": "different factors among the names",
    "selectivity": "of each factor's best direction, mean over the five",
    "kappa": "recoverability: a fresh R's accuracy after a fixed budget, corrected for chance",
    "mig": "mutual information gap",
    "sap": "separated attribute predictability",
    "dci_disentanglement": "DCI: does a direction concern one factor?",
    "dci_completeness": "DCI: is a factor in one direction?",
    "dci_informativeness": "DCI: do all directions together tell the factors?",
    "modularity": "does a direction inform about one factor alone?",
    "additivity": "mixed second difference over the changes themselves: 0 is additive",
    "effective_rank": "of A",
    "coherence": "largest |cosine| of two directions",
}


@dataclass(frozen=True)
class Subject:
    """A generator and what is needed to measure its slices; `z` and `factors` are random samples and their measured factors."""

    generator: nn.Module
    window: tuple[float, float]
    pixel_mm: float
    z_position: ZPosition | None
    z: torch.Tensor
    factors: pd.DataFrame


def subject(generator: nn.Module, latent_dim: int, window, pixel_mm: float, z_position, samples: int = 2000, seed: int = 0) -> Subject:
    """Draw `samples` slices of a generator and measure them."""
    z = torch.randn(samples, latent_dim, generator=torch.Generator().manual_seed(10_000 + seed))
    table = measure_all(generate(generator, z), window, pixel_mm, z_position)
    return Subject(generator, window, pixel_mm, z_position, z, table[[name for name in FACTORS if name in table]])


def score_set(
    about: Subject, directions: Directions, table: pd.DataFrame, reconstructor_steps: int = 300, seed: int = 0, device: str = "cpu"
) -> dict[str, float]:
    """SCORES of one set of directions, and for each named factor its best direction's |r|, sign consistency and selectivity.

    `table` is that of the directions' Responses. The fresh R is trained with one seed; intervals are over runs.
    """
    names = name_directions(table, directions, *image_changes(about.generator, directions, seed=seed))
    best = best_directions(table).reindex([f for f in NAMED if f in set(table["factor"])])
    found = lambda r, sign: int(((best[r].abs() >= FOUND["r"]) & (best[sign] >= FOUND["sign_consistency"])).sum())
    row: dict[str, float] = {
        "found": found("r", "sign_consistency"),
        "found_at_level": found("r_level", "sign_level"),
        "named": int((names["kind"] == "named").sum()),
        "factors_named": int(names.loc[names["kind"] == "named", "factor"].nunique()),
        "dead": int((names["kind"] == "dead").sum()),
        "selectivity": float(best["selectivity"].mean()),
    }
    codes = (about.z @ directions.matrix.T).numpy()
    row |= disentanglement.scores(codes, about.factors, seed)
    geometry = coherence(directions.matrix)
    row |= {name: geometry[name] for name in ("coherence", "effective_rank")}
    row["additivity"] = additivity(about.generator, directions, seed=seed)
    fresh = recoverability(about.generator, directions, reconstructor_steps, (seed,), device=device)
    row |= {"rca": float(fresh.rca[0]), "kappa": float(fresh.kappa[0])}
    for factor, values in best.iterrows():
        row |= {
            f"{factor}_r": abs(values["r"]),
            f"{factor}_r_level": abs(values["r_level"]),
            f"{factor}_sign": values["sign_consistency"],
            f"{factor}_selectivity": values["selectivity"],
        }
    return row


def collect(folder: Path) -> pd.DataFrame:
    """All scores of a sweep, a row each configuration, generator and seed, in the grid's order; or a table that was kept of one.

    Besides SCORES: configuration, generator, seed, K, run (the folder, which holds the executed notebook). MissingInput says how to
    make a sweep where there is none.
    """
    if not (folder / "grid.json").exists():
        if (folder / "scores.csv").exists():
            return pd.read_csv(folder / "scores.csv")
        raise MissingInput(f"{folder.name} holds no sweep: python -m lpdirs sweep notebooks/profiles/grid_demo.yaml makes one")
    grid = json.loads((folder / "grid.json").read_text())
    runs = [(g, name, seed) for g in grid["generators"] for name in grid["configurations"] for seed in grid["seeds"]]
    found = []
    for generator, name, seed in runs:
        run = f"{generator}-{name}-seed{seed}"
        for path in sorted((folder / run / "directions").glob("*/scores.json")):
            found.append({"configuration": name, "generator": generator, "seed": seed, "run": run} | json.loads(path.read_text()))
    if not found:
        raise MissingInput(f"{folder.name} has no scores yet: python -m lpdirs sweep goes on with it")
    return pd.DataFrame(found)


def against(rows: pd.DataFrame, one: str, other: str, columns: list[str]) -> pd.DataFrame:
    """One configuration less another in `columns`, a row each generator: mean over the seeds that both have, and the half width of
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
