"""The explorer's latency: from a slider's new value to new image bytes, and to pixels in a browser. python -m tests.benchmarks.explorer"""

import statistics
import tempfile
import time
from pathlib import Path

import torch

import lpdirs as lp
from lpdirs.base.compute import cores
from lpdirs.discovery.closed_form import random
from lpdirs.discovery.directions import Directions
from lpdirs.measures.measures import ct
from lpdirs.models.generators import Generator
from lpdirs.models.networks import Decoder, GeneratorNetwork
from lpdirs.show.explorer import Explorer
from tests.benchmarks.bench import write
from tests.browser import has_browser, jupyter_lab, page, run_all


def latency(module: GeneratorNetwork | Decoder, pixel_mm: float, moves: int = 30) -> dict:
    """Milliseconds, measurements and all three pictures included; outside a running kernel each change is drawn at once."""
    for _ in range(3):
        module(torch.randn(8, module.latent_dim))
    generator = Generator(module.eval(), module.latent_dim)
    explorer = Explorer(
        {"g": (generator, Directions(random(8, generator.latent_dim)))},
        lp.thorax((-1000.0, 1000.0), pixel_mm),
        ct((-1000.0, 1000.0)),
    )
    slider, taken = explorer.sliders[0], []
    for i in range(moves + 3):
        began = time.perf_counter()
        slider.value = round(-6 + 12 * i / (moves + 2), 1)
        taken.append(1000 * (time.perf_counter() - began))
        assert not slider.value or f"{slider.value:+.1f}" in explorer.status.value
    return {"median_ms": round(statistics.median(taken[3:]), 1), "worst_ms": round(max(taken[3:]), 1)}


CELL = """import torch
import lpdirs as lp
from lpdirs.discovery.closed_form import random
from lpdirs.discovery.directions import Directions
from lpdirs.models.networks import Decoder

decoder = Decoder(64, 32, 8)
for _ in range(3):
    decoder(torch.randn(8, 32))
lp.explore({"vae": (lp.as_generator(decoder.eval(), latent_dim=32), Directions(random(8, 32)))}, lp.thorax((-1000.0, 1000.0), 6.56))"""
PRESS = """async () => {
  const image = document.querySelector('.jp-OutputArea img.lpdirs-after');
  const handle = document.querySelector('.widget-slider .noUi-handle');
  const began = performance.now();
  const late = new Promise((done) => setTimeout(() => done(null), 2000));  // a move that changes no grey value sends no picture
  const painted = new Promise((done) => new MutationObserver((_, seen) => {
    seen.disconnect();
    image.decode().then(() => requestAnimationFrame(() => done(performance.now() - began)));
  }).observe(image, { attributes: true, attributeFilter: ['src'] }));
  handle.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight', bubbles: true }));
  return Promise.race([painted, late]);
}"""


def in_browser(moves: int = 30) -> dict:
    """Milliseconds from a key press on a slider to the frame after the new picture was decoded: JupyterLab and a headless Chromium."""
    with tempfile.TemporaryDirectory() as folder, jupyter_lab(Path(folder), CELL) as address, page() as tab:
        run_all(tab, address)
        taken = []
        for _ in range(moves + 3):
            taken.append(tab.evaluate(PRESS))
            tab.wait_for_timeout(150)
    taken = [ms for ms in taken if ms is not None]
    assert len(taken) > moves / 2, f"of {moves + 3} moves only {len(taken)} gave a picture"
    return {"median_ms": round(statistics.median(taken[3:]), 1), "worst_ms": round(max(taken[3:]), 1)}


def main() -> None:
    torch.set_num_threads(cores())
    torch.manual_seed(0)
    write(
        "explorer",
        {
            "demo GAN, 64 px": latency(GeneratorNetwork(64, 32, 16), 6.56),
            "demo VAE, 64 px": latency(Decoder(64, 32, 8), 6.56),
            "paper GAN, 128 px": latency(GeneratorNetwork(128, 32, 128), 3.28),
            "paper VAE, 128 px": latency(Decoder(128, 32, 64), 3.28),
            **({"demo VAE, 64 px, to pixels in a browser": in_browser()} if has_browser() else {}),
        },
    )


if __name__ == "__main__":
    main()
