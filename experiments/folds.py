"""Is the third dimension learned, on more patients? Every patient of the sample with a whole series is held out once.

python -m experiments.folds DATA FOLDER      DATA is the demo's data set (outputs/demo/data), FOLDER keeps the trainings, which are resumed

Five VAEs of the demo profile are trained, each on all patients but a fifth of those with whole series, whose slices are then predicted as
in experiments/chest.py. Writes outputs/reference/chest/folds.csv, a row a patient, distance and method, and folds.png: of random subsets of
the patients, how many decide each comparison. About 15 minutes on two cores.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats

import lpdirs as lp
from experiments.chest import walks
from experiments.chest_figures import OUT
from lpdirs.base.checkpoints import train
from lpdirs.base.files import read_json
from lpdirs.data.store import Slices, open_dataset
from lpdirs.measures.thorax import fit_z
from lpdirs.models.training import VAETraining
from lpdirs.runs.settings import resolve
from lpdirs.scores.response import holm
from lpdirs.show.plots import set_style

FOLDS, WHOLE = 5, 20  # slices of a series that is a whole one, at least
ONE = "curved path"
OTHERS = ("unchanged slice", "its reconstruction", "mean slice of the level", "straight line")


def folds_of(slices: Slices) -> list[list[str]]:
    """The patients with whole series in five parts, each with patients of every collection."""
    counts = slices.table.groupby(["patient", "series"]).size()
    patients = sorted({patient for patient, _ in counts[counts >= WHOLE].index})
    return [patients[i::FOLDS] for i in range(FOLDS)]


def predicted(data: Path, folder: Path) -> pd.DataFrame:
    """The means over each held-out patient's pairs, with the fold."""
    slices, about, settings = open_dataset(data), read_json(data / "dataset.json"), resolve("demo", {}).vae
    part = lambda rows: Slices(slices.hu, slices.table[rows].reset_index(drop=True), slices.window)
    tables = []
    for i, patients in enumerate(folds_of(slices)):
        away = slices.table["patient"].isin(patients)
        inside, held_out = part(~away), part(away)
        training = VAETraining(inside, settings)
        train(training, settings.steps, folder / f"fold{i}", training.identity(f"fold {i} of {about['fingerprint']}"))
        measures = lp.thorax(slices.window, about["pixel_mm"], fit_z(inside, held_out))
        found = walks(training.vae.eval(), inside, held_out, measures)
        tables.append(found.groupby(["patient", "gap", "method"], sort=False).mean().reset_index().assign(fold=i))
        print(f"fold {i}: {len(patients)} patients", flush=True)
    return pd.concat(tables)


def differences(table: pd.DataFrame, other: str, gap: int) -> np.ndarray:
    """By how many HU the curved path is off more than another method, a number a patient."""
    error = table[table["gap"] == gap].pivot(index="patient", columns="method", values="error")
    return (error[ONE] - error[other]).dropna().to_numpy()


def decided(difference: np.ndarray, n: int, times: int = 2000, seed: int = 0) -> float:
    """Of random subsets of n patients, the share in which a t-test has p of at most 0.05 with the sign of all patients' mean."""
    rng = np.random.default_rng(seed)
    drawn = np.stack([rng.choice(difference, n, replace=False) for _ in range(times)])
    found = stats.ttest_1samp(drawn, 0, axis=1)
    return float(np.mean((found.pvalue <= 0.05) & (np.sign(found.statistic) == np.sign(difference.mean()))))


def mean_errors(table: pd.DataFrame) -> list[str]:
    """A line each method: error in HU at each distance, mean over patients with its 95 percent interval (Student's t)."""
    gaps = sorted(table["gap"].unique())
    lines = ["| | " + " | ".join(f"{gap:g} mm" for gap in gaps) + " |", "|---|" + "---|" * len(gaps)]
    for method, part in table.groupby("method", sort=False):
        of = part.groupby("gap")["error"]
        half = of.sem() * stats.t.ppf(0.975, of.count() - 1)
        lines.append(f"| {method} | " + " | ".join(f"{of.mean()[gap]:.0f} ± {half[gap]:.0f}" for gap in gaps) + " |")
    return lines


def permuted(d: np.ndarray) -> float:
    """p of a mean difference over patients, by permuting its signs."""
    mean = lambda x, axis: np.mean(x, axis=axis)
    how = {"permutation_type": "samples", "n_resamples": 99_999, "vectorized": True, "rng": np.random.default_rng(0)}
    return float(stats.permutation_test((d,), mean, **how).pvalue)


def tested(table: pd.DataFrame) -> pd.DataFrame:
    """The curved path against each other method at each distance: mean difference, corrected p, and how many patients decide it."""
    rows = []
    for other in OTHERS:
        for gap in sorted(table["gap"].unique()):
            d = differences(table, other, gap)
            p = permuted(d)
            enough = next((n for n in range(3, len(d) + 1) if decided(d, n) >= 0.8), None) or needed(d)
            rows.append({"against": other, "gap": gap, "difference": d.mean(), "patients": len(d), "p": p, "enough": enough})
    found = pd.DataFrame(rows)
    return found.assign(holm=holm(found["p"].to_numpy()))


def needed(d: np.ndarray, level: float = 0.05, power: float = 0.8) -> int:
    """How many patients a t-test takes if the mean and the SD of these differences are those of all patients; Student's t, by search."""
    size = abs(d.mean()) / d.std(ddof=1)
    reach = lambda n: stats.nct.sf(stats.t.ppf(1 - level / 2, n - 1), n - 1, size * np.sqrt(n))
    return next((n for n in range(len(d) + 1, 100_000) if reach(n) >= power), 100_000)


def decisions(found: pd.DataFrame) -> list[str]:
    """A line each comparison of `tested`."""
    lines = ["| the curved path minus | distance | difference, HU | p, corrected | patients that decide it |", "|---|---|---|---|---|"]
    for row in found.itertuples():
        said = "below 0.001" if row.holm < 0.001 else f"{row.holm:.3f}"
        enough = f"{row.enough:.0f}" if row.enough <= row.patients else f"about {row.enough:.0f}"
        lines.append(f"| {row.against} | {row.gap:g} mm | {row.difference:+.0f} | {said} | {enough} |")
    return lines


def figure(table: pd.DataFrame) -> None:
    set_style()
    fig, axes = plt.subplots(1, len(OTHERS), figsize=(13.5, 3.4), sharey=True, layout="constrained")
    for ax, other in zip(axes, OTHERS, strict=True):
        for i, gap in enumerate(sorted(table["gap"].unique())):
            difference = differences(table, other, gap)
            sizes = range(3, len(difference) + 1)
            ax.plot(sizes, [decided(difference, n) for n in sizes], color=f"C{i}", label=f"{gap:g} mm: {difference.mean():+.0f} HU")
        ax.set(title=f"against the {other}".replace("the its", "its"), xlabel="held-out patients", ylim=(0, 1.02))
        ax.legend(title="mean difference", fontsize=7, title_fontsize=7, loc="lower right", bbox_to_anchor=(1, 0.06))
    axes[0].set_ylabel("share of random subsets of\npatients with p of 0.05 or less")
    fig.suptitle(
        "How many patients decide whether the curved path is closer, or less close (each comparison by itself, uncorrected)", fontsize=11
    )
    fig.savefig(OUT / "folds.png", dpi=144)


def by_distance(table: pd.DataFrame) -> None:
    """Error by distance of the curved path and its rivals, means over patients with 95 percent intervals: distance.png."""
    rivals = {
        "curved path": "C1", "unchanged slice": "C0", "straight line": "C2", "mean slice of the level": "0.5",
        "reconstruction of the truth (floor)": "0.75",
    }  # fmt: skip
    fig, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
    each = table.groupby(["method", "gap"])["error"].agg(["mean", "sem", "count"])
    for i, (name, colour) in enumerate(rivals.items()):
        one = each.loc[name]
        half = one["sem"] * stats.t.ppf(0.975, one["count"] - 1)
        ax.errorbar(one.index + 0.4 * (i - 2), one["mean"], half, color=colour, marker=".", capsize=2, lw=2 if i == 0 else 1.2, label=name)
    ax.set(
        xlabel="distance from the slice that one starts from, mm", ylabel="error, HU", ylim=(0, None), xticks=sorted(table["gap"].unique())
    )
    ax.set_title(f"From 40 mm on a curved path predicts a patient's slice best ({table['patient'].nunique()} patients)", fontsize=11)
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    fig.savefig(OUT / "distance.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    target = OUT / "folds.csv"
    if not target.exists():
        predicted(given.data, given.folder).to_csv(target, index=False, float_format="%.5g")
    table = pd.read_csv(target)
    figure(table)
    by_distance(table)
    tested(table).to_csv(OUT / "folds_tested.csv", index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
