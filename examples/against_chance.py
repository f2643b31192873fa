"""Is it more than chance? The best of a method's directions beside the best of as many random ones. A minute on two CPU cores.

    python examples/against_chance.py

Some random direction follows every factor too: what counts is how a method's best lies among theirs.
"""

import lpdirs as lp
from lpdirs.base.places import home

generator = lp.load(home() / "outputs" / "reference" / "demo" / "vae" / "vae.safetensors")
measures = lp.thorax(generator.info.window, generator.info.pixel_mm)
directions = lp.discover(generator, "jacobian", k=8)

band = lp.random_sets(generator, measures, k=8, samples=16)  # 160 random directions
table = band.place(generator, directions, measures)
print(table[["selectivity", "selectivity_chance", "selectivity_corrected"]].round(3))  # y-position 0.55, chance 0.41; none holds

rules = lp.Rules().beyond(band)  # what no random direction reaches: a set of 8 random ones earns a name in at most one case of twenty
named = lp.name(generator, directions, lp.respond(generator, directions, measures, samples=64), measures, chance=band)
earned = ", ".join(named.info.names.values()) or "none"
print(f"a name takes a selectivity of {rules.selectivity:.2f}, and a factor beyond chance; earned: {earned}")  # 0.50; none
