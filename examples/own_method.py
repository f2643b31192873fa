"""A method of discovery of your own, beside the paper's and chance. A minute on two CPU cores.

    python examples/own_method.py

A run takes it from the file: python -m lpdirs run --method examples/own_method.py:thirds
"""

import torch

import lpdirs as lp
from lpdirs.base.places import home


@lp.method("thirds", title="differences of thirds", about="from the darker to the brighter third of the images")
def thirds(generator: lp.Generator, k: int, seed: int) -> torch.Tensor:
    """k rows (k, d): from the mean z of images that are dark to that of those that are bright, in k parts of the picture."""
    z = generator.draw(600, seed)
    rows = generator.images(z).mean((1, 3))  # brightness of each row of pixels (N, S)
    parts = torch.stack([part.mean(1) for part in rows.chunk(k, 1)], 1)  # (N, k)
    order = parts.argsort(0)
    return torch.stack([z[order[400:, i]].mean(0) - z[order[:200, i]].mean(0) for i in range(k)])


if __name__ == "__main__":
    generator = lp.load(home() / "outputs" / "reference" / "demo" / "vae" / "vae.safetensors")
    measures = lp.thorax(generator.info.window, generator.info.pixel_mm)
    short = lp.DiscoverySettings(steps=60)  # the paper's method takes settings: 60 steps are too few, and quick
    found = {
        "thirds": lp.discover(generator, "thirds", 8),
        "the paper's": lp.discover(generator, "reconstructor", 8, settings=short),
        "random": lp.discover(generator, "random", 8),
    }
    for title, directions in found.items():
        best = lp.respond(generator, directions, measures, samples=16).table().groupby("factor")["selectivity"].max()
        print(f"{title:12} selectivity of the purest direction of each factor, on average: {best.mean():.2f}")
