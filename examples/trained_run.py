"""The directions of a trained run: opened, looked at, and measured anew. Half a minute; expected numbers stand beside the calls.

    python examples/trained_run.py

The run "demo" comes with the project; one of your own lies in outputs/<name>.
"""

import pandas as pd

import lpdirs as lp
from lpdirs.base.places import home

run = home() / "outputs" / "reference" / "demo"
models = lp.load(run)  # {"gan-unit32-lenet": (generator, directions), "vae-unit32-lenet": ...}
generator, directions = models["vae-unit32-lenet"]

for k in directions.in_order()[: len(directions.info.names)]:
    print(f"{directions.title(k):20}{directions.words(k)}")  # five earn a name: rotation (24), thickness (4), ...

table = pd.read_csv(run / "directions" / "vae-unit32-lenet" / "responses.csv")
best = table[table["factor"] == "rotation"].sort_values("r", key=abs).iloc[-1]
k = int(best["direction"])
print(f"direction {k}: rotation, r {best['r']:.2f}, {best['slope']:.2f} degrees per unit of shift")  # r -0.98, -2.62 degrees

# the same from the weights: 32 starting slices in place of 256
measures = lp.thorax(generator.info.window, generator.info.pixel_mm)
alone = lp.Directions(directions.matrix[[k]])
again = lp.respond(generator, alone, measures, samples=32).table().set_index("factor").loc["rotation"]
print(f"measured again: r {again['r']:.2f}, {again['slope']:.2f} degrees per unit of shift")  # r -0.99, -2.50 degrees

lp.strips(generator, directions, k=[k], title=f"vae, {directions.title(k)}").savefig("trained_run.png")
