"""The figures of outputs/reference/chest, drawn by `python -m experiments.chest`."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import nn

import lpdirs as lp
from experiments import FACTORS, MODELS
from lpdirs.data.store import Slices, to_hu
from lpdirs.discovery.curved import LatentPath
from lpdirs.discovery.directions import Directions
from lpdirs.measures.measures import factor_words
from lpdirs.measures.thorax import UNITS, known_z
from lpdirs.models.files import load_model
from lpdirs.models.generators import Generator
from lpdirs.models.networks import VAE
from lpdirs.models.training import encode
from lpdirs.scores.chance import open_chance
from lpdirs.scores.inversion import Inversion, edit, invert, invert_by_encoder
from lpdirs.scores.third_dimension import reformat
from lpdirs.show.plots import NOTICE, film_strips, mosaic, save_figure, shift_heads, strip
from tests.notebooks.refresh import ROOT

OUT = ROOT / "outputs" / "reference" / "chest"
K = 32
MOVED, SHIFT = ("rotation", "thickness", "breast", "y_position", "z_position"), 3.0  # factors along which patients are edited, and how far
REFINED = 50  # steps of Adam from the z that the encoder says
BESIDE = "slices of patients are from the sample; all else is synthetic, drawn by a generative model; not for diagnosis"


def save_greys(fig: Figure, path: Path, dpi: int = 144, notice: str = NOTICE) -> None:
    """`save_figure` for pictures of greys alone: half of the bytes."""
    save_figure(fig, path, dpi=dpi, notice=notice)
    plt.close(fig)
    with Image.open(path) as picture:
        info = PngInfo()
        for key, text in picture.text.items():
            info.add_text(key, text)
        grey, size = picture.convert("L"), picture.info["dpi"]
    grey.save(path, pnginfo=info, dpi=size, optimize=True)


def generator_of(model: nn.Module, latent_dim: int = 32) -> lp.Generator:
    """The generator of a network of the project that was trained just now: itself, or a VAE's decoder."""
    return Generator((model.decoder if isinstance(model, VAE) else model).eval(), latent_dim)


def collections() -> pd.Series:
    """Which collection each patient of the sample is from."""
    return pd.read_csv(ROOT / "data_manifests" / "chest_ct" / "patients.csv", dtype=str).set_index("patient")["collection"]


def volume(vae: VAE, path: LatentPath, test: Slices) -> None:
    """One held-out patient: the chest, each slice drawn again, and the whole chest predicted from its middle slice."""
    table, level = test.table, known_z(test.table)
    patient = table[np.isfinite(level)].groupby("patient").size().idxmax()
    rows = np.flatnonzero((table["patient"] == patient).to_numpy() & np.isfinite(level))
    z, x, mm = level[rows], test.tensor(rows), table["z_mm"].to_numpy()[rows]
    pixel = float(table["pixel_mm"].to_numpy()[rows][0])
    latents, middle = encode(vae, x)[0], int(np.abs(z - np.median(z)).argmin())
    walked = path.move(latents[middle].expand(len(z), -1), np.full(len(z), z[middle]), z)
    generator = generator_of(vae)
    stacks = {
        f"a patient of {collections()[patient]}": x,
        "each slice drawn again by the VAE": generator.images(latents),
        "predicted from the one slice at the line": generator.images(walked),
    }
    real = to_hu(x[:, 0].numpy(), test.window)
    off = {k: np.sqrt(np.mean((to_hu(v[:, 0].numpy(), test.window) - real) ** 2)) for k, v in stacks.items()}
    stacks = {k if v is x else f"{k}:\nroot mean square error {off[k]:.0f} HU": v for k, v in stacks.items()}
    cuts = {k: reformat(to_hu(v[:, 0].numpy(), test.window), z, float(np.ptp(mm)), pixel) for k, v in stacks.items()}
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
    save_figure(fig, OUT / "third_dimension.png", dpi=144, notice=BESIDE)


def inverted(name: str, generator: lp.Generator, test: Slices, rows: Sequence[int] | np.ndarray) -> Inversion:
    """Slices put into latent space: by the VAE's encoder, whose z is refined, and in the GAN by optimisation of z."""
    if name == "vae":
        return invert_by_encoder(load_model(OUT / "vae" / "vae.safetensors")[0], generator, test.tensor(rows), test.window, REFINED)
    return invert(generator, test.tensor(rows), test.window, 150, 2)


def edited(name: str, generator: lp.Generator, test: Slices, directions: Directions, table: pd.DataFrame, measures: lp.Measures) -> None:
    """Slices of held-out patients: drawn again, and moved along the best direction of each factor, with what that changes on each slice."""
    of = test.table["patient"].map(collections())
    rows = [int(part.index[len(part) // 2]) for _, part in test.table.groupby(of)][:4]
    put, best = inverted(name, generator, test, rows), table[table["set"] == f"motion{K}"].set_index("factor")
    columns, said = {"a patient": put.slices, "drawn again": put.reconstruction, "what is lost": put.slices}, {}
    before = measures(put.reconstruction)
    for factor in MOVED:
        slope, unit = (
            best["again_slope"][factor],
            UNITS[factor].replace(" of the lungs' extent", " of lungs").replace("of the lungs' extent", "of lungs"),
        )
        shift = SHIFT if slope > 0 else -SHIFT
        title = f"{factor_words(factor)}\nshift {shift:+g}: on samples\n{abs(slope) * SHIFT:+.2g} {unit}"
        columns[title] = edit(generator, directions, put, int(best["direction"][factor]), shift)
        change = measures(columns[title])[factor] - before[factor]
        said[title] = [f"{value:+.2g} {unit}" if np.isfinite(value) else "not measurable" for value in change]
    lost = to_hu(put.slices[:, 0].numpy(), test.window) - to_hu(put.reconstruction[:, 0].numpy(), test.window)
    fig, axes = plt.subplots(len(rows), len(columns), figsize=(12.5, 1.6 * len(rows) + 0.8), squeeze=False)
    for j, (title, slices) in enumerate(columns.items()):
        for i, ax in enumerate(axes[:, j]):
            ax.axis("off")
            if title == "what is lost":
                difference = ax.imshow(lost[i], cmap="RdBu_r", vmin=-600, vmax=600)
            else:
                image = ax.imshow(to_hu(slices[i, 0].numpy(), test.window), cmap="gray", vmin=-1000, vmax=600)
            if title in said:
                ax.text(0.5, -0.03, said[title][i], transform=ax.transAxes, ha="center", va="top", fontsize=7.5)
        axes[0, j].set_title(title, fontsize=8)
    for i, row in enumerate(rows):
        axes[i, 0].text(
            -0.05, 0.5, f"{of[row]}\nerror {put.error[i]:.0f} HU", transform=axes[i, 0].transAxes, ha="right", va="center", fontsize=8
        )
    fig.subplots_adjust(left=0.1, right=0.92, top=0.89, bottom=0.03, wspace=0.03, hspace=0.1)
    fig.colorbar(image, cax=fig.add_axes((0.932, 0.53, 0.01, 0.36)), label="HU")
    fig.colorbar(difference, cax=fig.add_axes((0.932, 0.05, 0.01, 0.36)), label="lost, HU")
    save_figure(fig, OUT / f"edited_{name}.png", dpi=144, notice=BESIDE)
    plt.close(fig)


def evenly(slices: Slices, n: int) -> np.ndarray:
    """Rows of n slices, of every patient as many as of the others, or all of his; drawn at random."""
    turn = slices.table.sample(frac=1, random_state=0).groupby("patient").cumcount()
    return turn.sample(frac=1, random_state=1).sort_values(kind="stable").index[:n].to_numpy()


def with_interval(row: pd.Series, score: str, prefix: str = "again_") -> str:
    """A score of a direction with its 95 percent interval, |r| where it is r; `again_`: on other slices than it was chosen on."""
    value, *ends = (row[f"{prefix}{score}{end}"] for end in ("", "_low", "_high"))
    value, *ends = (-value, -ends[1], -ends[0]) if score == "r" and value < 0 else (value, *ends)
    return f"{value:.2f} [{ends[0]:.2f}, {ends[1]:.2f}]"


def samples(
    name: str, generator: lp.Generator, sets: dict[str, Directions], table: pd.DataFrame, display: lp.Display, test: Slices
) -> None:
    """Unselected samples beside as many slices of held-out patients, and the paper's best direction for each factor."""
    words, (low, high) = MODELS[name], display.grey
    both = {
        f"64 samples of the {words}": generator.images(generator.draw(64, 1)),
        f"64 slices of {test.table['patient'].nunique()} held-out patients": test.tensor(evenly(test, 64)),
    }
    fig, axes = plt.subplots(1, 2, figsize=(13, 6.6), layout="constrained")
    for ax, (title, x) in zip(axes, both.items(), strict=True):
        image = ax.imshow(mosaic(display.value(x[:, 0].numpy()), 8, display), cmap="gray", vmin=low, vmax=high)
        ax.set_title(f"{title}, not selected")
        ax.axis("off")
    fig.colorbar(image, ax=axes, label="HU", shrink=0.9, pad=0.01, aspect=30)
    save_greys(fig, OUT / f"samples_{name}.png", 100, BESIDE)
    rows = table[table["set"] == f"unit{K}-lenet"].set_index("factor")
    factors = [factor for factor in FACTORS if factor in rows.index and np.isfinite(rows["again_r"][factor])]
    shifts, start = (-4, -2, 0, 2, 4), generator.typical()
    pictures = [strip(generator, sets[f"unit{K}-lenet"], start, int(rows["direction"][f]), shifts) for f in factors]
    titles = [
        f"{factor_words(f)}\n{rows['again_slope'][f]:+.2g} {UNITS[f]} per unit of shift\n|r| {with_interval(rows.loc[f], 'r')}\n"
        f"selectivity {with_interval(rows.loc[f], 'selectivity')}\nchance {rows['selectivity_chance'][f]:.2f}"
        for f in factors
    ]
    title = f"{words} of real chest CT: each factor by the best of {K} directions of the paper's method"
    save_greys(film_strips(np.stack(pictures), shift_heads(shifts), titles, title), OUT / f"paper_{name}.png")


def front(parts: dict[str, tuple], display: lp.Display) -> None:
    """The paper's five factors in both models, a row each, and what a unit of shift does to each."""
    shifts, low, high = (-4, -2, 0, 2, 4), *display.grey
    factors = ("rotation", "breast", "thickness", "y_position", "z_position")
    fig, axes = plt.subplots(len(factors), 11, figsize=(13.5, 8.6), width_ratios=[1] * 5 + [0.25] + [1] * 5)
    for block, (name, (generator, sets, table)) in enumerate(parts.items()):
        rows, start = table[table["set"] == f"motion{K}"].set_index("factor"), generator.typical()
        for i, factor in enumerate(factors):
            row = rows.loc[factor]
            sign = 1 if row["again_slope"] > 0 else -1
            drawn = strip(generator, sets[f"motion{K}"], start, int(row["direction"]), [sign * shift for shift in shifts])
            for j, picture in enumerate(drawn):
                ax = axes[i, 6 * block + j]
                image = ax.imshow(picture, cmap="gray", vmin=low, vmax=high, interpolation="bilinear")
                if i == 0:
                    ax.set_title(shift_heads(shifts)[j], fontsize=10)
            moves = f"{abs(row['again_slope']):.2g} {UNITS[factor]} per unit of shift, |r| {with_interval(row, 'r')}"
            pure = f"selectivity {with_interval(row, 'selectivity')}, chance {row['selectivity_chance']:.2f}"
            below = axes[i, 6 * block + 2]
            below.text(0.5, -0.03, f"{moves}\n{pure}", transform=below.transAxes, ha="center", va="top", fontsize=10)
            if block == 0:
                axes[i, 0].text(-0.08, 0.5, factor_words(factor), transform=axes[i, 0].transAxes, ha="right", va="center", fontsize=12)
        axes[0, 6 * block + 2].text(0.5, 1.22, MODELS[name], transform=axes[0, 6 * block + 2].transAxes, ha="center", fontsize=14)
    for ax in axes.flat:
        ax.axis("off")
    fig.subplots_adjust(left=0.1, right=0.93, top=0.93, bottom=0.05, wspace=0.03, hspace=0.32)
    fig.colorbar(image, cax=fig.add_axes((0.945, 0.25, 0.01, 0.5)), label="HU")
    save_greys(fig, OUT / "directions.png")


def learning(along: pd.DataFrame, floor: pd.DataFrame) -> None:
    """Distance to held-out patients and memory of training slices, while the shipped recipes trained."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    shipped = along[(along["kind"] == "gan") | (along["kl_weight"] == 100)]
    for i, (kind, words) in enumerate(MODELS.items()):
        for seed, part in shipped[shipped["kind"] == kind].groupby("seed"):
            thousand = part["steps"] / 1000
            label, fill = (words, None) if seed == 0 else (f"{words}, other trainings" if seed == 1 else None, "w")
            thousand = thousand + 0.12 * seed  # so that their marks do not hide one another
            axes[0].errorbar(thousand, part["KID"], part["KID_error"], color=f"C{i}", marker="o", ms=4, capsize=2, label=label, mfc=fill)
            axes[1].plot(thousand, 100 * part["copied"], color=f"C{i}", marker="o", ms=4, label=label, mfc=fill)
    lowest, error = floor.set_index("model").loc["training slices", ["KID", "KID_error"]]
    axes[0].axhspan(lowest - error, lowest + error, color="0.85", lw=0, label="training patients")
    axes[1].axhline(1, color="0.5", ls=":", label="held-out patients")
    axes[0].set(ylabel="KID to held-out patients", ylim=(min(0, lowest - 1.5 * error), None))
    axes[1].set(ylabel="nearer to a training slice than\n99% of held-out slices, %", ylim=(0, None))
    fig.suptitle("As it trains, the GAN's samples come nearer to held-out patients, and more of them near to training slices", fontsize=11)
    for ax in axes:
        ax.set(xlabel="thousand steps", xlim=(0, None))
        ax.legend(frameon=False, fontsize=8)
    fig.savefig(OUT / "over_training.png", dpi=144)
    plt.close(fig)


def results(table: pd.DataFrame) -> None:
    """Selectivity of each factor's best direction: motion, the paper's method, and the band of random sets."""
    shown = {
        f"motion{K}": ("motion", "C3", "D"),
        f"unit{K}-lenet": ("the paper's (LeNet)", "C0", "o"),
        f"jacobian{K}": ("Jacobian", "C2", "s"),
        f"sefa{K}": ("SeFa", "C1", "^"),
    }
    factors = list(FACTORS)
    fig, axes = plt.subplots(1, 2, figsize=(10, 4.1), sharey=True, layout="constrained")
    for ax, (name, words) in zip(axes, MODELS.items(), strict=True):
        band = open_chance(OUT / "directions" / "chance" / f"{name}-{K}.csv", K).best()["selectivity"]
        low, middle, high = (band[factors].quantile(q).to_numpy() for q in (0.025, 0.5, 0.975))
        y = np.arange(len(factors))
        ax.barh(y, high - low, left=low, height=0.6, color="0.85", label="95 percent of random sets, each factor by itself")
        ax.plot(middle, y, "|", color="0.4", ms=14, label="their median")
        for label, (text, colour, marker) in shown.items():
            rows = table[(table["model"] == name) & (table["set"] == label)].set_index("factor")["selectivity"].reindex(factors)
            ax.plot(rows, y, marker, color=colour, label=text, ms=7)
        ax.set(
            title=words, xlabel="selectivity of the best direction", xlim=(0, 1), yticks=y, yticklabels=[factor_words(f) for f in factors]
        )
    axes[0].invert_yaxis()  # shared by both
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend([handles[-1], *handles[:-1]], [labels[-1], *labels[:-1]], frameon=False, fontsize=9, loc="outside lower center", ncols=6)
    beyond = table[table["set"].isin(shown) & (table["selectivity_corrected"] <= 0.05)]
    methods = {key: ", ".join(text for label, (text, *_) in shown.items() if label in set(part["set"]))
               for key, part in beyond.groupby(["model", "factor"], sort=False)}  # fmt: skip
    found = [f"{factor_words(factor)} in the {MODELS[name]} ({those})" for (name, factor), those in methods.items()]
    fig.suptitle(f"Purer than chance after correction for seven factors: {' and '.join(found) or 'none'}", fontsize=11)
    fig.savefig(OUT / "results.png", dpi=144)
    plt.close(fig)
