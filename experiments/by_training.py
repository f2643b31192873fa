"""The main figures of the results: selectivity and |r| by method, a dot a training. python -m experiments.by_training

From the committed searches, seeds_demo and seeds_phantom: three GANs and three VAEs of real chest CT at 64 px, and as many
of the phantom. Writes selectivity_by_training.png, r_by_training.png and by_training.csv into outputs/reference.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats

from experiments.readme_tables import PANELS, REFERENCE, searched
from lpdirs.show.plots import set_style

METHODS = {
    "random": "random",
    "lenet-unit-32": "the paper's",
    "pca": "PCA",
    "jacobian": "Jacobian",
    "motion": "motion",
    "oracle-alone": "labels",
}
FIGURES = {"selectivity": ("Purity tells found from random", "mean selectivity"), "r": ("Correlation does not", "mean |r|")}


def by_training() -> pd.DataFrame:
    """The median over searches of each score, a row a panel, training and method."""
    rows = searched()
    rows = rows[rows["configuration"].isin(METHODS)]
    return rows.groupby(["generator", "training", "configuration"], as_index=False)[list(FIGURES)].median()


def tested(table: pd.DataFrame) -> pd.DataFrame:
    """Each method minus random over the six trainings of real CT and of the phantom, one-sided t-tests, Holm's correction for all ten."""
    rows = []
    for data in ("real CT", "phantom"):
        wide = table[table["generator"].str.startswith(data)].pivot(
            index=["generator", "training"], columns="configuration", values="selectivity"
        )
        for name in list(METHODS)[1:]:
            difference = wide[name] - wide["random"]
            about = {
                "data": data,
                "method": METHODS[name],
                "trainings": len(difference),
                "mean": wide[name].mean(),
                "random": wide["random"].mean(),
            }
            p = stats.ttest_1samp(difference, 0, alternative="greater").pvalue
            rows.append(about | {"lowest difference": difference.min(), "in SDs": difference.mean() / difference.std(), "p": p})
    found = pd.DataFrame(rows).sort_values("p", ignore_index=True)
    return found.assign(holm=np.maximum.accumulate((found["p"] * np.arange(len(found), 0, -1)).clip(upper=1)))


def main() -> None:
    set_style()
    table = by_training()
    for score, (title, label) in FIGURES.items():
        fig, axes = plt.subplots(1, len(PANELS), figsize=(9.4, 2.9), sharey=True, layout="constrained")
        for ax, panel in zip(axes, PANELS, strict=True):
            part = table[table["generator"] == panel]
            band = part.loc[part["configuration"] == "random", score]
            ax.axhspan(band.min(), band.max(), color="0.85")
            for i, name in enumerate(METHODS):
                dots = part.loc[part["configuration"] == name, score].to_numpy()
                ax.plot(i + np.linspace(-0.15, 0.15, len(dots)), dots, "o", color="0.35" if name == "random" else f"C{i - 1}", ms=6)
            ax.set_xticks(range(len(METHODS)), METHODS.values(), rotation=55, ha="right", rotation_mode="anchor", fontsize=10)
            ax.set_title(panel, fontsize=11)
        axes[0].set(ylabel=label, ylim=(0, 1.03))
        fig.suptitle(title + ": three trainings of each model, the best of 32 directions for each of seven factors", fontsize=11)
        fig.savefig(REFERENCE / f"{score}_by_training.png", dpi=100)
        plt.close(fig)
    found = tested(table)
    found.to_csv(REFERENCE / "by_training.csv", index=False, float_format="%.4g")
    print(found.round(4).to_string())


if __name__ == "__main__":
    main()
