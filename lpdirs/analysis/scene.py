"""What the explorer shows, without its widgets: a slice of a model, moved along directions, measured, and exported."""

import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor, nn

from lpdirs.analysis.anatomy import measure
from lpdirs.analysis.marking import NOTICE, mark
from lpdirs.analysis.plots import CT_WINDOW
from lpdirs.analysis.quality import typicality
from lpdirs.analysis.zposition import ZPosition
from lpdirs.data.store import to_hu
from lpdirs.discovery.directions import Directions
from lpdirs.errors import UserError
from lpdirs.files import write_atomic
from lpdirs.generative.generators import generate

PRESETS = {"full": CT_WINDOW, "lung": (-1350, 150), "mediastinum": (-160, 240), "bone": (-450, 1050)}  # HU of black and white
LEAST_SIDE = 256  # px of exported pictures
FORMAT = "lpdirs.scene/1"
READ = ("rotation", "thickness", "width", "breast", "x_position", "y_position")


@dataclass
class Scene:
    """One view: `models` maps labels to (generator, directions), `label` chooses, `seed` draws z, `steps` moves it.

    `window` is the data set's, in HU; `pixel_mm` None leaves measurements out, `z_position` None leaves z out.
    """

    models: dict[str, tuple[nn.Module, Directions]]
    window: tuple[float, float]
    pixel_mm: float | None = None
    z_position: ZPosition | None = None
    label: str = ""
    seed: int = 0
    steps: dict[int, float] = field(default_factory=dict)
    preset: str = "full"
    _drawn: tuple = (None, None)

    def __post_init__(self):
        self.label = self.label or next(iter(self.models))

    @property
    def generator(self) -> nn.Module:
        """The chosen model's generator."""
        return self.models[self.label][0]

    @property
    def directions(self) -> Directions:
        """The chosen model's directions."""
        return self.models[self.label][1]

    def z(self, moved: bool = True) -> Tensor:
        """The latent vector (1, d), with or without the steps."""
        z = torch.randn(1, self.directions.latent_dim, generator=torch.Generator().manual_seed(self.seed))
        if moved:
            for k, eps in sorted(self.steps.items()):
                z = self.directions.shift(z, k, eps)
        return z

    def draw(self, z: Tensor) -> np.ndarray:
        """Slices (N, S, S) in HU for z (N, d)."""
        return to_hu(generate(self.generator, z)[:, 0].numpy(), self.window)

    def both(self) -> tuple[np.ndarray, np.ndarray]:
        """The slice before and after the steps, each (S, S) in HU; the first is drawn once for a model and seed."""
        if self._drawn[0] != (self.label, self.seed):
            self._drawn = (self.label, self.seed), self.draw(self.z(False))[0]
        return self._drawn[1], self.draw(self.z())[0]

    def read(self, before: np.ndarray, after: np.ndarray) -> dict[str, tuple[float, float]]:
        """Measured anatomy before and after; z-position where there is a regression, NaN where a slice cannot be measured."""
        if self.pixel_mm is None:
            return {}
        both = np.stack([before, after])
        table = measure(both, self.pixel_mm)
        values = {name: (table[name][0], table[name][1]) for name in READ}
        if self.z_position is not None:
            values["z_position"] = tuple(self.z_position(both))
        return values

    def typical(self) -> float:
        """Share of the prior that lies further out than the moved z."""
        return float(typicality(self.z())[0])

    def state(self) -> dict:
        """What is needed to see the same again, with the same models."""
        steps = {str(k): round(float(eps), 6) for k, eps in sorted(self.steps.items()) if eps}
        return {"format": FORMAT, "model": self.label, "seed": self.seed, "steps": steps, "preset": self.preset}

    def restore(self, state: dict) -> None:
        """Go to a `state`; UserError where it is another kind of file or belongs to other models."""
        if state.get("format") != FORMAT:
            raise UserError(f"this is no saved state of the explorer (format {state.get('format')!r}, not {FORMAT!r})")
        if state["model"] not in self.models:
            raise UserError(f"the state belongs to model {state['model']!r}, and here are {', '.join(self.models)}")
        steps = {int(k): float(eps) for k, eps in state["steps"].items()}
        largest = len(self.models[state["model"]][1])
        if any(not 0 <= k < largest for k in steps):
            raise UserError(f"the state moves direction {max(steps)}, and {state['model']} has {largest}")
        self.label, self.seed, self.steps, self.preset = state["model"], int(state["seed"]), steps, state["preset"]

    def grey(self, hu: np.ndarray) -> np.ndarray:
        """HU as 8-bit grey in the chosen window."""
        low, high = PRESETS[self.preset]
        return (np.clip((hu - low) / (high - low), 0, 1) * 255).astype(np.uint8)

    def walk(self, k: int, reach: float, frames: int) -> np.ndarray:
        """Slices (frames, S, S) in HU along direction k from the present slice, there and back."""
        there = np.linspace(-reach, reach, frames)
        z = self.z()
        hu = self.draw(torch.cat([self.directions.shift(z, k, eps) for eps in there]))
        return np.concatenate([hu, hu[-2:0:-1]])

    def save_png(self, path: Path) -> Path:
        """The moved slice as a picture, marked as synthetic in its pixels and in its metadata, with the state to reopen it."""
        info = PngInfo()
        info.add_text("Description", NOTICE)
        info.add_text("lpdirs", json.dumps(self.state()))
        return _write(path, lambda partial: _marked(self.grey(self.both()[1])).save(partial, "PNG", pnginfo=info))

    def save_gif(self, path: Path, k: int, reach: float = 4.5, frames: int = 15) -> Path:
        """A direction there and back as GIF, marked as synthetic."""
        pictures = [_marked(self.grey(hu)) for hu in self.walk(k, reach, frames)]
        save = lambda partial: pictures[0].save(
            partial, "GIF", save_all=True, append_images=pictures[1:], duration=120, loop=0, comment=NOTICE
        )
        return _write(path, save)

    def save_mp4(self, path: Path, k: int, reach: float = 4.5, frames: int = 25, rounds: int = 3) -> Path:
        """A direction there and back as MP4 (H.264), marked as synthetic."""
        pictures = [_marked(self.grey(hu)).convert("RGB") for hu in self.walk(k, reach, frames)] * rounds

        def encode(partial: Path) -> None:
            with av.open(str(partial), "w", format="mp4") as container:
                container.metadata["comment"] = NOTICE
                stream = container.add_stream("h264", rate=12)
                stream.width, stream.height = pictures[0].size
                stream.pix_fmt = "yuv420p"
                for picture in pictures:
                    container.mux(stream.encode(av.VideoFrame.from_image(picture)))
                container.mux(stream.encode())

        return _write(path, encode)

    def save_state(self, path: Path) -> Path:
        """The state as a small JSON file."""
        return _write(path, lambda partial: partial.write_text(json.dumps(self.state(), indent=1)))

    def open_state(self, path: Path) -> None:
        """Restore what `save_state` wrote, or the state in a PNG of `save_png`."""
        if path.suffix == ".png":
            with Image.open(path) as picture:
                content = picture.text.get("lpdirs", "{}")
        else:
            content = path.read_text()
        self.restore(json.loads(content))


def to_png(grey: np.ndarray) -> bytes:
    """8-bit grey or colour as PNG bytes, quickly."""
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _marked(grey: np.ndarray) -> Image.Image:
    picture = Image.fromarray(grey)
    zoom = max(1, -(-LEAST_SIDE // picture.width))
    return mark(picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.BICUBIC))


def _write(path: Path, save) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, save)
    return path
