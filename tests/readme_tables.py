"""The tables of results in the README, from the committed run: `python -m tests.readme_tables` prints them."""

import pandas as pd

from tests.conftest import ROOT

ANALYSIS = ROOT / "outputs" / "reference" / "demo" / "analysis"
WORDS = {
    "rotation": "rotation",
    "thickness": "body thickness",
    "breast": "breast size",
    "y_position": "y-position",
    "z_position": "z-position",
}
MODELS = ("gan", "vae")


def against_chance() -> list[str]:
    """A line each factor: selectivity, median of random sets, and the share that reaches it, of both models."""
    table = pd.read_csv(ANALYSIS / "against_chance.csv")
    lines = []
    for factor, words in WORDS.items():
        cells = []
        for model in MODELS:
            (row,) = table[table["set"].str.startswith(model) & (table["factor"] == factor)].to_dict("records")
            cells += [f"{row[name]:.2f}" for name in ("selectivity", "selectivity_chance", "selectivity_p")]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return lines


def prediction() -> list[str]:
    """A line each method: root mean square error of GAN and VAE, mean over patients, for each distance."""
    table = pd.read_csv(ANALYSIS / "prediction.csv")
    table["model"] = table["set"].str.partition("-")[0]
    mean = table.groupby(["model", "method", "gap", "patient"])["error"].mean().groupby(["model", "method", "gap"]).mean()
    gaps = sorted(table["gap"].unique())
    lines = [f"| | {' | '.join(f'{gap:.0f} mm' for gap in gaps)} |", "|---|" + "---|" * len(gaps)]
    for method in dict.fromkeys(table["method"]):
        lines.append(f"| {method} | {' | '.join(', '.join(f'{mean[m, method, gap]:.0f}' for m in MODELS) for gap in gaps)} |")
    return lines


if __name__ == "__main__":
    print("\n".join([*against_chance(), "", *prediction()]))
