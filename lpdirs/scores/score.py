"""One row of scores for a set of directions, whatever method found it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import InstanceOf
from scipy import stats
from torch import Tensor

from lpdirs.base.checked import Count, Seed, checked
from lpdirs.base.checkpoints import stream
from lpdirs.base.errors import UserError
from lpdirs.base.progress import Progress
from lpdirs.discovery.directions import Directions
from lpdirs.discovery.objective import Discovery, DiscoverySettings
from lpdirs.measures.measures import Measures
from lpdirs.models.generators import Generator
from lpdirs.scores.disentanglement import additivity, coherence, one_to_one
from lpdirs.scores.naming import Rules, image_changes
from lpdirs.scores.response import Responses, best_directions, cross_fitted, respond

SAMPLES = 2000  # random images that codes and factors are compared on
FOUND = {"r": 0.9, "sign_consistency": 0.95}  # when a factor counts as found by its best direction

# what a column of `score` says, and which way is better
SCORES = {
    "found": "of the first factors (the paper's five), those whose best direction has |r| >= 0.9 and sign consistency >= 0.95",
    "found_at_level": "the same, with each factor judged on starting images at whose level it exists",
    "named": "directions that have earned a name (lp.name), NaN where none was asked for",
    "factors_named": "different factors among the names",
    "selectivity": "of each factor's best direction, chosen on half of the starting images and scored on the other; mean over factors",
    "r": "the same of |r|: how regularly shift and factor go together",
    "kappa_fresh": "recoverability: a fresh R's accuracy after a budget of `steps`, corrected for chance",
    "mig": "mutual information gap",
    "dci_disentanglement": "DCI by random forests: does a direction concern one factor?",
    "dci_completeness": "DCI by random forests: is a factor in one direction?",
    "dci_informativeness": "DCI by random forests: do all directions together tell the factors?",
    "additivity": "mixed second difference over the changes themselves: 0 is additive",
    "effective_rank": "of A",
    "coherence": "largest |cosine| of two directions",
}


@checked
def score(
    generator: InstanceOf[Generator],
    directions: InstanceOf[Directions],
    measures: InstanceOf[Measures] | None = None,
    responses: Any = None,
    steps: Count = 300,
    seed: Seed = 0,
    sample: tuple[Tensor, Any] | None = None,
) -> dict[str, float]:
    """SCORES of one set of directions, and for each factor its best direction's |r|, sign consistency and selectivity; |r| and
    selectivity are `cross_fitted`.

    `responses` (or their table) and `sample` (z and the factors of random images, Measures.sample) are made where they are not
    given. `steps` is the budget of the fresh R, which is trained with one seed; intervals are over runs.
    """
    measures = measures or generator.measures
    table = respond(generator, directions, measures, seed=seed) if responses is None else responses
    if isinstance(table, Responses):
        table.check(directions, generator)
        table = table.table(seed)
    if not isinstance(table, pd.DataFrame):
        raise UserError(f"responses must be what lp.respond gives, or its table, not {type(table).__name__}")
    directions.check(generator)
    if not set(table["factor"]) <= set(measures.factors):
        measured = ", ".join(dict.fromkeys(table["factor"]))
        raise UserError(f"the responses are of {measured}, and the measures of {', '.join(measures.factors)}: give those they came from")
    factor_of = lambda name: name if name in measures.factors else name.rpartition(" ")[0]  # "rotation 2"
    names = [factor_of(name) for name in directions.info.names.values()] if directions.info.words else None
    change, _ = image_changes(generator, directions, seed=seed)
    best = best_directions(table)
    fitted = {name: values.iloc[0].reindex(best.index) for name, values in cross_fitted(table).items()}
    first = best.reindex([factor for factor in measures.first if factor in best.index])
    reached = lambda r, sign: int(((first[r].abs() >= FOUND["r"]) & (first[sign] >= FOUND["sign_consistency"])).sum())
    row: dict[str, float] = {
        "found": reached("r", "sign_consistency"),
        "found_at_level": reached("r_level", "sign_level"),
        "named": float("nan") if names is None else len(names),
        "factors_named": float("nan") if names is None else len(set(names)),
        "dead": int((change < Rules().dead).sum()),
        **{name: float(fitted[name].mean()) for name in ("selectivity", "r")},
    }
    z, factors = sample or measures.sample(generator, SAMPLES, 10_000 + seed)
    if z.ndim != 2 or z.shape[1] != directions.latent_dim or len(z) != len(factors) or not set(factors) <= set(measures.factors):
        raise UserError("sample must be what Measures.sample(generator, n) gives: z (N, latent_dim) and the table of their N images")
    row |= one_to_one(np.asarray(z @ directions.matrix.T), factors, seed)
    geometry = coherence(directions.matrix)
    row |= {name: geometry[name] for name in ("coherence", "effective_rank")}
    row["additivity"] = additivity(generator, directions, seed=seed)
    if len(directions) > 1:
        fresh = recoverability(generator, directions, steps, (seed,))
        row |= {"rca_fresh": float(fresh.rca[0]), "kappa_fresh": float(fresh.kappa[0]), "kappa_steps": steps}
    for factor, values in best.iterrows():
        row |= {
            f"{factor}_r": fitted["r"][factor],
            f"{factor}_r_level": abs(values["r_level"]),
            f"{factor}_sign": values["sign_consistency"],
            f"{factor}_selectivity": fitted["selectivity"][factor],
        }
    return row


POINTS = 6  # of the curve
BUDGET = DiscoverySettings(batch=32, lr_reconstructor=0.003, freeze=True)  # of every method alike


@dataclass(frozen=True)
class Recoverability:
    """`rca` (seeds,): share of k named right on fresh pairs; `confusion` (K, K): rows the true k, columns the guess, shares.

    `curve` is the mean kappa of the seeds after so many steps, on fewer pairs: whether the budget was enough for R to have converged.
    """

    rca: np.ndarray
    confusion: np.ndarray
    curve: dict[int, float]

    @property
    def kappa(self) -> np.ndarray:
        """(rca - 1/K) / (1 - 1/K), (seeds,). R learns more directions more slowly, so that only sets of the same K are to be compared."""
        chance = 1 / len(self.confusion)
        return (self.rca - chance) / (1 - chance)

    @property
    def interval(self) -> tuple[float, float]:
        """95 percent interval of the mean kappa over seeds (Student's t); NaN for one seed."""
        if len(self.rca) < 2:
            return float("nan"), float("nan")
        mean, error = self.kappa.mean(), stats.sem(self.kappa)
        reach = error * stats.t.ppf(0.975, len(self.rca) - 1)
        return float(mean - reach), float(mean + reach)


def recoverability(
    generator: Generator,
    directions: Directions,
    steps: int = 300,
    seeds: tuple[int, ...] = (0, 1, 2),
    pairs: int = 2048,
    settings: DiscoverySettings = BUDGET,
) -> Recoverability:
    """Train a fresh R for `steps` on frozen `directions`, once a seed, and judge it on `pairs` fresh pairs.

    Its kappa is `kappa_fresh`, and depends on `steps`; that of the R which was trained together with A is `kappa_cotrained`.
    """
    accuracies, k_all, bar = [], len(directions), Progress("training a fresh R")
    confusion = np.zeros((k_all, k_all))
    seen: dict[int, list[float]] = {max(1, steps * i // POINTS): [] for i in range(1, POINTS + 1)}
    for number, seed in enumerate(seeds):
        own = settings.but(n_directions=k_all, basis="unit", freeze=True, seed=1000 + seed, precision="fp32")  # it is a measure
        search = Discovery(generator, own, directions)
        for index in range(steps):
            search.step(index)
            if index + 1 in seen:
                counts = judge(search, pairs // 4)
                seen[index + 1].append(np.trace(counts) / counts.sum())
            bar(number * steps + index + 1, len(seeds) * steps)
        counts = judge(search, pairs)
        accuracies.append(np.trace(counts) / counts.sum())
        confusion += counts
    chance = 1 / k_all
    curve = {step: float((np.mean(values) - chance) / (1 - chance)) for step, values in seen.items()}
    return Recoverability(np.array(accuracies), confusion / np.maximum(confusion.sum(1, keepdims=True), 1), curve)


@torch.no_grad()
def judge(search: Discovery, pairs: int, batch: int = 128) -> np.ndarray:
    """Counts (K, K) of true and guessed k on fresh pairs."""
    k_all = search.settings.n_directions
    counts = np.zeros((k_all, k_all))
    search.reconstructor.eval()
    for i in range(0, pairs, batch):
        plain, shifted, k, _ = search.pairs(min(batch, pairs - i), stream(search.settings.seed, 6, i))
        guess = search.reconstructor(plain, shifted)[0].argmax(1)
        np.add.at(counts, (k.cpu().numpy(), guess.cpu().numpy()), 1)
    search.reconstructor.train()
    return counts
