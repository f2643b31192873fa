"""How well directions can be told apart by a reconstructor that has never seen them: A frozen, R fresh, a fixed budget."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from lpdirs.base.checkpoints import stream
from lpdirs.base.progress import Progress
from lpdirs.discovery.directions import Directions
from lpdirs.discovery.objective import Discovery, DiscoverySettings
from lpdirs.models.generators import Generator

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
