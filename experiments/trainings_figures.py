"""What experiments.trainings measured, as the six tests written down before, and as figures. python -m experiments.trainings_figures

Writes into outputs/reference/trainings: tested.csv (the six tests of experiments/preregistered.md), precision.csv (fp32 beside bf16),
selectivity.png and correlation.png, a dot a training.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats

from experiments import MODELS
from experiments.trainings import OUT
from lpdirs.show.plots import set_style

METHODS = {"paper": "the paper's", "motion": "motion", "steered": "steered"}
GROUPS = {"shape": "seven factors of shape", "tissue": "five factors of tissue"}
TESTS = (  # one minus another, over trainings, one-sided: as preregistered
    ("motion", "random", "shape"), ("paper", "random", "shape"), ("motion", "random", "tissue"), ("paper", "random", "tissue"),
    ("steered", "the better straight one", "shape"), ("steered", "the better straight one", "tissue"),
)  # fmt: skip
QUALITY = {
    "loss, last tenth: loss_d": "loss of the discriminator, last tenth",
    "loss, last tenth: loss_g": "loss of the generator, last tenth",
    "loss, last tenth: loss": "loss, last tenth",
    "KID": "KID",
    "error": "error on held-out slices, HU",
    "ssim": "SSIM on held-out slices",
    "copied": "samples that copy a training slice",
    "kappa": "directions that R knows, kappa",
}  # columns of quality.csv in words


def per_training(table: pd.DataFrame, score: str) -> pd.DataFrame:
    """The mean of a score over factors, a row a model, seed and group, a column a method, with random's median and the better straight."""
    wide = table.pivot_table(index=["model", "seed", "group", "factor"], columns="method", values=score)
    random = table[table["method"] == "paper"].set_index(["model", "seed", "group", "factor"])[f"{score}_chance"]
    wide = wide.assign(random=random, best=wide[["paper", "motion"]].max(axis=1)).rename(columns={"best": "the better straight one"})
    return wide.groupby(["model", "seed", "group"]).mean()


def tested(means: pd.DataFrame) -> pd.DataFrame:
    """The six tests, corrected together after Holm."""
    rows = []
    for one, other, group in TESTS:
        part = means.xs(group, level="group")
        difference = (part[one] - part[other]).dropna()
        p = stats.ttest_1samp(difference, 0, alternative="greater").pvalue if len(difference) > 1 else np.nan
        about = {"of": one, "minus": other, "group": group, "trainings": len(difference), "mean": part[one].mean()}
        rows.append(
            about
            | {"mean of the other": part[other].mean(), "difference": difference.mean(), "lowest difference": difference.min()}
            | {"in SDs": difference.mean() / difference.std(), "p": p}
        )
    table = pd.DataFrame(rows)
    order = table["p"].rank(method="first").to_numpy().astype(int) - 1
    raised = np.maximum.accumulate((np.sort(table["p"]) * np.arange(len(table), 0, -1)).clip(max=1))
    return table.assign(holm=raised[order])


def figure(table: pd.DataFrame, score: str, title: str) -> plt.Figure:
    """A panel a model and group: a dot a training for each method, the middle 95 percent of random sets per training as a band."""
    means = per_training(table, score)
    fig, axes = plt.subplots(1, 4, figsize=(9.6, 3.1), sharey=True, layout="constrained")
    panels = [(group, model) for group in GROUPS for model in MODELS]
    for ax, (group, model) in zip(axes, panels, strict=True):
        part = means.xs((model, group), level=("model", "group"))
        names = [name for name in METHODS if name in part and part[name].notna().any()]
        low, high = part["random"].min(), part["random"].max()
        ax.axhspan(low - 0.004, high + 0.004, color="0.8")
        ax.text(0.98, high + 0.01, "random", transform=ax.get_yaxis_transform(), ha="right", va="bottom", color="0.35", fontsize=10)
        for i, name in enumerate(names):
            ax.plot(np.full(len(part), i) + np.linspace(-0.12, 0.12, len(part)), part[name], "o", color=f"C{i}", ms=7)
        ax.set_xticks(range(len(names)), [METHODS[name] for name in names], fontsize=9)
        ax.set_xlim(-0.5, len(names) - 0.5)
        ax.set_title(f"{MODELS[model]}, {GROUPS[group]}", fontsize=9.5)
    axes[0].set_ylabel(f"mean {'|r|' if score == 'r' else score}")
    axes[0].set_ylim(0, 1)
    fig.suptitle(title, fontsize=12)
    return fig


def precision(quality: pd.DataFrame, factors: pd.DataFrame) -> pd.DataFrame:
    """fp32 beside bf16: mean over seeds and SD, a row a model and score."""
    own = (
        factors[factors["method"].isin(["paper", "motion"])]
        .groupby(["model", "seed", "precision", "method"])["selectivity"]
        .mean()
        .unstack()
    )
    table = quality.set_index(["model", "seed", "precision"])[list(QUALITY)].rename(columns=QUALITY)
    table = table.join(own.rename(columns=METHODS).add_prefix("selectivity of directions: "))
    stacked = table.stack().dropna().rename("value").rename_axis(["model", "seed", "precision", "score"])
    wide = stacked.groupby(["model", "score", "precision"], sort=False).agg(["mean", "min", "max", "count"]).unstack("precision")
    wide.columns = [f"{precision} {what}" for what, precision in wide.columns]
    return wide.reset_index()


def main() -> None:
    set_style()
    quality, factors = (pd.read_csv(OUT / f"{name}.csv") for name in ("quality", "factors"))
    own = factors[factors["precision"] == "bf16"].assign(r=lambda t: t["r"].abs(), r_chance=lambda t: t["r_chance"].abs())
    found = tested(per_training(own, "selectivity"))
    found.to_csv(OUT / "tested.csv", index=False, float_format="%.4g")
    print(found.round(4).to_string())
    both = precision(quality, factors)
    both.to_csv(OUT / "precision.csv", index=False, float_format="%.4g")
    print(both.round(3).to_string())
    for name, score, title in (
        ("selectivity", "selectivity", "How much of what the best direction does is its factor: a dot a training"),
        ("correlation", "r", "How closely the factor follows: found and random directions alike"),
    ):
        fig = figure(own, score, title)
        fig.savefig(OUT / f"{name}.png", dpi=100)
        plt.close(fig)


if __name__ == "__main__":
    main()
