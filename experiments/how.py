"""How it works in one picture: what is done, and what the paper's method, `motion` and steering each look for. `python -m experiments.how`

Writes outputs/reference/how.png from the shipped VAE, a minute on two cores; needs build/steering_vae.safetensors, which
`python -m experiments.page` makes.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

import lpdirs as lp
from experiments.front import start_of
from lpdirs.discovery.motion import MOTIONS, STEP, _fields, _small
from lpdirs.measures.measures import factor_words
from lpdirs.scores.steering import Steering
from lpdirs.show.plots import set_style
from tests.notebooks.refresh import ROOT

OUT = ROOT / "outputs" / "reference"
SHIFT, FACTOR, SDS, RANDOM = 2.0, "thickness", 1.5, 3  # of the pair of slices; what is steered, by so much; which random direction
BOX = {"boxstyle": "round,pad=0.35", "fc": "#eef3f8", "ec": "0.4"}


def parts(generator: lp.Generator, z: torch.Tensor, directions: lp.Directions, k: int) -> tuple[np.ndarray, str, float]:
    """What a small step along a direction changes, what of that is the one motion of the picture that explains most, and the rest,
    (3, H, W); which motion it is, and its share of the squares."""
    up, down, image = (_small(generator.images(directions.shift(z[None], k, shift))) for shift in (STEP, -STEP, 0.0))
    change, fields = ((up - down) / (2 * STEP)).double().flatten(), _fields(image)
    size = (fields.T @ change) / fields.square().sum(0)
    shares = size.square() * fields.square().sum(0) / change.square().sum()
    best = int(shares.argmax())
    moved = size[best] * fields[:, best]
    pictures = torch.stack([change, moved, change - moved]).view(3, *image.shape[1:]).numpy()
    return pictures, MOTIONS[best], float(shares[best])


def flow(ax: plt.Axes) -> None:
    """What is done with any direction."""
    ax.axis("off")
    said = (
        "z + shift × direction",
        "generator",
        "image",
        "measures:\nmm, degrees, HU",
        "|r|, selectivity",
        "beside 640\nrandom directions",
    )
    for i, text in enumerate(said):
        ax.text((i + 0.5) / len(said), 0.5, text, ha="center", va="center", fontsize=10, bbox=BOX, transform=ax.transAxes)
        if i:
            at = {"xy": ((i + 0.17) / len(said), 0.5), "xytext": ((i - 0.14) / len(said), 0.5), "xycoords": "axes fraction"}
            ax.annotate("", **at, textcoords="axes fraction", arrowprops={"arrowstyle": "->", "color": "0.4"}, zorder=0)


def show(ax: plt.Axes, picture: np.ndarray, title: str, **style: object) -> None:
    ax.imshow(picture, **style)
    ax.set_title(title, fontsize=9)
    ax.axis("off")


def main() -> None:
    set_style()
    models = lp.load(OUT / "chest")
    generator, found = models["vae-motion32"]
    by_chance, start = models["vae-random32"][1], start_of(generator)
    fig = plt.figure(figsize=(9.6, 5.6), layout="constrained")
    top, bottom = fig.subfigures(2, 1, height_ratios=[1, 5])
    flow(top.subplots())
    paper, motion, steering = bottom.subfigures(1, 3, width_ratios=[1, 1.75, 1.5])

    paper.suptitle("The paper: R must recognise\nwhich direction it was", fontsize=10)
    axes = paper.subplots(2, 1)
    pair = torch.stack([start, found.shift(start[None], found.info.best[FACTOR].direction, SHIFT)[0]])
    for ax, picture, title in zip(
        axes, generator.display.pictures(generator.images(pair)), ("G(z)", "G(z + shift × direction)"), strict=True
    ):
        show(ax, generator.display.to_grey(picture), title, cmap="gray", vmin=0, vmax=255)

    motion.suptitle("motion: the change is to be that of a shift,\na turn or a stretch of the picture", fontsize=10)
    rows = [(found, found.info.best["y_position"].direction, "found"), (by_chance, RANDOM, "random")]
    for line, (directions, k, who) in zip(motion.subplots(2, 3), rows, strict=True):
        pictures, which, share = parts(generator, start, directions, k)
        limit = float(np.quantile(np.abs(pictures), 0.995))
        heads = (f"{who}: change", f"{which}: {share:.0%}", "the rest")
        for ax, picture, title in zip(line, pictures, heads, strict=True):
            show(ax, picture, title, cmap="RdBu_r", vmin=-limit, vmax=limit)

    steering.suptitle("steering: each step is measured,\nand corrects the next", fontsize=10)
    known = Steering.load(ROOT / "build" / "steering_vae.safetensors")
    path = lp.steer(generator, start, {FACTOR: SDS}, unit="sd", steering=known)
    moved = (path.factors - path.factors[0]) / path.spread
    ax = steering.subplots()
    ax.axhline(SDS, color="0.5", ls=":", label="asked")
    for i, name in enumerate(path.names):
        own = name == FACTOR
        label = factor_words(name) if own else "the six others" if i == int(path.names[0] == FACTOR) else None
        ax.plot(moved[:, 0, i], color="C1" if own else "0.6", marker="." if own else None, lw=1.6 if own else 0.9, label=label)
    ax.set(xlabel="images that were drawn and measured", ylabel="change, SD")
    ax.legend(frameon=False, fontsize=8, loc="center right")
    fig.savefig(OUT / "how.png", dpi=110)


if __name__ == "__main__":
    main()
