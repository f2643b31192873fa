"""The models of real chest CT in outputs/reference/chest: judged on held-out patients, directions placed against chance, figures.

python -m tests.chest FOLDER DATA      FOLDER holds gan0..2 and vae0..2 (.safetensors) and directions/, DATA the data set of chest_ct

What is in outputs/reference/chest already is not done again: delete a table to have it made anew.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.stats import ks_2samp
from torch import nn

import lpdirs as lp
from lpdirs.base.files import read_json
from lpdirs.data.store import Slices, open_dataset, to_hu
from lpdirs.discovery.directions import Directions
from lpdirs.measures.display import ct
from lpdirs.measures.measures import Measures
from lpdirs.measures.thorax import UNITS as OF_DATA
from lpdirs.measures.zposition import fit_z, known_z
from lpdirs.models.files import load_generator, load_model
from lpdirs.models.generators import draw_z, generate, info_of, typical_z
from lpdirs.models.training import encode
from lpdirs.scores import third_dimension as third
from lpdirs.scores.chance import Chance, open_chance, random_sets
from lpdirs.scores.inversion import edit, invert, invert_by_encoder
from lpdirs.scores.realism import features, kernel_distance, neighbours
from lpdirs.scores.response import best_directions, respond
from lpdirs.show.marking import save_figure
from lpdirs.show.plots import contact_sheet, film_strips, set_style, shift_heads, strip
from tests.notebooks.refresh import ROOT
from tests.release import copy_slices

OUT = ROOT / "outputs" / "reference" / "chest"
SHIPPED = {"gan": "gan0", "vae": "vae2"}
FILES = {"gan": "gan/generator.safetensors", "vae": "vae/vae.safetensors"}
COMPUTED = ("motion", "jacobian", "pca", "sefa", "ica", "random")
SAMPLES, K = 24, 32
UNITS = OF_DATA | {"z_position": "of the lungs' extent"}  # of real series
MODELS = {"gan": "GAN", "vae": "VAE"}
WORDS = {
    "rotation": "body rotation", "breast": "breast size", "thickness": "body thickness", "y_position": "y-position",
    "z_position": "z-position", "x_position": "x-position", "width": "body width",
}  # fmt: skip


def once(path: Path, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table at `path`, made where it is not there."""
    if not path.exists():
        began = time.time()
        table = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(path, index=False, float_format="%.5g")
        print(f"{path.relative_to(OUT)}: {time.time() - began:.0f} s", flush=True)
    return pd.read_csv(path)


def quality(models: Path, train: Slices, test: Slices, measures: Measures, n: int = 500) -> pd.DataFrame:
    """Each training, and training slices in its place, against held-out patients: a row each."""
    extract, real, every = features(), test.tensor(), train.tensor()
    window, held, known = test.window, extract(real), measures(real)
    some = train.tensor(np.random.default_rng(0).permutation(len(train))[:400])

    def judged(name: str, x: torch.Tensor, **more: float) -> dict:
        found, (distance, error) = measures(x), kernel_distance(extract(x), held)
        away = {f"KS {f}": ks_2samp(found[f].dropna(), known[f].dropna()).statistic for f in known}
        lost = {f"lost {f}": found[f].isna().mean() for f in known}
        return {"model": name, "KID": distance, "KID_error": error} | more | away | lost

    rows = [judged("training slices", some), {"model": "held-out slices"} | {f"lost {f}": known[f].isna().mean() for f in known}]
    for path in sorted(models.glob("*.safetensors")):
        x = generate(load_generator(path), draw_z(load_generator(path), n, 7))
        near = neighbours(x, every, real, window)
        rows.append(judged(path.stem, x, copied=near.copied, ratio=near.ratio))
    return pd.DataFrame(rows)


def put_back(train: Slices, test: Slices) -> pd.DataFrame:
    """Held-out and training slices in the models' latent spaces: error in HU and SSIM, a row a slice."""
    rows, vae, gan = [], load_model(OUT / FILES["vae"])[0], load_generator(OUT / FILES["gan"])
    for split, slices in (("training", train), ("held out", test)):
        x = slices.tensor(np.linspace(0, len(slices) - 1, 250).astype(int))
        found = {"encoder": invert_by_encoder(vae, x, slices.window), "optimisation": invert(gan, x[::25], slices.window, 150, 2)}
        for how, each in found.items():
            rows += [{"split": split, "how": how, "error": e, "ssim": s} for e, s in zip(each.error, each.ssim, strict=True)]
    return pd.DataFrame(rows)


def chance(name: str, generator: nn.Module, measures: Measures) -> Chance:
    path = OUT / "directions" / "chance" / f"{name}-{K}.csv"
    if not path.exists():
        began = time.time()
        path.parent.mkdir(parents=True, exist_ok=True)
        random_sets(generator, measures, K, samples=SAMPLES).save(path)
        print(f"chance {name}: {time.time() - began:.0f} s", flush=True)
    return open_chance(path, K)


def searched(models: Path, name: str, generator: nn.Module) -> dict[str, Directions]:
    """All sets of K = 32: those computed now, and those found before in `models`/directions."""
    sets = {}
    for method in COMPUTED:
        path = OUT / "directions" / f"{name}-{method}{K}" / "directions.safetensors"
        if not path.exists():
            began = time.time()
            lp.discover(generator, method, K).save(path)
            print(f"{name} {method}: {time.time() - began:.0f} s", flush=True)
        sets[f"{method}{K}"] = Directions.load(path)
    for path in sorted((models / "directions").glob(f"{SHIPPED[name]}-*-{K}/directions.safetensors")):
        _, reconstructor, basis, _ = path.parent.name.split("-")
        label = f"{basis}{K}-{reconstructor}"
        mine = OUT / "directions" / f"{name}-{label}" / "directions.safetensors"
        if not mine.exists():
            Directions.load(path).with_info(generator=name, generator_fingerprint=info_of(generator).fingerprint).save(mine)
        sets[label] = Directions.load(mine)
    return sets


def placed(name: str, sets: dict[str, Directions], generator: nn.Module, measures: Measures) -> pd.DataFrame:
    """Each set's best direction of each factor against chance, and how many earn a name."""
    band, parts = chance(name, generator, measures), []
    rules = band.rules()
    for label, directions in sets.items():
        folder = OUT / "directions" / f"{name}-{label}"
        if not (folder / "responses.csv").exists():
            answers = respond(generator, directions, measures, band.shifts, band.samples)
            table = answers.table()
            best = best_directions(table).dropna(subset=["direction"])
            named = lp.name(generator, directions, answers, measures, rules)
            named.with_info(best_for={int(row.direction): str(factor) for factor, row in best.iterrows()}).save(
                folder / "directions.safetensors"
            )
            table.to_csv(folder / "responses.csv", index=False, float_format="%.5g")
        table, directions = pd.read_csv(folder / "responses.csv"), Directions.load(folder / "directions.safetensors")
        where = once(
            folder / "chance.csv",
            lambda d=directions, t=table: band.place(generator, d, measures, table=t).rename_axis("factor").reset_index(),
        )
        best = best_directions(table)
        where = where.set_index("factor")
        for column in ("slope", "missing", "sign_consistency", "r_low", "r_high", "selectivity_low", "selectivity_high"):
            where[column] = best[column]
        where["r"] = best["r"]
        parts.append(where.reset_index().assign(set=label, names=len(directions.info.names)))
    return pd.concat(parts).assign(model=name, selectivity_needed=rules.selectivity)


def walks(train: Slices, test: Slices, measures: Measures) -> pd.DataFrame:
    """Slices 10 to 60 mm away, predicted by the VAE from one slice of a held-out patient, in HU."""
    vae = load_model(OUT / FILES["vae"])[0]
    pairs = third.pairs_of(test, (10, 20, 40, 60), starts=4)
    latent = lambda rows: encode(vae, test.tensor(rows))[0]
    inside, level = encode(vae, train.tensor())[0], known_z(train.table)
    curved = third.fit_path(inside, level, train.table["patient"].to_numpy())
    straight = third.fit_path(inside, level, train.table["patient"].to_numpy(), knots=2)
    turned = torch.randn(inside.shape[1], generator=torch.Generator().manual_seed(0))
    turned *= torch.linalg.norm(torch.from_numpy(straight.weight[1] - straight.weight[0])) / turned.norm()
    start, end = (lambda p: p["start"].to_numpy(int)), (lambda p: p["end"].to_numpy(int))
    along = lambda path: lambda p: generate(vae.decoder, path.move(latent(start(p)), p["z_start"].to_numpy(), p["z_end"].to_numpy()))
    far = lambda p: torch.from_numpy((p["z_end"] - p["z_start"]).to_numpy()).float()[:, None]
    methods = {
        "staying put": lambda p: test.tensor(start(p)),
        "its own reconstruction, staying put": lambda p: generate(vae.decoder, latent(start(p))),
        "curved path": along(curved),
        "straight direction": along(straight),
        "random direction": lambda p: generate(vae.decoder, latent(start(p)) + far(p) * turned),
        "mean slice of the level": lambda p: third.mean_slices(train, p["z_end"].to_numpy()),
        "reconstruction of the truth (floor)": lambda p: generate(vae.decoder, latent(end(p))),
    }
    return third.predictions(test, pairs, methods, measures)


def path_of(train: Slices) -> third.ZPath:
    vae = load_model(OUT / FILES["vae"])[0]
    return third.fit_path(encode(vae, train.tensor())[0], known_z(train.table), train.table["patient"].to_numpy())


def volume(train: Slices, test: Slices) -> None:
    """One held-out patient: the chest, each slice drawn again, and the whole chest predicted from its middle slice."""
    vae, path, table = load_model(OUT / FILES["vae"])[0], path_of(train), test.table
    level = known_z(table)
    patient = table[np.isfinite(level)].groupby("patient").size().idxmax()
    rows = np.flatnonzero((table["patient"] == patient).to_numpy() & np.isfinite(level))
    known = pd.read_csv(ROOT / "data_manifests" / "chest_ct" / "patients.csv", dtype=str).set_index("patient")
    collection = known.loc[patient, "collection"]
    z, x, mm = level[rows], test.tensor(rows), table["z_mm"].to_numpy()[rows]
    pixel = float(table["pixel_mm"].to_numpy()[rows][0]) if "pixel_mm" in table else 2.99
    latents, middle = encode(vae, x)[0], int(np.abs(z - np.median(z)).argmin())
    walked = path.move(latents[middle].expand(len(z), -1), np.full(len(z), z[middle]), z)
    stacks = {
        f"a patient of {collection}": x,
        "each slice drawn again by the VAE": generate(vae.decoder, latents),
        "predicted from the one slice at the line": generate(vae.decoder, walked),
    }
    cuts = {k: third.reformat(to_hu(v[:, 0].numpy(), test.window), z, float(np.ptp(mm)), pixel) for k, v in stacks.items()}
    fig, axes = plt.subplots(2, 3, figsize=(9.5, 3.3), layout="constrained")
    for column, (title, both) in zip(axes.T, cuts.items(), strict=True):
        for ax, cut, plane in zip(column, both, ("coronal", "sagittal"), strict=True):
            image = ax.imshow(cut, cmap="gray", vmin=-1000, vmax=600)
            at = (z[middle] - z.min()) / np.ptp(z) * (len(cut) - 1)
            ax.axhline(at, color="C1", lw=0.8, ls=":")
            ax.plot([4, 4 + 100 / pixel], [len(cut) - 5] * 2, color="w", lw=2)
            ax.text(4 + 50 / pixel, len(cut) - 7, "100 mm", color="w", ha="center", va="bottom", fontsize=7)
            ax.axis("off")
            if title.startswith("a patient"):
                ax.text(-0.03, 0.5, plane, transform=ax.transAxes, rotation=90, ha="right", va="center")
        column[0].set_title(title, fontsize=9)
    fig.colorbar(image, ax=axes, label="HU", shrink=0.8)
    save_figure(fig, OUT / "third_dimension.png", dpi=144)


def edited(test: Slices, directions: Directions, table: pd.DataFrame) -> None:
    """Slices of held-out patients in the VAE: drawn again, and moved along the best direction of each factor."""
    vae, known = load_model(OUT / FILES["vae"])[0], pd.read_csv(ROOT / "data_manifests" / "chest_ct" / "patients.csv", dtype=str)
    collection = known.set_index("patient")["collection"]
    of = test.table["patient"].map(collection)
    rows = [int(part.index[len(part) // 2]) for _, part in test.table.groupby(of)][:4]
    inverted = invert_by_encoder(vae, test.tensor(rows), test.window)
    best = table[table["set"] == f"motion{K}"].set_index("factor")
    factors, shift = ("thickness", "breast", "y_position", "z_position"), 3.0
    columns = {"a patient": inverted.slices, "drawn again": inverted.reconstruction}
    for factor in factors:
        row = best.loc[factor]
        sign = 1 if row["slope"] > 0 else -1
        size = f"{abs(row['slope']) * shift:.2g} {UNITS[factor]}".replace(" of the lungs' extent", "")
        columns[f"{WORDS[factor]}\n+{size}"] = edit(vae.decoder, directions, inverted, int(row["direction"]), sign * shift)
    fig, axes = plt.subplots(len(rows), len(columns), figsize=(10, 1.62 * len(rows) + 0.6), squeeze=False)
    for j, (title, slices) in enumerate(columns.items()):
        for i, ax in enumerate(axes[:, j]):
            image = ax.imshow(to_hu(slices[i, 0].numpy(), test.window), cmap="gray", vmin=-1000, vmax=600)
            ax.axis("off")
        axes[0, j].set_title(title, fontsize=9)
    for i, row in enumerate(rows):
        said = f"{of[row]}\nerror {inverted.error[i]:.0f} HU"
        axes[i, 0].text(-0.05, 0.5, said, transform=axes[i, 0].transAxes, ha="right", va="center", fontsize=8)
    fig.subplots_adjust(left=0.12, right=0.92, top=0.9, bottom=0.03, wspace=0.03, hspace=0.03)
    fig.colorbar(image, cax=fig.add_axes((0.935, 0.25, 0.012, 0.5)), label="HU")
    save_figure(fig, OUT / "edited.png", dpi=144)


def figures(name: str, generator: nn.Module, sets: dict[str, Directions], table: pd.DataFrame, display: lp.Display) -> None:
    words = MODELS[name]
    x = generate(generator, draw_z(generator, 64, 1))[:, 0].numpy()
    save_figure(contact_sheet(display.value(x), 16, f"64 samples of the {words}, not selected"), OUT / f"samples_{name}.png", dpi=110)
    rows = table[table["set"] == f"unit{K}-lenet"].set_index("factor")
    factors = [factor for factor in WORDS if factor in rows.index and np.isfinite(rows["r"][factor])]
    shifts, start = (-4, -2, 0, 2, 4), typical_z(generator)
    pictures = [strip(generator, sets[f"unit{K}-lenet"], start, int(rows["direction"][f]), shifts) for f in factors]
    titles = [f"{WORDS[f]}\n{rows['slope'][f]:+.2g} {UNITS[f]}, r {rows['r'][f]:+.2f}" for f in factors]
    title = f"{words} of real chest CT: each factor by the best of {K} directions of the paper's method"
    save_figure(film_strips(np.stack(pictures), shift_heads(shifts), titles, title), OUT / f"paper_{name}.png", dpi=144)


def front(parts: dict[str, tuple], display: lp.Display) -> None:
    """The paper's five factors in both models, a row each, and what a unit of shift does to each."""
    shifts, low, high = (-4, -2, 0, 2, 4), *display.grey
    factors = ("rotation", "breast", "thickness", "y_position", "z_position")
    fig, axes = plt.subplots(len(factors), 11, figsize=(13.5, 7.6), width_ratios=[1] * 5 + [0.25] + [1] * 5)
    for block, (name, (generator, sets, table)) in enumerate(parts.items()):
        rows, start = table[table["set"] == f"motion{K}"].set_index("factor"), typical_z(generator)
        for i, factor in enumerate(factors):
            row = rows.loc[factor]
            sign = 1 if row["slope"] > 0 else -1
            drawn = strip(generator, sets[f"motion{K}"], start, int(row["direction"]), [sign * shift for shift in shifts])
            for j, picture in enumerate(drawn):
                ax = axes[i, 6 * block + j]
                image = ax.imshow(picture, cmap="gray", vmin=low, vmax=high, interpolation="bilinear")
                if i == 0:
                    ax.set_title(f"{shifts[j]:+d}" if shifts[j] else "0", fontsize=9)
            said = f"{abs(row['slope']):.2g} {UNITS[factor]} a unit of shift, |r| {abs(row['r']):.2f}, selectivity {row['selectivity']:.2f}"
            axes[i, 6 * block + 2].text(0.5, -0.03, said, transform=axes[i, 6 * block + 2].transAxes, ha="center", va="top", fontsize=8)
            if block == 0:
                axes[i, 0].text(-0.08, 0.5, WORDS[factor], transform=axes[i, 0].transAxes, ha="right", va="center", fontsize=10)
        axes[0, 6 * block + 2].text(0.5, 1.22, MODELS[name], transform=axes[0, 6 * block + 2].transAxes, ha="center", fontsize=12)
    for ax in axes.flat:
        ax.axis("off")
    fig.subplots_adjust(left=0.085, right=0.93, top=0.93, bottom=0.03, wspace=0.03, hspace=0.13)
    fig.colorbar(image, cax=fig.add_axes((0.945, 0.25, 0.01, 0.5)), label="HU")
    save_figure(fig, OUT / "directions.png", dpi=144)


def results(table: pd.DataFrame) -> None:
    """Selectivity of each factor's best direction: motion, the paper's method, and the band of random sets."""
    shown = {
        f"motion{K}": ("motion", "C3", "D"),
        f"unit{K}-lenet": ("the paper's (LeNet)", "C0", "o"),
        f"jacobian{K}": ("Jacobian", "C2", "s"),
    }
    factors = list(WORDS)
    fig, axes = plt.subplots(1, 2, figsize=(10, 4.1), sharey=True, layout="constrained")
    for ax, (name, words) in zip(axes, MODELS.items(), strict=True):
        band = open_chance(OUT / "directions" / "chance" / f"{name}-{K}.csv", K).best()["selectivity"]
        low, middle, high = (band[factors].quantile(q).to_numpy() for q in (0.025, 0.5, 0.975))
        y = np.arange(len(factors))
        ax.barh(y, high - low, left=low, height=0.6, color="0.85", label="95 percent of random sets")
        ax.plot(middle, y, "|", color="0.4", ms=14)
        for label, (text, colour, marker) in shown.items():
            rows = table[(table["model"] == name) & (table["set"] == label)].set_index("factor")["selectivity"].reindex(factors)
            ax.plot(rows, y, marker, color=colour, label=text, ms=7)
        ax.set(title=words, xlabel="selectivity of the best direction", xlim=(0, 1), yticks=y, yticklabels=[WORDS[f] for f in factors])
        ax.invert_yaxis() if not ax.yaxis_inverted() else None
    fig.legend(*axes[0].get_legend_handles_labels(), frameon=False, fontsize=9, loc="outside lower center", ncols=4)
    fig.suptitle("Directions by motion are purer than chance for rotation in both models", fontsize=11)
    fig.savefig(OUT / "results.png", dpi=144)
    plt.close(fig)


def main(models: Path, data: Path) -> None:
    set_style()
    train, test = (open_dataset(data, split) for split in ("train", "test"))
    about = read_json(data / "dataset.json")
    z = fit_z(train, test)
    display = ct(tuple(about["window"]))
    for name, training in SHIPPED.items():
        path = OUT / FILES[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((models / f"{training}.safetensors").read_bytes())
    measures = lp.thorax(tuple(about["window"]), about["pixel_mm"], z)
    once(OUT / "quality.csv", lambda: quality(models, train, test, measures))
    once(OUT / "third_dimension.csv", lambda: walks(train, test, measures))
    volume(train, test)
    tables, parts = [], {}
    for name in SHIPPED:
        generator = load_generator(OUT / FILES[name])
        sets = searched(models, name, generator)
        tables.append(placed(name, sets, generator, measures))
        figures(name, generator, sets, tables[-1], display)
        parts[name] = generator, sets, tables[-1]
        pd.concat(tables).to_csv(OUT / "against_chance.csv", index=False, float_format="%.4g")
    front(parts, display)
    edited(test, parts["vae"][1][f"motion{K}"], parts["vae"][2])
    results(pd.concat(tables))
    once(OUT / "inversion.csv", lambda: put_back(train, test))
    slices = OUT / "data"
    if not slices.exists():
        copy_slices(data, slices, {"train": 200, "test": 60}, "the sample data_manifests/chest_ct")
    known = {"slices": about["slices"], "patients": about["patients"], "splits": about["splits"], "fingerprint": about["fingerprint"]}
    level = {"r": round(z.r, 3), "mean_absolute_error": round(z.error, 3), "held_out": z.held_out}
    (OUT / "summary.json").write_text(json.dumps({"data": known, "z": level, "HU": to_hu(1.0, tuple(about["window"]))}, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
