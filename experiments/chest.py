"""The models of real chest CT in outputs/reference/chest: judged on held-out patients, directions placed against chance, figures.

python -m experiments.chest DATA [TRAININGS]

DATA is the data set of chest_ct at 128 px (notebook 01 with the profile chest). What is in outputs/reference/chest already is not done
again: delete a table to have it made anew. TRAININGS is for other models: a folder of gan0..2 and vae0..2 (.safetensors), directions/, and
trainings/ with what was kept of each training on its way (.pt: kind, settings, steps, seconds, weights). Without it the shipped models are
judged again; what came of the others, over_training.csv and four rows of quality.csv, is kept.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import ks_2samp

import lpdirs as lp
from experiments.chest_figures import (
    MOVED,
    OUT,
    REFINED,
    SHIFT,
    K,
    edited,
    front,
    generator_of,
    inverted,
    learning,
    results,
    samples,
    volume,
)
from experiments.release import copy_slices
from lpdirs.base.files import read_json
from lpdirs.data.store import Slices, open_dataset, to_hu
from lpdirs.discovery.curved import LatentPath, fit_path
from lpdirs.discovery.directions import Directions
from lpdirs.measures.anatomy import measure
from lpdirs.measures.inner import inner
from lpdirs.measures.measures import Measures, ct
from lpdirs.measures.thorax import fit_z, known_z
from lpdirs.models.files import load_generator, load_model
from lpdirs.models.networks import VAE, GeneratorNetwork
from lpdirs.models.training import encode
from lpdirs.runs.records import digest_of, write_log
from lpdirs.scores import third_dimension as third
from lpdirs.scores.chance import Chance, open_chance, random_sets
from lpdirs.scores.inversion import edit, invert, invert_by_encoder
from lpdirs.scores.naming import Rules
from lpdirs.scores.realism import features, kernel_distance, neighbours
from lpdirs.scores.response import best_directions, respond
from lpdirs.show.plots import set_style

SHIPPED = {"gan": "gan0", "vae": "vae2"}
FILES = {"gan": "gan/generator.safetensors", "vae": "vae/vae.safetensors"}
TRAINED = {"gan0": "gan0-9371", "vae2": "v100s2-4561"}  # as they lie in trainings/
FOLDERS = {"01_data_preparation": "data/*", "02_train_gan": "gan/*", "03_train_vae": "vae/*", "04_discover_directions": "directions/**/*"}
KEPT = (".safetensors", ".csv", ".npy", ".json")
COMPUTED = ("motion", "jacobian", "pca", "sefa", "ica", "random")
SAMPLES = 64
OTHERS = 1  # seed of the starting slices that a chosen direction is measured on again


def once(path: Path, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table at `path`, made where it is not there."""
    if not path.exists():
        began = time.time()
        table = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(path, index=False, float_format="%.5g")
        print(f"{path.relative_to(OUT)}: {time.time() - began:.0f} s", flush=True)
    return pd.read_csv(path)


class Judge:
    """Samples against held-out patients: KID, a distance for each factor, what cannot be measured, what lies near to training slices."""

    def __init__(self, train: Slices, test: Slices, measures: Measures):
        self.extract, self.measures, self.window = features(), measures, test.window
        self.real, self.every, self.patients = test.tensor(), train.tensor(), test.table["patient"].to_numpy()
        self.held, self.known = self.extract(self.real), measures(self.real)

    def slices(self, x: torch.Tensor, patients: np.ndarray | None = None) -> dict:
        found, (distance, error) = self.measures(x), kernel_distance(self.held, self.extract(x), self.patients, patients)
        away = {f"KS {f}": ks_2samp(found[f].dropna(), self.known[f].dropna()).statistic for f in found}
        return {"KID": distance, "KID_error": error} | away | {f"lost {f}": found[f].isna().mean() for f in found}

    def samples(self, generator: lp.Generator, n: int = 500) -> dict:
        x = generator.images(generator.draw(n, 7))
        near = neighbours(x, self.every, self.real, self.window)
        return self.slices(x) | {"copied": near.copied, "ratio": near.ratio}


def quality(models: Path, train: Slices, judge: Judge) -> pd.DataFrame:
    """Each training, and training slices in its place, against held-out patients: a row each."""
    some = np.random.default_rng(0).permutation(len(train))[:400]
    rows = [{"model": "training slices"} | judge.slices(train.tensor(some), train.table["patient"].to_numpy()[some])]
    rows += [{"model": "held-out slices"} | {f"lost {f}": judge.known[f].isna().mean() for f in judge.known}]
    rows += [{"model": path.stem} | judge.samples(load_generator(path)) for path in sorted(models.glob("*.safetensors"))]
    return pd.DataFrame(rows)


def between_patients(train: Slices, test: Slices, measures: Measures, times: int = 200) -> pd.DataFrame:
    """How far real patients are from real patients: as many training patients as are held out against the others, a row a factor.

    The Kolmogorov-Smirnov distance in `times` random choices: median, and 2.5 and 97.5 percent.
    """
    known, patient = measures(train.tensor()), train.table["patient"].to_numpy()
    names, n, rng, rows = np.unique(patient), test.table["patient"].nunique(), np.random.default_rng(0), []
    for _ in range(times):
        some = np.isin(patient, rng.choice(names, n, replace=False))
        rows.append({f: ks_2samp(known[f][some].dropna(), known[f][~some].dropna()).statistic for f in known})
    return (
        pd.DataFrame(rows).quantile([0.025, 0.5, 0.975]).T.set_axis(["low", "median", "high"], axis=1).rename_axis("factor").reset_index()
    )


def over_training(trainings: Path, judge: Judge) -> pd.DataFrame:
    """The same for what was kept of each training on its way: a row each."""
    rows = []
    for path in sorted(trainings.glob("*.pt")):
        kept = torch.load(path, map_location="cpu", weights_only=False)
        made = {name: kept["settings"][name] for name in ("latent_dim", "size", "width")}
        model = (GeneratorNetwork if kept["kind"] == "gan" else VAE)(**made)
        model.load_state_dict(kept["weights"])
        generator = generator_of(model, made["latent_dim"])
        settings = {name: kept["settings"].get(name) for name in ("kl_weight", "seed")}
        rows.append({"kind": kept["kind"], "steps": kept["steps"], "seconds": kept["seconds"]} | settings | judge.samples(generator))
    return pd.DataFrame(rows).sort_values(["kind", "kl_weight", "seed", "steps"])


def put_back(train: Slices, test: Slices) -> pd.DataFrame:
    """Held-out and training slices in the models' latent spaces: error in HU and SSIM, a row a slice."""
    rows, vae, gan = [], load_model(OUT / FILES["vae"])[0], load_generator(OUT / FILES["gan"])
    for split, slices in (("training", train), ("held out", test)):
        x = slices.tensor(np.linspace(0, len(slices) - 1, 250).astype(int))
        found = {"encoder": invert_by_encoder(vae, generator_of(vae), x, slices.window)}
        if slices is test:
            found["refined"] = invert_by_encoder(vae, generator_of(vae), x, slices.window, REFINED)
        found["optimisation"] = invert(gan, x[::25], slices.window, 150, 2)
        for how, each in found.items():
            rows += [{"split": split, "how": how, "error": e, "ssim": s} for e, s in zip(each.error, each.ssim, strict=True)]
    return pd.DataFrame(rows)


def edits(test: Slices, measures: Measures, parts: dict[str, tuple]) -> pd.DataFrame:
    """Held-out slices moved along the best direction of `motion` for each factor: what changes, a row a model and factor.

    `wanted` is what the direction does on samples, `change` what it does on the slices as drawn again (mean and SD), and `right` on what
    share of them the sign is right; `other` names the factor that changes most beside it, in SDs of samples.
    """
    rows = []
    for name, (generator, sets, table) in parts.items():
        every = np.linspace(0, len(test) - 1, 250 if name == "vae" else 12).astype(int)
        put = inverted(name, generator, test, every)
        before, spread = measures(put.reconstruction), measures.of(generator, generator.draw(256, 0)).std()
        best = table[table["set"] == f"motion{K}"].set_index("factor")
        for factor in MOVED:
            k, slope = int(best["direction"][factor]), best["again_slope"][factor]
            change = measures(edit(generator, sets[f"motion{K}"], put, k, float(np.sign(slope)) * SHIFT)) - before
            one, others = change[factor].dropna(), (change.mean() / spread).abs().drop(factor)
            row = {"wanted": abs(slope) * SHIFT, "change": one.mean(), "sd": one.std(), "right": (one > 0).mean(), "slices": len(one)}
            rows.append({"model": name, "factor": factor} | row | {"own": change[factor].mean() / spread[factor]})
            rows[-1] |= {"other": others.idxmax(), "other_sd": others.max()}
    return pd.DataFrame(rows)


def kept(train: Slices, test: Slices, measures: Measures) -> pd.DataFrame:
    """What of a patient's anatomy is still there when the VAE draws the slice again: a row a factor, for training and held-out slices."""
    rows, vae = [], load_model(OUT / FILES["vae"])[0]
    for split, slices, steps in (("training", train, 0), ("held out", test, 0), ("held out, refined", test, REFINED)):
        x = slices.tensor(np.linspace(0, len(slices) - 1, min(500, len(slices))).astype(int))
        real, drawn = measures(x), measures(invert_by_encoder(vae, generator_of(vae), x, slices.window, steps).reconstruction)
        for factor in real:
            one, other = (frame[factor][real[factor].notna() & drawn[factor].notna()] for frame in (real, drawn))
            mean = (one - one.mean()).abs().mean()
            row = {"r": one.corr(other), "error": (one - other).abs().mean(), "error_of_mean": mean, "slices": len(one)}
            rows.append({"split": split, "factor": factor} | row)
    return pd.DataFrame(rows)


def chance(name: str, generator: lp.Generator, measures: Measures) -> Chance:
    path = OUT / "directions" / "chance" / f"{name}-{K}.csv"
    if not path.exists():
        began = time.time()
        path.parent.mkdir(parents=True, exist_ok=True)
        random_sets(generator, measures, K, samples=SAMPLES).save(path)
        print(f"chance {name}: {time.time() - began:.0f} s", flush=True)
    return open_chance(path, K)


def searched(name: str, generator: lp.Generator, models: Path | None) -> dict[str, Directions]:
    """All sets of K = 32: those computed now, those found in `models`/directions, and those that are here already."""
    for method in COMPUTED:
        path = OUT / "directions" / f"{name}-{method}{K}" / "directions.safetensors"
        if not path.exists():
            began = time.time()
            lp.discover(generator, method, K).save(path)
            print(f"{name} {method}: {time.time() - began:.0f} s", flush=True)
    for path in sorted((models / "directions").glob(f"{SHIPPED[name]}-*-{K}/directions.safetensors")) if models else ():
        _, reconstructor, basis, _ = path.parent.name.split("-")
        label = f"{basis}{K}-{reconstructor}"
        mine = OUT / "directions" / f"{name}-{label}" / "directions.safetensors"
        if not mine.exists():
            Directions.load(path).with_info(generator=name, generator_fingerprint=generator.info.fingerprint).save(mine)
    found = sorted((OUT / "directions").glob(f"{name}-*/directions.safetensors"))
    return {path.parent.name.removeprefix(f"{name}-"): Directions.load(path) for path in found}


def placed(name: str, sets: dict[str, Directions], generator: lp.Generator, measures: Measures) -> pd.DataFrame:
    """Each set's best direction of each factor against chance, and how many earn a name."""
    band, parts = chance(name, generator, measures), []
    rules = Rules().beyond(band)
    for label, directions in sets.items():
        folder = OUT / "directions" / f"{name}-{label}"
        if not (folder / "responses.csv").exists():
            answers = respond(generator, directions, measures, band.shifts, band.samples)
            table = answers.table()
            lp.name(generator, directions, answers, measures, chance=band).save(folder / "directions.safetensors")
            table.to_csv(folder / "responses.csv", index=False, float_format="%.5g")
        table, directions = pd.read_csv(folder / "responses.csv"), Directions.load(folder / "directions.safetensors")
        where = once(
            folder / "chance.csv",
            lambda d=directions, t=table: band.place(generator, d, measures, table=t).rename_axis("factor").reset_index(),
        )
        best = best_directions(table)
        where = where.set_index("factor").assign(missing=best["missing"], sign_consistency=best["sign_consistency"])
        again = once(folder / "again.csv", lambda d=directions, b=best: measured_again(generator, d, b["direction"], measures))
        where = where.join(again.set_index("factor").add_prefix("again_"))
        parts.append(where.reset_index().assign(set=label, names=len(directions.info.names)))
    return pd.concat(parts).assign(model=name, selectivity_needed=rules.selectivity)


def measured_again(generator: lp.Generator, directions: Directions, best: pd.Series, measures: Measures) -> pd.DataFrame:
    """Each factor's best direction from SAMPLES other starting slices than those on which it was chosen, with intervals: a row a factor."""
    chosen = best.dropna().astype(int)
    columns = sorted(set(chosen))
    table = respond(generator, Directions(directions.matrix[columns]), measures, samples=SAMPLES, seed=OTHERS).table()
    rows = table.set_index(["direction", "factor"])
    names = [f"{name}{end}" for name in ("r", "selectivity") for end in ("", "_low", "_high")]
    return pd.DataFrame({"factor": factor} | dict(rows.loc[(columns.index(k), factor), ["slope", *names]]) for factor, k in chosen.items())


def path_of(vae: VAE, train: Slices) -> LatentPath:
    """The curved path through the VAE's latent space, learned from its training patients."""
    return fit_path(encode(vae, train.tensor())[0], known_z(train.table), train.table["patient"].to_numpy())


def walks(vae: VAE, train: Slices, test: Slices, measures: Measures) -> pd.DataFrame:
    """Slices 10 to 60 mm away, predicted by the VAE from one slice of a held-out patient, in HU."""
    generator, pairs = generator_of(vae), third.pairs_of(test, (10, 20, 40, 60), starts=4)
    latent = lambda rows: encode(vae, test.tensor(rows))[0]
    inside, level = encode(vae, train.tensor())[0], known_z(train.table)
    curved = path_of(vae, train)
    straight = fit_path(inside, level, train.table["patient"].to_numpy(), knots=2)
    turned = torch.randn(inside.shape[1], generator=torch.Generator().manual_seed(0))
    turned *= torch.linalg.norm(torch.from_numpy(straight.weight[1] - straight.weight[0])) / turned.norm()
    start, end = (lambda p: p["start"].to_numpy(int)), (lambda p: p["end"].to_numpy(int))
    along = lambda path: lambda p: generator.images(path.move(latent(start(p)), p["z_start"].to_numpy(), p["z_end"].to_numpy()))
    refined = lambda p: invert_by_encoder(vae, generator, test.tensor(start(p)), test.window, steps=50).z
    far = lambda p: torch.from_numpy((p["z_end"] - p["z_start"]).to_numpy()).float()[:, None]
    methods = {
        "unchanged slice": lambda p: test.tensor(start(p)),
        "its reconstruction": lambda p: generator.images(latent(start(p))),
        "curved path": along(curved),
        "curved path, start refined": lambda p: generator.images(curved.move(refined(p), p["z_start"].to_numpy(), p["z_end"].to_numpy())),
        "straight line": along(straight),
        "random direction": lambda p: generator.images(latent(start(p)) + far(p) * turned),
        "mean slice of the level": lambda p: third.mean_slices(train, p["z_end"].to_numpy()),
        "most similar training patient": lambda p: third.most_similar(
            train, test.tensor(start(p)), p["z_start"].to_numpy(), p["z_end"].to_numpy()
        ),
        "reconstruction of the truth (floor)": lambda p: generator.images(latent(end(p))),
    }
    return third.predictions(test, pairs, methods, measures)


def record(trainings: Path | None, about: dict) -> None:
    """run.json of the folder, which `python -m lpdirs verify` reads: how the shipped models were trained, and the digests of all files."""
    gpu = {"gpu": "NVIDIA H200", "machine": "several trainings side by side on one GPU"}
    entry = lambda pattern, **more: {
        "profile": "chest_gpu",
        "files": {path.relative_to(OUT).as_posix(): digest_of(path) for path in sorted(OUT.glob(pattern)) if path.suffix in KEPT},
        **more,
    }
    if trainings is None:  # the models are those of before
        log = read_json(OUT / "run.json")
        for notebook, pattern in FOLDERS.items():
            log[notebook]["files"] = entry(pattern)["files"]
        write_log(OUT, log)
        return
    log = {
        "01_data_preparation": entry("data/*", seed=0, settings={"cohort": "chest_ct", "size": about["size"]}, results=summary_of(about))
    }
    for (kind, training), notebook in zip(SHIPPED.items(), ("02_train_gan", "03_train_vae"), strict=True):
        kept = torch.load(trainings / f"{TRAINED[training]}.pt", map_location="cpu", weights_only=False)
        results = {"steps": kept["steps"], "weights": "kept in half precision"}
        more = {"settings": kept["settings"], "seed": kept["settings"]["seed"], "seconds": round(kept["seconds"], 1), "provenance": gpu}
        log[notebook] = entry(f"{kind}/*", results=results, **more)
    log["04_discover_directions"] = entry("directions/**/*", seed=0, results={"by": "experiments/chest.py; searches.csv has the paper's"})
    write_log(OUT, log)


def roll(slices: Slices, pixel_mm: float) -> dict:
    """How far the roll of the outline is from the axis about which bones and lungs mirror best, on all slices where it is measured."""
    hu = to_hu(slices.tensor()[:, 0].numpy(), slices.window)
    measured = measure(hu, pixel_mm, ("rotation",))["rotation"].dropna()
    off = (measured - inner(hu[measured.index], pixel_mm)["axis_rotation"]).dropna()
    found = {"r": measured[off.index].corr(measured[off.index] - off), "mean": off.abs().mean(), "95 percent": off.abs().quantile(0.95)}
    return {"slices": len(off)} | {name: round(float(value), 2) for name, value in found.items()}


def summary_of(about: dict) -> dict:
    return {"slices": about["slices"], "patients": about["patients"], "splits": about["splits"], "fingerprint": about["fingerprint"]}


def main(data: Path, models: Path | None = None) -> None:
    set_style()
    train, test = (open_dataset(data, split) for split in ("train", "test"))
    about = read_json(data / "dataset.json")
    z = fit_z(train, test)
    display = ct(tuple(about["window"]))
    for name, training in SHIPPED.items() if models else ():
        path = OUT / FILES[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((models / f"{training}.safetensors").read_bytes())
    measures = lp.thorax(tuple(about["window"]), about["pixel_mm"], z)
    judge = Judge(train, test, measures)
    if models:
        once(OUT / "quality.csv", lambda: quality(models, train, judge))
        once(OUT / "over_training.csv", lambda: over_training(models / "trainings", judge))
    along = pd.read_csv(OUT / "over_training.csv")
    once(OUT / "patients.csv", lambda: between_patients(train, test, measures))
    learning(along, pd.read_csv(OUT / "quality.csv"))
    vae = load_model(OUT / FILES["vae"])[0]
    once(OUT / "third_dimension.csv", lambda: walks(vae, train, test, measures))
    volume(vae, path_of(vae, train), test)
    tables, parts = [], {}
    for name in SHIPPED:
        generator = load_generator(OUT / FILES[name])
        sets = searched(name, generator, models)
        tables.append(placed(name, sets, generator, measures))
        samples(name, generator, sets, tables[-1], display, test)
        parts[name] = generator, sets, tables[-1]
        pd.concat(tables).to_csv(OUT / "against_chance.csv", index=False, float_format="%.6g")
    front(parts, display)
    for name, (generator, sets, table) in parts.items():
        edited(name, generator, test, sets[f"motion{K}"], table, measures)
    once(OUT / "edits.csv", lambda: edits(test, measures, parts))
    results(pd.concat(tables))
    once(OUT / "inversion.csv", lambda: put_back(train, test))
    once(OUT / "kept.csv", lambda: kept(train, test, measures))
    slices = OUT / "data"
    if not slices.exists():
        copy_slices(data, slices, {"train": 200, "test": 60}, "the sample data_manifests/chest_ct")
    level = {"r": round(z.r, 3), "mean_absolute_error": round(z.error, 3), "held_out": z.held_out}
    found = {"data": summary_of(about), "z": level, "roll": roll(open_dataset(data), about["pixel_mm"])}
    (OUT / "summary.json").write_text(json.dumps(found, indent=1) + "\n")
    record(models and models / "trainings", about)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
