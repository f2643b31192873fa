"""The same chest, thicker: change one factor by so many mm while the others hold. A minute on two CPU cores.

    python examples/steer.py

A straight direction changes several factors at once; steering measures on the way, and corrects.
"""

import lpdirs as lp
from lpdirs.base.places import home

generator = lp.load(home() / "outputs" / "reference" / "demo" / "vae" / "vae.safetensors")
measures = lp.thorax(generator.info.window, generator.info.pixel_mm)
# steering does what it is fed: factors="both", with {"thickness": 20, "lungs_depth": 15} below, moves outline and inside together

steering = lp.fit_steering(generator, measures, samples=2000)  # how the factors go with z, learned from random images
print({name: round(r2, 2) for name, r2 in steering.r2.items()})  # how much of each z tells

z = generator.draw(4, seed=1)
thicker = lp.steer(generator, z, {"thickness": (10, 20)}, measures, steering=steering)  # mm, one after the other; all other factors hold
print(thicker.table().round(1))  # asked, reached, what else moved, and why each path ended
print(thicker.change.round(1))  # of every factor, in its unit
lp.strips(generator, thicker, title="the same chest, 20 mm thicker").savefig("thicker.png", dpi=144)
lp.gif(generator, thicker, "thicker.gif")
models = {"VAE": (generator.but(measures=measures), lp.discover(generator, "motion", k=8))}
lp.share(models, "thicker.html", steering={"VAE": steering}, starts={"VAE": z})  # a slider in mm for each factor, beside the directions
