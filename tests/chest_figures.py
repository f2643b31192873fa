"""The figures of outputs/reference/chest, drawn by `python -m tests.chest`."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from torch import nn

import lpdirs as lp
from lpdirs.base.words import FACTORS as WORDS
from lpdirs.base.words import MODELS
from lpdirs.data.store import Slices, to_hu
from lpdirs.discovery.curved import LatentPath
from lpdirs.discovery.directions import Directions
from lpdirs.measures.thorax import UNITS
from lpdirs.measures.zposition import known_z
from lpdirs.models.generators import draw_z, generate, typical_z
from lpdirs.models.training import encode
from lpdirs.models.vae import VAE
from lpdirs.scores.chance import open_chance
from lpdirs.scores.inversion import edit, invert_by_encoder
from lpdirs.scores.third_dimension import reformat
from lpdirs.show.marking import save_figure
from lpdirs.show.plots import film_strips, mosaic, shift_heads, strip
from tests.notebooks.refresh import ROOT

OUT = ROOT / "outputs" / "reference" / "chest"
K = 32
BESIDE = "slices of patients are from the sample; all else is synthetic, drawn by a generative model; not for diagnosis"


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
    stacks = {
        f"a patient of {collections()[patient]}": x,
        "each slice drawn again by the VAE": generate(vae.decoder, latents),
        "predicted from the one slice at the line": generate(vae.decoder, walked),
    }
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


def edited(vae: VAE, test: Slices, directions: Directions, table: pd.DataFrame) -> None:
    """Slices of held-out patients in the VAE: drawn again, and moved along the best direction of each factor."""
    of = test.table["patient"].map(collections())
    rows = [int(part.index[len(part) // 2]) for _, part in test.table.groupby(of)][:4]
    inverted = invert_by_encoder(vae, test.tensor(rows), test.window)
    best = table[table["set"] == f"motion{K}"].set_index("factor")
    factors, shift = ("rotation", "thickness", "breast", "y_position", "z_position"), 3.0
    columns = {"a patient": inverted.slices, "drawn again": inverted.reconstruction, "what is lost": inverted.slices}
    for factor in factors:
        row = best.loc[factor]
        sign = 1 if row["slope"] > 0 else -1
        size = f"{abs(row['slope']) * shift:.2g} {UNITS[factor]}".replace(" of the lungs' extent", " of lungs")
        columns[f"{WORDS[factor]}\nshift {sign * shift:+g}: on average\n+{size}"] = edit(
            vae.decoder, directions, inverted, int(row["direction"]), sign * shift
        )
    lost = to_hu(inverted.slices[:, 0].numpy(), test.window) - to_hu(inverted.reconstruction[:, 0].numpy(), test.window)
    fig, axes = plt.subplots(len(rows), len(columns), figsize=(12.5, 1.5 * len(rows) + 0.8), squeeze=False)
    for j, (title, slices) in enumerate(columns.items()):
        for i, ax in enumerate(axes[:, j]):
            ax.axis("off")
            if title == "what is lost":
                difference = ax.imshow(lost[i], cmap="RdBu_r", vmin=-600, vmax=600)
            else:
                image = ax.imshow(to_hu(slices[i, 0].numpy(), test.window), cmap="gray", vmin=-1000, vmax=600)
        axes[0, j].set_title(title, fontsize=8)
    for i, row in enumerate(rows):
        said = f"{of[row]}\nerror {inverted.error[i]:.0f} HU"
        axes[i, 0].text(-0.05, 0.5, said, transform=axes[i, 0].transAxes, ha="right", va="center", fontsize=8)
    fig.subplots_adjust(left=0.1, right=0.92, top=0.89, bottom=0.03, wspace=0.03, hspace=0.03)
    fig.colorbar(image, cax=fig.add_axes((0.932, 0.53, 0.01, 0.36)), label="HU")
    fig.colorbar(difference, cax=fig.add_axes((0.932, 0.05, 0.01, 0.36)), label="lost, HU")
    save_figure(fig, OUT / "edited.png", dpi=144, notice=BESIDE)


def samples(name: str, generator: nn.Module, sets: dict[str, Directions], table: pd.DataFrame, display: lp.Display, test: Slices) -> None:
    """Unselected samples beside as many slices of held-out patients, and the paper's best direction for each factor."""
    words, (low, high) = MODELS[name], display.grey
    rows = np.random.default_rng(0).permutation(len(test))[:64]
    both = {
        f"64 samples of the {words}": generate(generator, draw_z(generator, 64, 1)),
        "64 slices of held-out patients": test.tensor(rows),
    }
    fig, axes = plt.subplots(1, 2, figsize=(13, 6.6), layout="constrained")
    for ax, (title, x) in zip(axes, both.items(), strict=True):
        image = ax.imshow(mosaic(display.value(x[:, 0].numpy()), 8, display), cmap="gray", vmin=low, vmax=high)
        ax.set_title(f"{title}, not selected")
        ax.axis("off")
    fig.colorbar(image, ax=axes, label="HU", shrink=0.9, pad=0.01, aspect=30)
    save_figure(fig, OUT / f"samples_{name}.png", dpi=100, notice=BESIDE)
    plt.close(fig)
    rows = table[table["set"] == f"unit{K}-lenet"].set_index("factor")
    factors = [factor for factor in WORDS if factor in rows.index and np.isfinite(rows["r"][factor])]
    shifts, start = (-4, -2, 0, 2, 4), typical_z(generator)
    pictures = [strip(generator, sets[f"unit{K}-lenet"], start, int(rows["direction"][f]), shifts) for f in factors]
    titles = [f"{WORDS[f]}\n{rows['slope'][f]:+.2g} {UNITS[f]}\nper unit of shift, |r| {abs(rows['r'][f]):.2f}" for f in factors]
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
                    ax.set_title(shift_heads(shifts)[j], fontsize=9)
            moves = f"{abs(row['slope']):.2g} {UNITS[factor]} per unit of shift"
            said = f"{moves}, |r| {abs(row['r']):.2f}, selectivity {row['selectivity']:.2f}"
            axes[i, 6 * block + 2].text(0.5, -0.03, said, transform=axes[i, 6 * block + 2].transAxes, ha="center", va="top", fontsize=8)
            if block == 0:
                axes[i, 0].text(-0.08, 0.5, WORDS[factor], transform=axes[i, 0].transAxes, ha="right", va="center", fontsize=10)
        axes[0, 6 * block + 2].text(0.5, 1.22, MODELS[name], transform=axes[0, 6 * block + 2].transAxes, ha="center", fontsize=12)
    for ax in axes.flat:
        ax.axis("off")
    fig.subplots_adjust(left=0.085, right=0.93, top=0.93, bottom=0.03, wspace=0.03, hspace=0.13)
    fig.colorbar(image, cax=fig.add_axes((0.945, 0.25, 0.01, 0.5)), label="HU")
    save_figure(fig, OUT / "directions.png", dpi=144)


def learning(along: pd.DataFrame, floor: pd.DataFrame) -> None:
    """Distance to held-out patients and memory of training slices, while the shipped recipes trained."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    shipped = along[(along["kind"] == "gan") | (along["kl_weight"] == 100)]
    for i, (kind, words) in enumerate(MODELS.items()):
        for seed, part in shipped[shipped["kind"] == kind].groupby("seed"):
            thousand = part["steps"] / 1000
            label = words if seed == 0 else None
            axes[0].errorbar(thousand, part["KID"], part["KID_error"], color=f"C{i}", marker="o", ms=4, capsize=2, label=label)
            axes[1].plot(thousand, 100 * part["copied"], color=f"C{i}", marker="o", ms=4, label=label)
    lowest, error = floor.set_index("model").loc["training slices", ["KID", "KID_error"]]
    axes[0].axhspan(lowest - error, lowest + error, color="0.85", lw=0, label="training patients")
    axes[1].axhline(1, color="0.5", ls=":", label="held-out patients")
    axes[0].set(ylabel="KID to held-out patients", ylim=(min(0, lowest - 1.5 * error), None))
    axes[1].set(ylabel="nearer to a training slice than\n99% of held-out slices, %", ylim=(0, None))
    fig.suptitle("Longer training makes the GAN more realistic, and more of its samples lie near to training slices", fontsize=11)
    for ax in axes:
        ax.set(xlabel="thousand steps", xlim=(0, None))
        ax.legend(frameon=False)
    fig.savefig(OUT / "over_training.png", dpi=144)
    plt.close(fig)


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
        ax.barh(y, high - low, left=low, height=0.6, color="0.85", label="95 percent of random sets, each factor by itself")
        ax.plot(middle, y, "|", color="0.4", ms=14, label="their median")
        for label, (text, colour, marker) in shown.items():
            rows = table[(table["model"] == name) & (table["set"] == label)].set_index("factor")["selectivity"].reindex(factors)
            ax.plot(rows, y, marker, color=colour, label=text, ms=7)
        ax.set(title=words, xlabel="selectivity of the best direction", xlim=(0, 1), yticks=y, yticklabels=[WORDS[f] for f in factors])
    axes[0].invert_yaxis()  # shared by both
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend([handles[-1], *handles[:-1]], [labels[-1], *labels[:-1]], frameon=False, fontsize=9, loc="outside lower center", ncols=5)
    beyond = table[(table["set"] == f"motion{K}") & (table["selectivity_corrected"] <= 0.05)].groupby("model")["factor"].agg(set)
    of = lambda name: " and ".join(WORDS[factor] for factor in factors if factor in beyond.get(name, set())) or "no factor"
    found = ", ".join(f"for {of(name)} in the {words}" for name, words in MODELS.items())
    fig.suptitle(f"After correction motion is purer than chance {found}", fontsize=11)
    fig.savefig(OUT / "results.png", dpi=144)
    plt.close(fig)
