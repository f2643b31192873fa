import io

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image

from lpdirs.analysis.explorer import Explorer
from lpdirs.analysis.plots import animation, contact_sheet, film_strips, mosaic, step_heads, to_grey
from lpdirs.discovery.closed_form import random
from lpdirs.discovery.directions import Directions
from lpdirs.generative.dcgan import Generator
from lpdirs.generative.vae import Decoder


def lively(model):
    """An untrained model of which slices differ: BatchNorm has seen a batch."""
    for _ in range(50):
        model(torch.randn(16, model.latent_dim))
    return model.eval().requires_grad_(False)


@pytest.fixture
def explorer():
    models = {"gan": (lively(Generator(32, 4, 4)), Directions(random(3, 4))), "vae": (lively(Decoder(32, 6, 4)), Directions(random(5, 6)))}
    return Explorer(models, (-1000.0, 1000.0))


def shown(explorer):
    return np.asarray(Image.open(io.BytesIO(explorer.image.value)))


def test_a_slider_moves_the_picture_and_reset_brings_it_back(explorer):
    before = shown(explorer)
    explorer.sliders[1].value = 6.0
    assert not np.array_equal(shown(explorer), before)
    assert np.array_equal(shown(explorer), to_grey(explorer.slice()))
    explorer.reset.click()
    assert np.array_equal(shown(explorer), before) and all(s.value == 0 for s in explorer.sliders)


def test_new_z_draws_another_slice(explorer):
    before = shown(explorer)
    explorer.new.click()
    assert not np.array_equal(shown(explorer), before)
    explorer.seed.value = 0
    assert np.array_equal(shown(explorer), before)


def test_directions_add_up(explorer):
    explorer.set_steps({0: 2.0, 2: -3.0})
    both = explorer.slice()
    explorer.set_steps({0: 2.0})
    assert not np.array_equal(explorer.slice(), both)
    assert "direction 0 +2.0" in explorer.status.value and "diagnosis" in explorer.status.value


def test_choosing_a_model_brings_its_own_sliders(explorer):
    explorer.sliders[0].value = 4.0
    explorer.model.value = "vae"
    assert len(explorer.sliders) == len(explorer.panel.children) == 5
    assert shown(explorer).shape == (32, 32)


def test_grey_values_are_fixed_in_hu():
    assert to_grey(np.array([-2000.0, -1000.0, -200.0, 600.0, 3000.0])).tolist() == [0, 0, 127, 255, 255]


def test_a_mosaic_reads_row_by_row():
    hu = np.arange(5)[:, None, None] * np.ones((5, 2, 2))
    picture = mosaic(hu, 3)
    assert picture.shape == (4, 6)
    assert picture[0].tolist() == [0, 0, 1, 1, 2, 2] and picture[3].tolist() == [3, 3, 4, 4, -1000, -1000]


def test_strips_have_the_steps_as_heads_and_all_rows(tmp_path):
    steps = np.linspace(-2, 2, 5)
    assert step_heads(steps) == ["-2", "-1", "0", "+1", "+2"]
    fig = film_strips(np.zeros((3, 5, 8, 8)), step_heads(steps), ["a", "b", "c"])
    assert len(fig.axes) == 15 and [ax.get_title() for ax in fig.axes[:5]] == step_heads(steps)
    assert len(contact_sheet(np.zeros((3, 8, 8)), 2).axes) == 2


def test_an_animation_runs_there_and_back(tmp_path):
    walks = np.random.default_rng(0).uniform(-1000, 600, (3, 4, 8, 8))
    frames = iio.imread(animation(walks, tmp_path / "a.gif", columns=3), index=None)
    assert len(frames) == 6 and np.array_equal(frames[1], frames[5]) and frames[0].shape[:2] == (8, 24)
