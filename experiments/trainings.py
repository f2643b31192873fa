"""Trainings as the unit: what each of several GANs and VAEs of real chest CT at 64 px holds, in bf16 and in fp32.

python -m experiments.trainings DATA FOLDER [--only bf16] [--seeds 10 11 12]

DATA is the demo's data set (outputs/demo/data), FOLDER keeps trainings and searches, which are resumed. Writes outputs/reference/trainings:
quality.csv, a row a training, and factors.csv, a row a training, method and factor. What is there is not made again. What was to be
tested was written down before, in experiments/preregistered.md. A training in bf16 takes a quarter of an hour on two cores, one in fp32,
with which it is compared, half of it more.
"""

import argparse
import copy
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import lpdirs as lp
from experiments.chest import Judge
from experiments.chest_figures import generator_of
from lpdirs.base.checkpoints import train
from lpdirs.base.files import read_json
from lpdirs.data.store import open_dataset
from lpdirs.discovery.closed_form import random
from lpdirs.discovery.methods import discover
from lpdirs.discovery.objective import Discovery, DiscoverySettings
from lpdirs.measures.thorax import GROUPS, fit_z
from lpdirs.models.files import fingerprint, load_generator, save_model
from lpdirs.models.training import GANTraining, VAETraining
from lpdirs.runs.settings import resolve
from lpdirs.scores.chance import against
from lpdirs.scores.inversion import invert_by_encoder
from lpdirs.scores.response import Responses, cross_fitted, respond
from lpdirs.scores.steering import fit_steering, respond_steered
from tests.notebooks.refresh import ROOT

OUT = ROOT / "outputs" / "reference" / "trainings"
K, TIMES, SETS, STARTS, SHIFTS, STEPS = 32, 20, 1000, 32, (-4.0, -2.0, 0.0, 2.0, 4.0), 1500
AMOUNTS = (-1.5, 0.0, 1.5)  # SDs by which each factor is steered


def of_group(responses: Responses, group: str) -> pd.DataFrame:
    """The table of the factors of one group, as if no other had been measured."""
    at = [i for i, name in enumerate(responses.spread.index) if name in GROUPS[group]]
    levels = {name: level for name, level in responses.levels.items() if name in GROUPS[group]}
    return replace(responses, values=responses.values[..., at], spread=responses.spread.iloc[at], levels=levels).table(0, 100)


def rows_of(kind: str, generator: lp.Generator, paper: lp.Directions, against_chance: bool) -> list[dict]:
    """A row a method, group and factor; chance and steering only where they are asked for."""
    measured = lambda directions: respond(generator, directions, shifts=SHIFTS, samples=STARTS)
    sets = {"paper": measured(paper), "motion": measured(discover(generator, "motion", K, seed=0))}
    rows = []
    if against_chance:
        d = generator.latent_dim
        matrix = torch.cat([random(d, d, 1_000_003 + i, orthonormal=True) for i in range(-(-TIMES * K // d))])[: TIMES * K]
        many = measured(lp.Directions(matrix))
    rng = np.random.default_rng(0)
    members = np.stack([rng.choice(TIMES * K, K, replace=False) for _ in range(SETS)])
    for group in ("shape", "tissue"):
        tables = {name: of_group(responses, group) for name, responses in sets.items()}
        if against_chance:
            bands = cross_fitted(of_group(many, group), members)
            for name, table in tables.items():
                found = cross_fitted(table).items()
                placed = pd.concat([against(score, best.iloc[0], bands[score], TIMES) for score, best in found], axis=1)
                rows += [{"method": name, "group": group, "factor": f} | row.to_dict() for f, row in placed.iterrows()]
        else:
            for name, table in tables.items():
                best = cross_fitted(table)
                rows += [
                    {"method": name, "group": group, "factor": f, "selectivity": best["selectivity"].iloc[0][f], "r": best["r"].iloc[0][f]}
                    for f in best["r"].columns
                ]
    return rows


def steered_rows(generator: lp.Generator) -> list[dict]:
    """A row a factor of either group, steered while all others of both hold."""
    steering = fit_steering(generator, samples=3000)
    steered, rows = respond_steered(generator, steering, amounts=AMOUNTS, samples=STARTS // 2), []
    for group in ("shape", "tissue"):
        own = of_group(steered, group)
        own = own[own["factor"] == own["direction"].map(dict(enumerate(steering.factors)))].set_index("factor")
        known = own.rename(columns={"effect": "reached"})[["selectivity", "r", "reached"]]
        rows += [{"method": "steered", "group": group, "factor": f} | row.to_dict() for f, row in known.iterrows()]
    return rows


def steer_again(data: Path, folder: Path, seeds: list[int]) -> None:
    """The steered rows of trainings that are there, by the present code."""
    slices, about = open_dataset(data, "train"), read_json(data / "dataset.json")
    measures = lp.thorax(slices.window, about["pixel_mm"], fit_z(slices, open_dataset(data, "test")), "all")
    for seed in seeds:
        for kind in ("gan", "vae"):
            which = {"model": kind, "data": "chest 64 px", "seed": seed, "precision": "bf16"}
            generator = load_generator(folder / f"{kind}-bf16-{seed}" / "model.safetensors").but(measures=measures)
            new = pd.DataFrame([which | row for row in steered_rows(generator)])
            table = pd.read_csv(OUT / "factors.csv")
            old = (table[list(which)].astype(str) == pd.Series(which).astype(str)).all(axis=1) & (table["method"] == "steered")
            pd.concat([table[~old], new], ignore_index=True).to_csv(OUT / "factors.csv", index=False, float_format="%.5g")
            print(kind, seed, new.groupby("group")[["selectivity", "reached"]].mean().round(3).to_dict(), flush=True)


def main(data: Path, folder: Path, precisions: list[str], seeds: list[int]) -> None:
    slices, held_out = open_dataset(data, "train"), open_dataset(data, "test")
    about, profile = read_json(data / "dataset.json"), resolve("demo", {})
    z_position = fit_z(slices, held_out)
    measures = lp.thorax(slices.window, about["pixel_mm"], z_position, "all")
    judge = Judge(slices, held_out, lp.thorax(slices.window, about["pixel_mm"], z_position))
    OUT.mkdir(parents=True, exist_ok=True)
    kept = {name: OUT / f"{name}.csv" for name in ("quality", "factors")}
    tables = {name: pd.read_csv(path) if path.exists() else pd.DataFrame({"model": []}) for name, path in kept.items()}
    for precision in precisions:
        for seed in seeds:
            for kind in ("gan", "vae"):
                which = {"model": kind, "data": "chest 64 px", "seed": seed, "precision": precision}
                done = tables["quality"]
                if len(done) and (done[list(which)].astype(str) == pd.Series(which).astype(str)).all(axis=1).any():
                    continue
                own = profile.gan if kind == "gan" else profile.vae
                settings = own.but(seed=seed, precision=precision, size=slices.size)
                training = GANTraining(slices, settings) if kind == "gan" else VAETraining(slices, settings)
                place = folder / f"{kind}-{precision}-{seed}"
                began = time.time()
                history = train(training, settings.steps or 0, place, training.identity(about["fingerprint"]))
                seconds = time.time() - began
                model = training.average.module if kind == "gan" else copy.deepcopy(training.vae).eval()
                shape = {"size": settings.size, "latent_dim": settings.latent_dim, "width": settings.width}
                said = {"window": list(slices.window), "pixel_mm": about["pixel_mm"], "model": kind}
                save_model(model, place / "model.safetensors", "dcgan" if kind == "gan" else "vae", said, **shape)
                generator = load_generator(place / "model.safetensors").but(measures=measures)
                last = pd.DataFrame(history).tail(len(history) // 10).mean().add_prefix("loss, last tenth: ").to_dict()
                row = which | {"seconds": seconds} | last | judge.samples(generator)
                if kind == "vae":
                    put = invert_by_encoder(model, generator_of(model, settings.latent_dim), held_out.tensor(), held_out.window)
                    row |= {"error": put.error.mean(), "ssim": put.ssim.mean()}
                search = Discovery(generator, DiscoverySettings(n_directions=K, seed=seed, precision=precision, steps=STEPS))
                train(search, STEPS, place / "search", search.identity())
                row |= {"kappa": (search.accuracy() - 1 / K) / (1 - 1 / K), "weights": fingerprint(place / "model.safetensors")}
                found = rows_of(kind, generator, search.directions(), precision == "bf16")
                factors = [which | one for one in [*found, *(steered_rows(generator) if precision == "bf16" else [])]]
                for name, new in (("factors", factors), ("quality", [row])):
                    tables[name] = pd.concat([tables[name], pd.DataFrame(new)], ignore_index=True)
                    tables[name].to_csv(kept[name], index=False, float_format="%.5g")
                print(*which.values(), f"{seconds:.0f} s, in all {time.time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", default=["bf16", "fp32"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[10, 11, 12])
    parser.add_argument("--steer-again", action="store_true", help="make the steered rows of these trainings again, and nothing else")
    given = parser.parse_args()
    if given.steer_again:
        steer_again(given.data, given.folder, given.seeds)
    else:
        main(given.data, given.folder, given.only, given.seeds)
