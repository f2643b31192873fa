"""The directions of a trained run: opened, looked at, and measured anew. A minute; expected numbers stand beside the calls.

    python examples/trained_run.py

The run "chest" comes with the project; one of your own lies in outputs/<name>.
"""

import lpdirs as lp
from lpdirs.base.places import home

run = home() / "outputs" / "reference" / "chest"
models = lp.load(run)  # {"gan-motion32": (generator, directions), "vae-motion32": ..., "gan-unit32-lenet": ..., ...}
generator, directions = models["vae-motion32"]

for k in directions.in_order()[:7]:
    print(f"{directions.title(k):30}{directions.words(k)}")  # rotation earns a name; the others are the best for a factor

best = directions.info.best["thickness"]  # as it was found when the run was made
k = best.direction
print(
    f"direction {k}: body thickness, selectivity {best.selectivity:.2f} (chance {best.chance:.2f}), {best.slope:.1f} mm per unit of shift"
)

# the same from the weights, from 16 starting slices of another seed
measures = lp.thorax(generator.info.window, generator.info.pixel_mm)
alone = lp.Directions(directions.matrix[[k]])
again = lp.respond(generator, alone, measures, samples=16, seed=1).table().set_index("factor").loc["thickness"]
print(f"measured again: r {again['r']:.2f}, {again['slope']:.1f} mm per unit of shift")  # r 0.98, 12.8 mm

lp.strips(generator, directions, k=[k], title=f"VAE, {directions.title(k)}").savefig("trained_run.png")
