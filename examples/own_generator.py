"""Your own generator: what its directions do, in numbers. About a minute on two CPU cores; expected numbers stand beside the calls.

python examples/own_generator.py
"""

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits
from torch import nn

import lpdirs as lp

# A generator of another kind of image: digits of 8 x 8 px as the sum of their twelve principal patterns, enlarged to 32 px.
digits = load_digits().images / 16
patterns = np.linalg.svd((digits - digits.mean(0)).reshape(len(digits), -1), full_matrices=False)


class Digits(nn.Module):
    """z (B, 12) to images (B, 1, 32, 32) from 0 to 1."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(12, 64)
        spread = torch.tensor(patterns.S[:12] / np.sqrt(len(digits)), dtype=torch.float32)
        self.mix.weight.data = torch.tensor(patterns.Vh[:12].T, dtype=torch.float32) * spread
        self.mix.bias.data = torch.tensor(digits.mean(0).ravel(), dtype=torch.float32)

    def forward(self, z):
        small = self.mix(z).clamp(0, 1).reshape(-1, 1, 8, 8)
        return nn.functional.interpolate(small, scale_factor=4, mode="bilinear")


def ink(images):
    """What is measured: how much ink there is, and how far its centre lies to the right and down."""
    x = (images[:, 0].double() + 1) / 2
    total, axis = x.sum((1, 2)), torch.linspace(-1, 1, x.shape[-1], dtype=torch.float64)
    return pd.DataFrame({"ink": total, "right": (x.sum(1) @ axis) / total, "down": (x.sum(2) @ axis) / total})


generator = lp.as_generator(Digits(), latent_dim=12, value_range=(0, 1), name="digits")
measures = lp.Measures(ink, {"ink": "px", "right": "half widths", "down": "half heights"})

directions = lp.discover(generator, "jacobian", k=6)  # what changes most pixels most
responses = lp.respond(generator, directions, measures, samples=64)
table = responses.table().set_index(["direction", "factor"])
print(table.loc[0, ["slope", "r", "selectivity"]].round(2))  # direction 0 moves the ink to the right: slope 0.02, r 0.98

named = lp.name(generator, directions, responses, measures)
for k in named.in_order():
    print(f"{named.title(k):20}{named.words(k)}")  # best for right (2): mixed: mostly right, 79% of what it does

scores = lp.score(generator, named, measures, responses, steps=60)
print({name: round(scores[name], 2) for name in ("factors_named", "selectivity", "kappa_fresh")})  # 0, 0.7 and 1.0

steering = lp.fit_steering(generator, measures, samples=1000)
heavier = lp.steer(generator, generator.draw(4, seed=0), {"ink": 60}, measures, steering=steering)  # so much more ink; its centre holds
print(heavier.table().round(2))

lp.strips(generator, named).savefig("own_generator.png")
shown = generator.but(measures=measures)
lp.share({"digits": (shown, named)}, "own_generator.html", lp.Display((0, 1), noun="digit"), steering={"digits": steering})
# in a notebook: lp.explore({"digits": (generator, named)}, measures)
