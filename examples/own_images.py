"""Slices that exist, of your own files: put into latent space, edited, and steered. A minute; expected numbers stand beside the calls.

    python examples/own_images.py

The folder here is the sample of real chest CT that comes with the project; yours may hold DICOM, NIfTI, pictures and arrays.
"""

import lpdirs as lp
from lpdirs.base.places import home

slices = lp.read_slices(home() / "data_manifests" / "chest_ct" / "dicom", size=64)  # says how many, and what was left out
generator = lp.load(home() / "outputs" / "reference" / "demo" / "gan" / "generator.safetensors")
measures = lp.thorax(slices.window, generator.info.pixel_mm)

whole = measures(slices.tensor()).notna().all(axis=1)  # of which all factors can be measured: the frame cuts the others
some = slices.tensor(whole[whole].index[[0, 100, 200]].to_list())  # (3, 1, 64, 64) in [-1, 1]
put = lp.invert(generator, some, slices.window, steps=100)
print(put.error.round(), "HU lost of each slice, for a GAN cannot draw every slice")  # 150 to 250

directions = lp.discover(generator, "motion", 8)
turned = lp.edit(generator, directions, put, k=0, shift=2.0, residual=1.0)  # with what the GAN cannot draw added back
print((measures(turned) - measures(some)).round(1))  # what the edit changed, in degrees and mm

lower = lp.steer(generator, put.z, {"y_position": 10}, measures, steering=lp.fit_steering(generator, measures, samples=1500))
print(lower.table().round(1))  # 10 mm asked, what was reached, and how much else moved
