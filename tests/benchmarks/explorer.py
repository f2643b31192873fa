"""The explorer's latency: from a slider's new value to new image bytes. python -m tests.benchmarks.explorer"""

import statistics
import time

import torch

from lpdirs.analysis.explorer import Explorer
from lpdirs.cluster import cores
from lpdirs.discovery.closed_form import random
from lpdirs.discovery.directions import Directions
from lpdirs.generative.dcgan import Generator
from lpdirs.generative.vae import Decoder
from tests.benchmarks.bench import write


def latency(generator, pixel_mm: float, moves: int = 30) -> dict:
    """Milliseconds, measurements and all three pictures included; outside a running kernel each change is drawn at once."""
    for _ in range(3):
        generator(torch.randn(8, generator.latent_dim))
    explorer = Explorer({"g": (generator.eval(), Directions(random(8, generator.latent_dim)))}, (-1000.0, 1000.0), pixel_mm=pixel_mm)
    slider, taken = explorer.sliders[0], []
    for i in range(moves + 3):
        began = time.perf_counter()
        slider.value = round(-6 + 12 * i / (moves + 2), 1)
        taken.append(1000 * (time.perf_counter() - began))
        assert not slider.value or f"{slider.value:+.1f}" in explorer.status.value
    return {"median_ms": round(statistics.median(taken[3:]), 1), "worst_ms": round(max(taken[3:]), 1)}


def main() -> None:
    torch.set_num_threads(cores())
    torch.manual_seed(0)
    write(
        "explorer",
        {
            "demo GAN, 64 px": latency(Generator(64, 32, 16), 6.56),
            "demo VAE, 64 px": latency(Decoder(64, 32, 8), 6.56),
            "paper GAN, 128 px": latency(Generator(128, 32, 128), 3.28),
            "paper VAE, 128 px": latency(Decoder(128, 32, 64), 3.28),
        },
    )


if __name__ == "__main__":
    main()
