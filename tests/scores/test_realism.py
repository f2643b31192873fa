import numpy as np
import pytest
import torch
from torch.nn import functional as F

import lpdirs as lp
from lpdirs.data.store import open_dataset, scale
from lpdirs.measures.measures import moments
from lpdirs.phantom.painting import render
from lpdirs.phantom.population import sample_patients
from lpdirs.scores.realism import features, kernel_distance, neighbours, realism

WINDOW = (-1000.0, 1000.0)


@pytest.fixture(scope="module")
def slices():
    hu = np.concatenate([render(p, np.linspace(0.1, 0.9, 8), 32) for p in sample_patients(30, 5)])
    return scale(torch.from_numpy(hu), WINDOW)[:, None]


def test_the_same_distribution_is_at_distance_zero(rng):
    a, b = rng.normal(size=(400, 8)), rng.normal(size=(400, 8))
    near, far = kernel_distance(a, b), kernel_distance(a, b + 1)
    assert abs(near[0]) < 0.05 * far[0] and far[1] > 0


def test_blur_moves_slices_further_from_real_ones(slices):
    f = features()
    assert f.name == "EffNet-Lite0"
    real, rest = f(slices[:120]), slices[120:]
    blur = lambda x, n: F.avg_pool2d(F.pad(x, (n,) * 4, mode="replicate"), 2 * n + 1, 1)
    floor, little, much = (kernel_distance(real, f(x))[0] for x in (rest, blur(rest, 1), blur(rest, 2)))
    assert floor < little < much


def test_typical_is_in_the_middle_and_far_is_not():
    z = torch.randn(2000, 32, generator=torch.Generator().manual_seed(0))
    assert lp.Prior.normal().typicality(z).mean() == pytest.approx(0.5, abs=0.03)
    far = z / z.norm(dim=1, keepdim=True) * 9
    assert lp.Prior.normal().typicality(far).max() < 0.001


def test_copies_are_found_and_new_patients_are_not(slices):
    train, held_out, new = slices[:120], slices[120:180], slices[180:]
    copies, fresh = (neighbours(x, train, held_out, WINDOW) for x in (train[10:40] + 1e-3, new))
    assert copies.copied == 1 and copies.index.tolist() == list(range(10, 40)) and copies.ratio < 0.05
    assert fresh.copied < 0.1 and 0.7 < fresh.ratio < 1.4


class Memory(torch.nn.Module):
    """Draws the slices that it was given, and nothing else."""

    def __init__(self, slices):
        super().__init__()
        self.register_buffer("slices", slices)

    def forward(self, z):
        return self.slices[(torch.special.ndtr(z[:, 0]) * len(self.slices)).long().clamp(max=len(self.slices) - 1)]


def test_a_model_that_repeats_its_training_slices_is_told_from_one_that_blurs_them(dataset):
    train, held_out = open_dataset(dataset, "train"), open_dataset(dataset, "test")
    blurred = F.avg_pool2d(F.pad(train.tensor(), (3,) * 4, mode="replicate"), 7, 1)
    copies, blurs = (
        realism(lp.as_generator(Memory(x), 4, value_range=(-1, 1), measures=moments()), train, held_out, n=64)
        for x in (train.tensor(), blurred)
    )
    assert copies.near.copied == 1 and copies.near.ratio < 0.01 < blurs.near.ratio
    assert copies.kid[0][0] < blurs.kid[0][0] and copies.kid[1] == blurs.kid[1]
    assert list(copies.factors.index) == list(moments().factors) and (copies.factors["samples not measured"] == 0).all()
    assert copies.factors.loc["contrast", "samples"] < 0.25 < blurs.factors.loc["sharpness", "samples"]
