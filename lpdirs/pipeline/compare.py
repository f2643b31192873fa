"""Every way of finding directions, on every generator of some runs, scored alike: `python -m lpdirs compare`."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from lpdirs.analysis.comparison import score_set, subject
from lpdirs.analysis.zposition import fit_z
from lpdirs.cluster import cores
from lpdirs.data.store import open_dataset
from lpdirs.discovery.collection import GENERATORS
from lpdirs.discovery.methods import discover
from lpdirs.discovery.objective import DiscoverySettings
from lpdirs.errors import MissingInput, UserError
from lpdirs.files import write_atomic
from lpdirs.generative.generators import load_generator, load_model
from lpdirs.runs import fingerprint, project_root, read_log

# A and R trained together; what differs from the run's own settings of notebook 04, with a LeNet R where nothing is said
LEARNED = {
    "unit": {},
    "orthonormal": {"basis": "orthonormal"},
    "unit, K 100": {"n_directions": 100},
    "unit, ResNet-18": {"reconstructor": "resnet18-native"},
}
CLOSED = ("pca", "pca-encoded", "sefa", "jacobian", "coordinate", "random", "oracle")
KEYS = ("run", "generator", "method", "weights")


def compare(
    runs: list[str],
    methods: list[str] | None = None,
    outputs: Path | None = None,
    report: Callable[[str], None] = print,
    samples: int = 128,
) -> pd.DataFrame:
    """Score all methods (or some) on the generators of `runs`; rows go to outputs/<run>/analysis/comparison.csv as they are made.

    Rows that are there already, of the same weights, are not made again. Each run's own seed is used throughout, so that runs
    of different seeds give intervals over whole pipelines: training, discovery and scoring.
    """
    torch.set_num_threads(cores())
    wanted = methods or [*LEARNED, *CLOSED]
    unknown = sorted(set(wanted) - {*LEARNED, *CLOSED})
    if unknown:
        raise UserError(f"unknown method {', '.join(unknown)}: choose some of {', '.join((*LEARNED, *CLOSED))}")
    folders = [(outputs or project_root() / "outputs") / run for run in runs]
    return pd.concat([_compare_run(folder, wanted, report, samples) for folder in folders], ignore_index=True)


def _compare_run(folder: Path, wanted: list[str], report: Callable[[str], None], samples: int) -> pd.DataFrame:
    log = read_log(folder).get("04_discover_directions")
    if log is None:
        raise MissingInput(f"run {folder.name!r} has no directions yet: python -m lpdirs run --run {folder.name}")
    data, seed, s = json.loads((folder / "data" / "dataset.json").read_text()), log["seed"], log["settings"]
    train, test = (open_dataset(folder / "data", split) for split in ("train", "test"))
    z_position = fit_z(train, test, seed=seed)
    path = folder / "analysis" / "comparison.csv"
    path.parent.mkdir(exist_ok=True)
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    for name in s["generators"]:
        weights = folder / GENERATORS[name]
        generator, metadata = load_generator(weights)
        about = None
        for label in wanted:
            key = dict(zip(KEYS, (folder.name, name, label, fingerprint(weights)), strict=True))
            if any(all(row[k] == v for k, v in key.items()) for row in rows) or (label == "pca-encoded" and name != "vae"):
                continue
            about = about or subject(generator, generator.latent_dim, tuple(metadata["window"]), data["pixel_mm"], z_position, seed=seed)
            began = time.perf_counter()
            directions = _find(label, generator, about, s, seed, weights, train)
            taken = time.perf_counter() - began
            row = score_set(about, directions, samples, seed=seed)
            rows.append(key | {"seed": seed, "K": len(directions), "seconds_to_find": round(taken, 2)} | row)
            frame = pd.DataFrame(rows)
            write_atomic(path, lambda partial, frame=frame: frame.to_csv(partial, index=False, float_format="%.5g"))
            report(
                f"{folder.name} {name} {label}: {row['found']} of 5 factors found, selectivity {row['selectivity']:.2f}, "
                f"kappa {row['kappa']:.2f}, {time.perf_counter() - began:.0f} s"
            )
    frame = pd.DataFrame(rows)
    return frame[frame["method"].isin(wanted)]


def _find(label, generator, about, s, seed, weights, train):
    if label in LEARNED:
        known = DiscoverySettings(
            n_directions=s["n_directions"], basis=s["basis"], reconstructor=s["reconstructor"], batch=s["direction_batch"],
            lr_directions=s["lr_directions"], lr_reconstructor=s["lr_reconstructor"], shift_scale=s["shift_scale"],
            min_shift=s["min_shift"], shift_weight=s["shift_weight"],
        )  # fmt: skip
        settings = replace(known, **({"basis": "unit", "reconstructor": "lenet"} | LEARNED[label]))
        return discover(generator, "reconstructor", settings.n_directions, seed=seed, settings=settings, steps=s["direction_steps"])
    encoded = None
    if label == "pca-encoded":
        vae, _ = load_model(weights)
        with torch.no_grad():
            encoded = torch.cat([vae.encoder(x)[0] for x in train.tensor().split(128)])
    return discover(
        generator, label, min(s["n_directions"], generator.latent_dim), seed=seed, encoded=encoded, factors=(about.z, about.factors)
    )
