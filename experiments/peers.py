"""Other people's released code and ours on the same GAN and VAE of real chest CT. python -m experiments.peers CLONES TRAININGS DATA

CLONES holds clones of julschoen/Latent-Space-Exploration-CT, chi0tzp/WarpedGANSpace and harskish/ganspace, each under that name with
"+" for "/"; none of their code is here. TRAININGS and DATA are the folders of experiments.trainings. Each runs as it was released, but
that logging to TensorBoard is left out and what NumPy has renamed since has its old name; with the same K, steps and batch. Writes
outputs/reference/trainings/peers.csv: seconds, and the mean over seven factors of selectivity and |r| of the best direction or path.
"""

import importlib
import os
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch
from torch import nn

import lpdirs as lp
from experiments.trainings import OUT, STARTS, STEPS, K
from lpdirs.base.files import read_json
from lpdirs.data.store import open_dataset
from lpdirs.discovery.methods import discover
from lpdirs.discovery.objective import DiscoverySettings
from lpdirs.measures.thorax import fit_z
from lpdirs.models.files import load_generator
from lpdirs.scores.response import Responses, cross_fitted, respond, spread_of

SHIFTS, BATCH, TINY = (-4.0, -2.0, 0.0, 2.0, 4.0), 32, 0.25  # units of z; TINY is a step of a bent path


class Model(nn.Module):
    """A generator as both of the released trainers ask for it."""

    def __init__(self, generator: lp.Generator):
        super().__init__()
        self.module, self.dim_z = generator.module, generator.latent_dim

    def forward(self, z: torch.Tensor, shift: torch.Tensor | None = None) -> torch.Tensor:
        return self.module((z if shift is None else z + shift.reshape(z.shape)).flatten(1))

    def gen_shifted(self, z: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        return self(z, shift)


@contextmanager
def silent(*names: str, **own: types.ModuleType) -> Iterator[None]:
    """While modules of these names are there of which anything can be asked, and nothing is done."""
    made = dict(own)
    for name in names:
        made[name] = types.ModuleType(name)
        made[name].__getattr__ = lambda _: mock.MagicMock()  # type: ignore[method-assign]
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in made:
            sys.modules.pop(name, None)


def authors(folder: Path, generator: lp.Generator) -> lp.Directions:
    """The paper's own code: linear directions of unit length ("projective" there), LeNet."""
    sys.path.insert(0, str(folder))
    with silent("tensorboardX"), mock.patch.object(np, "product", np.prod, create=True):
        trainer, utils = importlib.import_module("LatentTrainer"), importlib.import_module("Models.utils")
        deform, predict = importlib.import_module("Models.Deformator"), importlib.import_module("Models.ShiftPredictor")
        d = generator.latent_dim
        params = trainer.Params(n_steps=STEPS, batch_size=BATCH, directions_count=K)
        run = trainer.Trainer(params, tempfile.mkdtemp())
        run.log = run.log_final = lambda *_: None
        matrix = deform.LatentDeformator(d, K, d, type=utils.DeformatorType.PROJECTIVE, random_init=True, bias=False)
        run.train(Model(generator), matrix, predict.LeNetShiftPredictor(K, channels=1))
    sys.path.remove(str(folder))
    columns = matrix.linear.weight.detach().T
    return lp.Directions(columns / columns.norm(dim=1, keepdim=True))


def warped(folder: Path, generator: lp.Generator) -> Callable[[torch.Tensor, int, float], torch.Tensor]:
    """WarpedGANSpace: K warpings of latent space by radial basis functions, LeNet; where z goes along one of them."""
    package = types.ModuleType("lib")
    package.__path__ = [str(folder / "lib")]  # not its __init__, which loads judges of faces
    before = Path.cwd()
    os.chdir(tempfile.mkdtemp())
    try:
        with silent("tensorboard", "torch.utils.tensorboard", lib=package):
            sets, net, train = (importlib.import_module(f"lib.{name}") for name in ("support_sets", "reconstructor", "trainer"))
            params = types.SimpleNamespace(
                tensorboard=False, support_set_lr=1e-4, reconstructor_lr=1e-4, max_iter=STEPS, batch_size=BATCH, z_truncation=None,
                num_support_sets=K, min_shift_magnitude=0.25, max_shift_magnitude=0.35, shift_in_w_space=False, lambda_cls=1.0,
                lambda_reg=0.25, log_freq=STEPS + 1, ckp_freq=STEPS + 1,
            )  # fmt: skip
            os.makedirs("experiments/wip/a")
            d = generator.latent_dim
            paths = sets.SupportSets(K, 32, d, learn_gammas=True, gamma=1 / d)
            train.Trainer(params, "a").train(Model(generator), paths, net.Reconstructor("LeNet", K, channels=1))
    finally:
        os.chdir(before)

    @torch.no_grad()
    def move(z: torch.Tensor, k: int, shift: float) -> torch.Tensor:
        mask = nn.functional.one_hot(torch.full((len(z),), k), K).float()
        for _ in range(round(abs(shift) / TINY)):
            z = z + TINY * np.sign(shift) * paths(mask, z)
        return z

    return move


def ganspace(folder: Path, generator: lp.Generator) -> lp.Directions:
    """GANSpace's principal components, of the activations of the first layer, and its regression of z on them."""
    sys.path.insert(0, str(folder))
    first = next(part for part in generator.module.modules() if isinstance(part, nn.ConvTranspose2d | nn.Conv2d | nn.Linear))
    kept: dict[str, torch.Tensor] = {}
    hook = first.register_forward_hook(lambda _, __, out: kept.update(layer=out.detach()))
    try:
        with silent("fbpca", "netdissect", "netdissect.nethook", "models", "config"):
            estimate, regress = importlib.import_module("estimators"), importlib.import_module("decomposition")
            pca, d = estimate.IPCAEstimator(K), generator.latent_dim
            torch.manual_seed(0)

            @torch.no_grad()
            def activations(z: torch.Tensor, _: str = "") -> None:
                generator.module(z)

            for _ in range(20):
                activations(torch.randn(500, d))
                pca.fit_partial(kept["layer"].flatten(1).numpy())
            components, deviation, _ = pca.get_components()
            model = types.SimpleNamespace(
                device=torch.device("cpu"),
                get_latent_dims=lambda: d,
                sample_latent=lambda n: torch.randn(n, d),
                partial_forward=activations,
            )
            regress.B = 500
            inst = types.SimpleNamespace(model=model, retained_features=lambda: kept, get_latent_dims=lambda: d)
            parts = (part.astype(np.float32) for part in (components, pca.transformer.mean_[None], deviation))
            z = regress.linreg_lstsq(*parts, inst, types.SimpleNamespace(n=10_000, layer="layer"))[0]
    finally:
        hook.remove()
        sys.path.remove(str(folder))
    matrix = torch.as_tensor(np.asarray(z)).float().reshape(len(components), d)
    return lp.Directions(matrix / matrix.norm(dim=1, keepdim=True))


def along(generator: lp.Generator, move: Callable[[torch.Tensor, int, float], torch.Tensor]) -> Responses:
    """What `lp.respond` measures, along bent paths."""
    measures, rng = generator.measures, torch.Generator().manual_seed(0)
    spread, _ = spread_of(generator, measures, measures.of(generator, generator.draw(256, rng)))
    z = generator.draw(STARTS, rng)
    values = np.stack([
        measures.of(generator, torch.cat([move(z, k, shift) for shift in SHIFTS])).to_numpy().reshape(len(SHIFTS), STARTS, -1)
        for k in range(K)
    ])  # fmt: skip
    return Responses(values, np.array(SHIFTS), spread, measures.levels, None, measures.units, measures, generator.info.fingerprint)


def main(clones: Path, trainings: Path, data: Path) -> None:
    places = {name.partition("+")[2]: clones / name for name in os.listdir(clones)}
    settings = DiscoverySettings(n_directions=K, steps=STEPS, batch=BATCH, seed=0, precision="fp32")
    about = read_json(data / "dataset.json")
    z_position = fit_z(open_dataset(data, "train"), open_dataset(data, "test"))
    measures = lp.thorax(tuple(about["window"]), about["pixel_mm"], z_position)
    rows = []
    for kind in ("gan", "vae"):
        generator = load_generator(trainings / f"{kind}-bf16-10" / "model.safetensors").but(measures=measures)
        ways = {
            "the authors' released code": lambda g=generator: authors(places["Latent-Space-Exploration-CT"], g),
            "the same here": lambda g=generator: discover(g, "reconstructor", K, seed=0, settings=settings),
            "WarpedGANSpace's released code": lambda g=generator: warped(places["WarpedGANSpace"], g),
            "GANSpace's released code": lambda g=generator: ganspace(places["ganspace"], g),
            "PCA here": lambda g=generator: discover(g, "pca", K, seed=0),
            "motion": lambda g=generator: discover(g, "motion", K, seed=0),
            "random": lambda g=generator: discover(g, "random", K, seed=0),
        }
        for name, way in ways.items():
            torch.manual_seed(0)
            np.random.seed(0)
            began = time.perf_counter()
            found = way()
            seconds = time.perf_counter() - began
            of = respond(generator, found, shifts=SHIFTS, samples=STARTS) if isinstance(found, lp.Directions) else along(generator, found)
            best = cross_fitted(of.table(0, 100))
            rows.append({"model": kind, "way": name, "seconds": seconds} | {score: best[score].iloc[0].mean() for score in best})
            print(rows[-1], flush=True)
            pd.DataFrame(rows).to_csv(OUT / "peers.csv", index=False, float_format="%.4g")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
