"""Motions that were put into real chest CT: is a factor found when it is surely there? `python -m experiments.planted DATA FOLDER`

DATA is the demo's data set (outputs/demo/data), FOLDER keeps trainings and searches, which are resumed. A GAN and a VAE are trained on
slices that are turned by up to 10 degrees, and shifted and stretched by up to a tenth each way (`augment: wide`), independently of each
other and of who the patient is; every method is then asked for these motions. Writes outputs/reference/trainings/planted.csv, a row a
model, method and factor, and planted_data.csv, how the factors spread in data and samples. Half an hour on two cores.
"""

import copy
from pathlib import Path

import pandas as pd
import torch

import lpdirs as lp
from experiments import data_and_folder
from experiments.trainings import AMOUNTS, OUT, SETS, SHIFTS, STARTS, STEPS, TIMES, K
from lpdirs.base.checkpoints import train
from lpdirs.base.files import read_json
from lpdirs.data.store import Loader, open_dataset
from lpdirs.discovery.methods import discover
from lpdirs.discovery.objective import DiscoverySettings
from lpdirs.measures.thorax import fit_z
from lpdirs.models.files import load_generator, save_model
from lpdirs.models.training import GANTraining, VAETraining
from lpdirs.runs.settings import resolve
from lpdirs.scores.chance import against
from lpdirs.scores.response import cross_fitted, respond
from lpdirs.scores.steering import fit_steering, respond_steered

PLANTED = ("rotation", "x_position", "y_position", "width", "thickness")
METHODS = ("reconstructor", "motion", "sparse", "jacobian", "pca", "sefa")
SLICES = 2000  # of which the spread of factors is measured


def trained(kind: str, slices, about: dict, place: Path) -> lp.Generator:
    """The GAN or the VAE of the demo's settings, on moved slices."""
    profile = resolve("demo", {"augment": "wide"})
    settings = (profile.gan if kind == "gan" else profile.vae).but(seed=20, size=slices.size)
    training = GANTraining(slices, settings) if kind == "gan" else VAETraining(slices, settings)
    train(training, settings.steps or 0, place, training.identity(about["fingerprint"]))
    model = training.average.module if kind == "gan" else copy.deepcopy(training.vae).eval()
    said = {"window": list(slices.window), "pixel_mm": about["pixel_mm"], "model": kind}
    shape = {"size": settings.size, "latent_dim": settings.latent_dim, "width": settings.width}
    save_model(model, place / "model.safetensors", "dcgan" if kind == "gan" else "vae", said, **shape)
    return load_generator(place / "model.safetensors")


def spread(measures: lp.Measures, sets: dict[str, torch.Tensor]) -> pd.DataFrame:
    """SD of each planted factor over sets of slices, and the share of slices on which it can be measured."""
    rows = []
    for name, slices in sets.items():
        table = measures(slices)[list(PLANTED)]
        rows += [{"slices": name, "factor": f, "sd": table[f].std(), "measured": table[f].notna().mean()} for f in PLANTED]
    return pd.DataFrame(rows)


def rows_of(kind: str, generator: lp.Generator, place: Path) -> list[dict]:
    """A row a method and factor, with what random sets of as many reach; the oracle, told the factors, and steering at the end."""
    chance = lp.random_sets(generator, k=K, sets=SETS, times=TIMES, shifts=SHIFTS, samples=STARTS)
    bands, rows = chance.best(), []
    known = generator.measures.sample(generator, 4000, 5)
    known = known[0], known[1].dropna(axis=1, how="all").interpolate(limit_direction="both")
    for method in (*METHODS, "oracle-alone"):
        settings = DiscoverySettings(n_directions=K, seed=0, steps=STEPS)
        given = {"settings": settings, "folder": place / "search"} if method == "reconstructor" else {}
        directions = discover(generator, method, K, seed=0, known=known if method == "oracle-alone" else None, **given)
        best = cross_fitted(respond(generator, directions, shifts=SHIFTS, samples=STARTS).table(0, 100))
        placed = pd.concat([against(score, one.iloc[0], bands[score], TIMES) for score, one in best.items()], axis=1)
        rows += [{"model": kind, "method": method, "factor": f} | row.to_dict() for f, row in placed.iterrows()]
        print(kind, method, placed.loc[list(PLANTED), "selectivity"].round(2).to_dict(), flush=True)
    steering = fit_steering(generator)
    table = respond_steered(generator, steering, amounts=AMOUNTS, samples=STARTS // 2).table(0, 100)
    own = table[table["factor"] == table["direction"].map(dict(enumerate(steering.factors)))].set_index("factor")
    rows += [{"model": kind, "method": "steered", "factor": f, "selectivity": r["selectivity"], "r": r["r"]} for f, r in own.iterrows()]
    return rows


def main(data: Path, folder: Path) -> None:
    slices, held_out, about = open_dataset(data, "train"), open_dataset(data, "test"), read_json(data / "dataset.json")
    measures = lp.thorax(slices.window, about["pixel_mm"], fit_z(slices, held_out))
    found, sets = [], {"as they are": Loader(slices, SLICES, 0)[0], "moved": Loader(slices, SLICES, 0, "wide")[0]}
    for kind in ("gan", "vae"):
        generator = trained(kind, slices, about, folder / kind).but(measures=measures)
        sets[kind] = generator.images(generator.draw(SLICES, 0))
        found += rows_of(kind, generator, folder / kind)
        pd.DataFrame(found).to_csv(OUT / "planted.csv", index=False, float_format="%.5g")
    spread(measures, sets).to_csv(OUT / "planted_data.csv", index=False, float_format="%.5g")
    table = pd.DataFrame(found).query("factor in @PLANTED")
    print(table.pivot_table(index=["model", "method"], columns="factor", values="selectivity").round(2).to_string())


if __name__ == "__main__":
    main(*data_and_folder(__doc__))
