"""Models on another device than the data, as on a GPU: every place where a tensor meets a model moves it there."""

import json

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from IPython.display import display

import lpdirs as lp
from lpdirs.data.store import open_dataset
from lpdirs.discovery.methods import discover
from lpdirs.discovery.objective import Discovery, DiscoverySettings
from lpdirs.discovery.registry import METHODS
from lpdirs.models.networks import VAE, GeneratorNetwork
from lpdirs.models.training import GANSettings, GANTraining, VAESettings, VAETraining, encode
from lpdirs.runs.notebooks import run_notebooks, source_of
from lpdirs.runs.settings import MachineSettings
from lpdirs.runs.stage import SINGLE
from lpdirs.scores.inversion import invert_by_encoder
from lpdirs.scores.naming import distinct, image_changes
from lpdirs.scores.realism import neighbours
from lpdirs.scores.score import recoverability
from tests.elsewhere import Mixture, elsewhere
from tests.toys import lively

CT = (-1000.0, 1000.0)


def looked_at(images):
    return pd.DataFrame({"mean": images.flatten(1).mean(1).numpy(), "edge": images[:, 0, :, 0].mean(1).numpy()})


TINY = {"gan_steps": 3, "vae_steps": 3, "direction_steps": 3, "response_samples": 6, "score_steps": 4}
MEASURES = lp.Measures(looked_at, {"mean": "", "edge": ""})


@pytest.fixture(autouse=True)
def spied():
    with elsewhere():
        yield


@pytest.fixture
def generator():
    return lively(GeneratorNetwork(32, 6, 4), "gan").but(measures=MEASURES).to("spy")


def test_the_spy_refuses_what_a_gpu_refuses(generator):
    with pytest.raises(Mixture):
        generator.module(torch.zeros(2, 6))
    with pytest.raises((RuntimeError, TypeError)):
        torch.zeros(3, device="spy").numpy()
    with pytest.raises(Mixture):
        torch.zeros(3, device="spy") + torch.zeros(3)
    with pytest.raises(Mixture):
        torch.randn(3, device="spy", generator=torch.Generator())
    assert (torch.ones(3, device="spy") + 1).cpu().sum() == 6 and generator.device.type == "spy"


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_finds_directions(method, generator, tmp_path):
    z = generator.draw(32, 0)
    columns = pd.DataFrame(z[:, :2].numpy() + 0.1, columns=["a", "b"])
    known = (z if method == "pca-encoded" else (z, columns)) if "known" in METHODS[method].needs else None
    settings = DiscoverySettings(steps=3, batch=4, reconstructor="lenet") if "settings" in METHODS[method].needs else None
    found = discover(generator, method, 2, known=known, settings=settings)
    assert found.matrix.device.type == "cpu" and torch.isfinite(found.matrix).all()
    assert lp.respond(generator, found, samples=8).table(0, 10)["effect"].notna().any()


def test_what_is_asked_of_a_generator(generator, tmp_path):
    directions = lp.Directions(torch.eye(6)[:2])
    placed = lp.random_sets(generator, k=2, times=2, sets=20, samples=8)
    lp.name(generator, directions, lp.respond(generator, directions, samples=8), chance=placed)
    distinct(generator, directions)
    image_changes(generator, directions)
    recoverability(generator, directions, steps=3, seeds=(0,), pairs=64)
    lp.score(generator, directions, steps=3)
    steering = lp.fit_steering(generator, samples=600)
    lp.steer(generator, generator.draw(3, 0), {steering.can_move[0]: 0.5}, steering=steering)
    lp.strips(generator, directions)
    lp.gif(generator, directions, tmp_path / "a.gif", frames=3)
    lp.share({"own": (generator, directions)}, tmp_path / "a.html", live=False, frames=3, slices=1)
    put = lp.invert(generator, generator.images(generator.draw(2, 1)), steps=3)
    lp.edit(generator, directions, put, 0, 1.0)


def test_trainings_and_searches(dataset):
    slices = open_dataset(dataset)
    small = dict(size=32, latent_dim=6, width=4, batch=4, steps=2)
    for training in (GANTraining(slices, GANSettings(**small), "spy"), VAETraining(slices, VAESettings(**small), "spy")):
        for index in range(2):
            assert np.isfinite(list(training.step(index).values())).all()
        training.load_state_dict(training.state_dict())
    vae = training.vae.eval()
    held_out = open_dataset(dataset, "test")
    assert encode(vae, held_out.tensor())[0].shape[1] == 6
    generator = lively(VAE(32, 6, 4).decoder).to("spy")
    invert_by_encoder(vae, generator, held_out.tensor(), CT, steps=2)
    search = Discovery(generator, DiscoverySettings(n_directions=2, batch=4, steps=2))
    search.step(0)
    search.accuracy()
    images = generator.images(generator.draw(8, 0))
    neighbours(images, slices.tensor()[:16], held_out.tensor()[:8], CT)


def test_the_notebooks_run_there(tmp_path, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    run_notebooks("smoke", "tiny", TINY, outputs=tmp_path, names=SINGLE[:1])
    monkeypatch.setattr(MachineSettings, "chosen", "spy")
    for name in (*SINGLE[1:], "08_your_own_generator"):
        space: dict = {"display": display}
        for number, cell in enumerate(nbformat.read(source_of(name), 4).cells):
            if cell.cell_type == "code":
                exec(compile(cell.source, f"{name}, cell {number}", "exec"), space)
            if "parameters" in cell.metadata.get("tags", []):
                space |= {"profile": "smoke", "run": "tiny", "outputs": str(tmp_path)} | {k: v for k, v in TINY.items() if k in space}
    assert json.loads((tmp_path / "tiny" / "run.json").read_text())["06_quantitative_analysis"]["device"] == "spy"
