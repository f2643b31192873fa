import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from lpdirs.data.store import open_dataset, scale
from lpdirs.discovery.directions import Directions
from lpdirs.measures.thorax import thorax
from lpdirs.measures.zposition import fit_z
from lpdirs.models.generators import GeneratorInfo
from lpdirs.phantom.painting import FOV_MM, render
from lpdirs.phantom.population import LENGTH_MM, sample_patients
from lpdirs.scores.third_dimension import neighbour_agreement, neighbour_curve, reformat, walk_through

WINDOW = (-1000.0, 1000.0)


class OnePatient(nn.Module):
    """The first dimension moves through a patient, the others do nothing."""

    latent_dim = 3

    def __init__(self):
        super().__init__()
        volume = render(sample_patients(20, 3)[18], np.linspace(0.1, 0.9, 81), 32, noise=0)
        self.info = GeneratorInfo(window=WINDOW)
        self.register_buffer("volume", scale(torch.from_numpy(volume), WINDOW)[:, None])

    def forward(self, z):
        return self.volume[(40 + 10 * z[:, 0]).round().long().clamp(0, 80)]


@pytest.fixture(scope="module")
def walks(dataset):
    train = open_dataset(dataset, "train")
    z = fit_z(train, open_dataset(dataset))
    spread = pd.Series({name: 10.0 for name in ("rotation", "thickness", "breast", "y_position", "x_position", "width")})
    measures, start = thorax(WINDOW, FOV_MM / 32, z), 0.2 * torch.randn(6, 3)
    go = lambda k: walk_through(OnePatient(), Directions(torch.eye(3)), k, measures, np.linspace(-3, 3, 9), spread, start)
    return go(0), go(1), neighbour_curve(train)


def test_a_walk_through_a_patient_is_seen_as_one(walks):
    through, nothing, real = walks
    assert through.monotone.min() > 0.95 and through.travelled.mean() > 0.5
    assert (through.z[:, -1] > through.z[:, 0]).all()
    assert nothing.travelled.max() < 0.01
    assert nothing.drift.max() < 0.05 < through.drift["thickness"], "the body itself changes on the way down"
    assert 0.4 < neighbour_agreement(through, real) < 1.3, "the steps of a real body, without its noise"


def test_a_reformat_of_the_walk_is_that_of_the_patient(walks):
    through = walks[0]
    coronal, sagittal = reformat(through.hu[0], through.z[0], LENGTH_MM, FOV_MM / 32)
    assert coronal.shape[1] == sagittal.shape[1] == 32 and len(coronal) == len(sagittal) > 8
    assert (coronal < -600).mean() > 0.2 and (coronal > 0).mean() > 0.1


def test_real_neighbours_differ_more_the_further_apart(dataset):
    curve = neighbour_curve(open_dataset(dataset))
    near, far = curve[curve["gap"] < 0.15]["rms"].mean(), curve[curve["gap"] > 0.2]["rms"].mean()
    assert near < far
