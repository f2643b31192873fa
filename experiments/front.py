"""One factor along a random direction, along the best found one, and steered: the README's first figure and the gallery.

python -m experiments.front      Five minutes on two cores. Writes front.png, gallery.md and gallery/<model>_<factor>.png into
outputs/reference, and gallery/measured.csv, what was measured on the slices that are shown.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import lpdirs as lp
from experiments import FACTORS, MODELS
from experiments.chest_figures import K, save_greys
from lpdirs.measures.measures import factor_words
from lpdirs.scores.steering import Steering, steered_ends
from tests.notebooks.refresh import ROOT

OUT = ROOT / "outputs" / "reference"
FRONT, SEED = ("vae", "rotation"), 11
AMOUNTS = np.array([-1.5, -0.75, 0.0, 0.75, 1.5])  # SDs
FARTHEST = 6.0  # shift
SIGNED = ("rotation", "x_position", "y_position")  # factors whose 0 is in the middle
SHORT = {"degrees": "°", "of the lungs' extent": ""}  # units as they stand under pictures
RANDOM, FOUND, STEERED = (
    "the best of 32 random\ndirections",
    "the best direction\nthat was found",
    "steered: one factor goes,\nthe others hold",
)


def start_of(generator: lp.Generator) -> torch.Tensor:
    """Of 256 random z the most ordinary one on which everything can be measured: the nearest to the mean in all factors."""
    z = generator.draw(256, SEED)
    known = generator.measures.of(generator, z)
    away = ((known - known.mean()) / known.std()).abs().sum(axis=1).where(known.notna().all(axis=1))
    return z[int(away.idxmin())]


def rows_of(models: dict, name: str, factor: str, steering: Steering, start: torch.Tensor, pure: float) -> dict[str, tuple]:
    """z (5, d) and selectivity of each row."""
    generator, rows = models[f"{name}-motion{K}"][0], {}
    for title, label in ((RANDOM, f"{name}-random{K}"), (FOUND, f"{name}-motion{K}")):
        best = models[label][1].info.best[factor]
        shifts = np.linspace(-FARTHEST, FARTHEST, len(AMOUNTS)) * np.sign(best.slope)
        rows[title] = torch.cat([models[label][1].shift(start[None], best.direction, shift) for shift in shifts]), best.selectivity
    return rows | {STEERED: (steered_ends(generator, start[None], factor, AMOUNTS, steering=steering)[0][:, 0], pure)}


def draw(generator: lp.Generator, factor: str, rows: dict[str, tuple]) -> tuple[plt.Figure, pd.DataFrame]:
    """The figure, and what was measured on its slices."""
    fig, axes = plt.subplots(
        len(rows), len(AMOUNTS) + 1, figsize=(9.6, 5.3), width_ratios=[1.25] + [1] * len(AMOUNTS), layout="constrained"
    )
    unit, measured = generator.measures.units[factor], []
    sign = "+" if factor in SIGNED else ""
    number = lambda value: format(value, f"{sign}.0f" if abs(value) >= 10 else f"{sign}.1f" if unit != "of the lungs' extent" else ".2f")
    under = lambda value: "not measured" if np.isnan(value) else number(value) + SHORT.get(unit, " " + unit)
    for line, (title, (z, selectivity)) in zip(axes, rows.items(), strict=True):
        table = generator.measures.of(generator, z).assign(row=title.replace("\n", " "), selectivity=selectivity)
        measured.append(table)
        line[0].axis("off")
        line[0].text(0, 0.62, title, fontsize=12, va="center", transform=line[0].transAxes)
        pure = f"{abs(selectivity):.0%} of the change\nis {factor_words(factor)}"
        line[0].text(0, 0.25, pure, fontsize=15, va="center", transform=line[0].transAxes)
        for ax, picture, value in zip(line[1:], generator.display.pictures(generator.images(z)), table[factor], strict=True):
            ax.imshow(generator.display.to_grey(picture), cmap="gray", vmin=0, vmax=255)
            ax.set_xticks([])
            ax.set_yticks([])
            ax.set_xlabel(under(value), fontsize=12, labelpad=2)
    return fig, pd.concat(measured)


def main() -> None:
    models, known = lp.load(OUT / "chest"), pd.read_csv(OUT / "chest" / "steering.csv").set_index(["model", "factor"])
    page, measured = [INTRODUCTION], []
    for name, words in MODELS.items():
        generator, steering = models[f"{name}-motion{K}"][0], Steering.load(ROOT / "build" / f"steering_{name}.safetensors")
        start = start_of(generator)
        page.append(f"## {words}\n")
        for factor in FACTORS:
            row = known.loc[name, factor]
            rows = rows_of(models, name, factor, steering, start, row["selectivity"])
            fig, table = draw(generator, factor, rows)
            measured.append(table.assign(model=name, factor=factor))
            path = OUT / "gallery" / f"{name}_{factor}.png"
            path.parent.mkdir(exist_ok=True)
            save_greys(fig, path, dpi=80 if (name, factor) != FRONT else 100)
            if (name, factor) == FRONT:
                path = path.rename(OUT / "front.png")
            beyond = "beyond chance" if models[f"{name}-motion{K}"][1].info.best[factor].beyond_chance else "not beyond chance"
            said = f"steered {row['selectivity']:.2f}, found {row['motion']:.2f} ({beyond} after correction), chance {row['chance']:.2f}"
            reached = f"{row['reached']:.2f} of what is asked is reached, on {row['measured']:.0%} of slices"
            picture = f"![{words}, {factor_words(factor)}: random, found, steered]({path.relative_to(OUT)})"
            page.append(f"**{factor_words(factor).capitalize()}**: {said}; {reached}.\n\n{picture}\n")
    (OUT / "gallery.md").write_text("\n".join(page))
    pd.concat(measured).to_csv(OUT / "gallery" / "measured.csv", index=False, float_format="%.4g")


INTRODUCTION = """# Gallery

**Seven factors in a GAN and a VAE of real chest CT: along the best of 32 random directions, along the best of `motion`, and steered.**

All rows of a model start from one slice, on which everything can be measured.
Straight rows go from a shift of -6 to 6, steered ones from 1.5 standard deviations of the factor below to 1.5 above.
Under each picture stands what is measured on it.
Percentages are selectivities, means over many slices; the random row is one set of 32.
*Chance* in the text is the median of a thousand such sets.
Nothing was selected: failures, such as rows that stand still or change what should hold, are here too.
All pictures are synthetic and not for diagnosis.
"""


if __name__ == "__main__":
    main()
