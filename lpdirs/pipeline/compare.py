"""Every way of finding directions, on every generator of some runs, scored alike: `python -m lpdirs compare`."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pandas as pd
import torch

from lpdirs.analysis.comparison import Subject, score_set, subject
from lpdirs.analysis.zposition import fit_z
from lpdirs.cluster import cluster, cores, each
from lpdirs.data.store import Slices, open_dataset
from lpdirs.discovery.collection import GENERATORS
from lpdirs.discovery.directions import Directions
from lpdirs.discovery.methods import discover
from lpdirs.discovery.objective import DiscoverySettings
from lpdirs.errors import MissingInput, UserError
from lpdirs.files import write_atomic
from lpdirs.generative.generators import load_generator, load_model
from lpdirs.generative.training import encode
from lpdirs.runs import fingerprint, load_profile, project_root, read_log

# A and R trained together; what differs from the run's own settings of notebook 04, with a LeNet R where nothing is said
LEARNED = {
    "unit": {},
    "orthonormal": {"basis": "orthonormal"},
    "unit-100": {"n_directions": 100},
    "unit-resnet18": {"reconstructor": "resnet18-native"},
}
CLOSED = ("pca", "pca-encoded", "sefa", "jacobian", "coordinate", "random", "oracle")


def compare(
    runs: list[str],
    methods: list[str] | None = None,
    outputs: Path | None = None,
    samples: int = 64,
    workers: int | None = None,
    scheduler: str | None = None,
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Score all methods (or some) on the generators of `runs`; rows go to outputs/<run>/analysis/comparison.csv as they are made.

    Rows that are there already, of the same weights, are not made again. Each run's own seed is used throughout, so that runs
    of different seeds give intervals over whole pipelines: training, discovery and scoring. The rows are spread over `workers`
    processes (default: one a core), or over the Dask cluster at `scheduler`.
    """
    wanted = methods or [*LEARNED, *CLOSED]
    unknown = sorted(set(wanted) - {*LEARNED, *CLOSED})
    if unknown:
        raise UserError(f"unknown method {', '.join(unknown)}: choose some of {', '.join((*LEARNED, *CLOSED))}")
    folders = [((outputs or project_root() / "outputs") / run).resolve() for run in runs]
    tables = {folder: _read(folder) for folder in folders}
    todo = [(folder, name, label, samples) for folder in folders for name, label in _missing(folder, wanted, tables[folder])]
    threads = torch.get_num_threads()
    with cluster(min(workers or cores(), max(len(todo), 1)), scheduler) as client:
        for number, (folder, row, seconds) in enumerate(each(client, score_one, todo), 1):
            tables[folder].append(row)
            frame, path = pd.DataFrame(tables[folder]), folder / "analysis" / "comparison.csv"
            path.parent.mkdir(exist_ok=True)
            write_atomic(path, lambda partial, frame=frame: frame.to_csv(partial, index=False, float_format="%.5g"))
            report(
                f"{number} of {len(todo)}: {folder.name} {row['generator']} {row['method']}: {row['found']} of 5 factors found, "
                f"selectivity {row['selectivity']:.2f}, kappa {row['kappa']:.2f}, {seconds:.0f} s"
            )
    torch.set_num_threads(threads)
    rows = pd.DataFrame([row for folder in folders for row in tables[folder]])
    rows = rows[rows["method"].isin(wanted)]
    return rows.sort_values(
        ["generator", "method", "seed"], key=lambda c: c.map(wanted.index) if c.name == "method" else c, ignore_index=True
    )


def _read(folder: Path) -> list[dict]:
    path = folder / "analysis" / "comparison.csv"
    return pd.read_csv(path).to_dict("records") if path.exists() else []


def _missing(folder: Path, wanted: list[str], rows: list[dict]) -> list[tuple[str, str]]:
    settings, _ = _settings(folder)
    done = {(row["generator"], row["method"], row["weights"]) for row in rows}
    names = {name: fingerprint(folder / GENERATORS[name]) for name in settings["generators"]}
    pairs = [(name, label) for name in names for label in wanted if label != "pca-encoded" or name == "vae"]
    return [(name, label) for name, label in pairs if (name, label, names[name]) not in done]


def _settings(folder: Path) -> tuple[dict, int]:
    """What the run's notebooks were given, the profile's where they were not, and its seed."""
    log = read_log(folder)
    entries = [log[name] for name in ("02_train_gan", "03_train_vae", "04_discover_directions") if name in log]
    if not entries:
        raise MissingInput(f"run {folder.name!r} has no generators yet: python -m lpdirs run --run {folder.name}")
    settings = load_profile(entries[-1]["profile"])
    for entry in entries:
        settings |= entry["settings"]
    return settings, entries[-1]["seed"]


@lru_cache(maxsize=2)
def _open(folder: Path, name: str) -> tuple[Subject, Slices, dict, int]:
    settings, seed = _settings(folder)
    data = json.loads((folder / "data" / "dataset.json").read_text())
    train, test = (open_dataset(folder / "data", split) for split in ("train", "test"))
    generator, metadata = load_generator(folder / GENERATORS[name])
    z_position = fit_z(train, test, seed=seed)
    about = subject(generator, generator.latent_dim, tuple(metadata["window"]), data["pixel_mm"], z_position, seed=seed)
    return about, train, settings, seed


def score_one(folder: Path, name: str, label: str, samples: int) -> tuple[Path, dict, float]:
    """The row of one method on one generator of one run, and the seconds that it took.

    By one thread, since training ends elsewhere with another number of them: the row is the same whoever computes it.
    """
    torch.set_num_threads(1)
    began = time.perf_counter()
    about, train, s, seed = _open(folder, name)
    weights = folder / GENERATORS[name]
    directions, seconds = _find(label, about, s, seed, weights, train)
    row = score_set(about, directions, samples, seed=seed)
    key = {"run": folder.name, "generator": name, "method": label, "weights": fingerprint(weights), "seed": seed}
    return folder, key | {"K": len(directions), "seconds_to_find": round(seconds, 2)} | row, time.perf_counter() - began


def _find(label: str, about: Subject, s: dict, seed: int, weights: Path, train: Slices) -> tuple[Directions, float]:
    generator, encoded, began = about.generator, None, time.perf_counter()
    if label in LEARNED:
        known = DiscoverySettings(
            n_directions=s["n_directions"], batch=s["direction_batch"], lr_directions=s["lr_directions"],
            lr_reconstructor=s["lr_reconstructor"], shift_scale=s["shift_scale"], min_shift=s["min_shift"], shift_weight=s["shift_weight"],
        )  # fmt: skip
        settings = replace(known, **LEARNED[label])
        found = discover(generator, "reconstructor", settings.n_directions, seed=seed, settings=settings, steps=s["direction_steps"])
        return found, time.perf_counter() - began
    if label == "pca-encoded":
        encoded = encode(load_model(weights)[0], train.tensor())[0]
    k = min(s["n_directions"], generator.latent_dim)
    found = discover(generator, label, k, seed=seed, encoded=encoded, factors=(about.z, about.factors))
    return found, time.perf_counter() - began
