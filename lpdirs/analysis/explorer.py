"""Sliders that move a slice along directions (ipywidgets)."""

import io

import ipywidgets as widgets
import numpy as np
import torch
from PIL import Image
from torch import nn

from lpdirs.analysis.plots import to_grey
from lpdirs.data.store import to_hu
from lpdirs.discovery.directions import Directions


def to_png(hu: np.ndarray) -> bytes:
    """A slice (S, S) in HU as a grey PNG in the figures' window."""
    file = io.BytesIO()
    Image.fromarray(to_grey(hu)).save(file, "PNG", compress_level=1)
    return file.getvalue()


class Explorer(widgets.HBox):
    """Choose a model, draw a slice, and move it with a slider a direction; several directions add up.

    `models` maps a label to (generator, directions); `window` is the data set's, in HU; `reach` the sliders' end.
    """

    def __init__(self, models: dict[str, tuple[nn.Module, Directions]], window: tuple[float, float], reach: float = 6.0, seed: int = 0):
        self.models, self.window_hu, self.reach = models, window, reach
        self.model = widgets.ToggleButtons(options=list(models), description="model", style={"button_width": "auto"})
        self.seed = widgets.BoundedIntText(seed, 0, 2**31 - 1, description="slice", layout={"width": "12em"})
        self.new, self.reset = widgets.Button(description="New z"), widgets.Button(description="Reset")
        self.image = widgets.Image(format="png", layout={"width": "320px", "height": "320px"})  # the browser enlarges it
        self.status = widgets.Label()
        self.panel = widgets.VBox(layout={"max_height": "420px", "overflow": "auto", "width": "30em", "display": "block"})
        self.model.observe(self._choose, "value")
        self.seed.observe(self._draw, "value")
        self.new.on_click(lambda _: setattr(self.seed, "value", (self.seed.value + 1) % 2**31))
        self.reset.on_click(lambda _: self.set_steps({}))
        left = widgets.VBox([self.model, widgets.HBox([self.seed, self.new, self.reset]), self.image, self.status])
        super().__init__([left, self.panel])
        self._choose()

    def _choose(self, _=None) -> None:
        self.generator, self.directions = self.models[self.model.value]
        self.sliders = [
            widgets.FloatSlider(
                0.0,
                min=-self.reach,
                max=self.reach,
                step=0.1,
                description=self.directions.name(k),
                continuous_update=True,
                readout_format="+.1f",
                style={"description_width": "12em"},
                layout={"width": "28em"},
            )  # fmt: skip
            for k in range(len(self.directions))
        ]
        for slider in self.sliders:
            slider.observe(self._draw, "value")
        self.panel.children = self.sliders
        self._draw()

    def set_steps(self, steps: dict[int, float]) -> None:
        """Put the sliders of the given directions to these steps and all others to 0, with one redraw."""
        self._held = True
        for k, slider in enumerate(self.sliders):
            slider.value = steps.get(k, 0.0)
        self._held = False
        self._draw()

    @torch.inference_mode()
    def slice(self) -> np.ndarray:
        """The slice that is shown, (S, S) in HU."""
        z = torch.randn(1, self.generator.latent_dim, generator=torch.Generator().manual_seed(self.seed.value))
        steps = torch.tensor([[slider.value for slider in self.sliders]])
        moved = z + steps @ self.directions.matrix
        device = next(self.generator.parameters(), z).device
        return to_hu(self.generator(moved.to(device)).cpu()[0, 0].numpy(), self.window_hu)

    def __repr__(self) -> str:
        return "Explorer: the sliders are live in JupyterLab, with a running kernel"

    _held = False

    def _draw(self, _=None) -> None:
        if self._held:
            return
        self.image.value = to_png(self.slice())
        moved = [f"{self.directions.name(k)} {s.value:+.1f}" for k, s in enumerate(self.sliders) if s.value]
        self.status.value = "shift: " + (", ".join(moved) or "none") + " (synthetic, not for diagnosis)"
