"""Is it more than chance? A method's directions beside sets of random ones, scored alike. A minute and a half on two CPU cores.

    python examples/against_chance.py

Random directions move every factor too: what counts is how a method's scores lie among theirs.
"""

import pandas as pd

import lpdirs as lp
from lpdirs.base.places import home

SETS, SAMPLES, SHOWN = 12, 32, ["factors_named", "selectivity", "mig", "dci_disentanglement"]  # more sets give a finer answer

generator = lp.load(home() / "outputs" / "reference" / "demo" / "vae" / "vae.safetensors")
measures = lp.thorax(generator.info.window, generator.info.pixel_mm)
sample = measures.sample(generator, 600, seed=1)  # the same random slices for all


def scored(directions, seed=0):
    responses = lp.respond(generator, directions, measures, samples=SAMPLES, seed=seed)
    return lp.score(generator, directions, measures, responses, steps=5, seed=seed, sample=sample)


jacobian = scored(lp.discover(generator, "jacobian", k=8))
chance = pd.DataFrame([scored(lp.discover(generator, "random", k=8, seed=seed)) for seed in range(SETS)])
reach = {name: float((chance[name] >= jacobian[name]).mean()) for name in SHOWN}
table = pd.DataFrame({"jacobian": pd.Series(jacobian)[SHOWN], "random, mean": chance[SHOWN].mean(), "share that reach it": reach})
print(table.round(3))  # mig 0.10 against 0.01: none of twelve random sets reaches it
