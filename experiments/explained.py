"""One picture that explains straight directions and steering: what the other factors do while one goes. python -m experiments.explained

Writes outputs/reference/explained.png from the shipped models, five minutes on two cores; needs build/steering_<model>.safetensors, which
`python -m experiments.page` makes.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

import lpdirs as lp
from experiments import FACTORS, MODELS
from experiments.front import OUT, K
from lpdirs.measures.measures import factor_words
from lpdirs.scores.steering import Steering, steered_ends
from lpdirs.show.plots import set_style
from tests.notebooks.refresh import ROOT

STARTS, FAR, SDS = 48, 6.0, (0.375, 0.75, 1.125, 1.5)
SHOWN = ("thickness", "rotation")
WAYS = {"random32": "best of 32 random directions", "motion32": "best direction of motion", "steered": "steered"}


def changes(generator: lp.Generator, start: torch.Tensor, ends: list[torch.Tensor], factor: str, steering: Steering) -> np.ndarray:
    """Mean over the starts on which they can be measured all along, in SDs: change of the factor, and mean size of the others';
    (len(ends) + 1, 2), from 0."""
    names = [name for name in FACTORS if name != factor]
    spread = dict(zip(steering.factors, steering.spread, strict=True))
    known = generator.measures.of(generator, torch.cat([start, *ends])).to_dict("list")
    values = {name: np.reshape(known[name], (len(ends) + 1, -1)) / spread[name] for name in FACTORS}
    whole = {name: np.isfinite(values[name]).all(0) for name in FACTORS}  # slices on which it was measured all along
    moved = {name: (values[name] - values[name][0])[:, whole[factor] & whole[name]] for name in FACTORS}
    others = np.nanmean([np.abs(moved[name]).mean(1) for name in names if moved[name].size], axis=0)
    return np.stack([np.abs(moved[factor].mean(1)), others], 1)


def main() -> None:
    set_style()
    models = lp.load(OUT / "chest")
    fig, axes = plt.subplots(1, 4, figsize=(11, 3.1), sharey=True, layout="constrained")
    for ax, (name, factor) in zip(axes, [(name, factor) for factor in SHOWN for name in MODELS], strict=True):
        generator = models[f"{name}-motion{K}"][0]
        steering, start = Steering.load(ROOT / "build" / f"steering_{name}.safetensors"), generator.draw(STARTS, 4)
        ends = {}
        for way in ("random32", "motion32"):
            directions = models[f"{name}-{way}"][1]
            best = directions.info.best[factor]
            ends[way] = [
                directions.shift(start, best.direction, float(shift * np.sign(best.slope))) for shift in np.linspace(0, FAR, 7)[1:]
            ]
        ends["steered"] = list(steered_ends(generator, start, factor, SDS, steering=steering)[0])
        for way, words in WAYS.items():
            path = changes(generator, start, ends[way], factor, steering)
            ax.plot(path[:, 0], path[:, 1], marker=".", label=words, color={"random32": "0.55", "motion32": "C0", "steered": "C1"}[way])
        ax.set(title=f"{MODELS[name]}: {factor_words(factor)}", xlabel="the factor has changed by, SD", xlim=(0, None))
    axes[0].set_ylim(0, 1.4)
    axes[0].set_ylabel("the six others, on average, SD")
    axes[0].legend(frameon=False, fontsize=8)
    fig.suptitle("Along a straight line the others go too; a steered path is measured and corrected step by step")
    fig.savefig(OUT / "explained.png", dpi=110)


if __name__ == "__main__":
    main()
