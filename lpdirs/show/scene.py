"""What the explorer shows, without its widgets: an image of a model, moved along directions, measured, and exported."""

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from lpdirs.base.errors import UserError
from lpdirs.base.files import write_atomic
from lpdirs.discovery.directions import Directions
from lpdirs.measures.measures import Display, Measures
from lpdirs.models.generators import Generator
from lpdirs.scores.inversion import Inversion
from lpdirs.scores.steering import Steered, Steering, fit_steering, steer
from lpdirs.show.plots import NOTICE, mark

LEAST_SIDE = 256  # px of exported pictures
FORMAT = "lpdirs.scene/3"
QUICK = 4  # rounds of a steered path while a slider moves
LEARNED = 2000  # random images from which it is learned how factors go with z: half a minute to a minute at 128 px
Models = dict[str, tuple[Generator, Directions]]


def check_models(models: Models) -> None:
    """UserError unless `models` maps labels to pairs of a generator and directions of it."""
    pairs = models.values() if isinstance(models, dict) else ()
    if not pairs:
        raise UserError('there is nothing to show: give {"a name": (generator, directions)}')
    if not all(isinstance(label, str) for label in models):
        raise UserError(f"the labels of models must be text, not {', '.join(map(repr, models))}")
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], Generator) and isinstance(pair[1], Directions)):
            raise UserError('models must be {"a name": (generator, directions)}, in this order')
        pair[1].check(pair[0])


def title_of(label: str, directions: Directions) -> str:
    """What a set is called for readers: in words, where its label is its own; one's own label as it is."""
    return directions.id.title if label == directions.id.label else label


@dataclass
class Scene:
    """One view: `models` maps labels to (generator, directions), `label` chooses, `seed` draws z, `shifts` move it, and from there
    `changes` of factors, in their units, steer it while the others hold. A `seed` of -1 is the first slice of `starts`, which were put
    into latent space; with `keep` what the generator cannot draw of it is added to what it draws.

    Without `measures` nothing is measured; without `how` the display is that of the generator.
    """

    models: Models
    measures: Measures | None = None
    how: Display | None = None
    label: str = ""
    seed: int = 0
    shifts: dict[int, float] = field(default_factory=dict)
    preset: str = "full"
    changes: dict[str, float] = field(default_factory=dict)
    starts: dict[str, Inversion] = field(default_factory=dict)
    keep: bool = False
    quick: bool = False  # steer by what was learned and QUICK rounds, while a slider moves
    learned: dict[Generator, Steering] = field(default_factory=dict)  # sets of directions share a generator
    _drawn: tuple = (None, None)
    _steered: tuple = (None, None)

    def __post_init__(self) -> None:
        check_models(self.models)
        if self.measures is not None and not isinstance(self.measures, Measures):
            raise UserError(f"measures must be lp.Measures(function, units), not {type(self.measures).__name__}")
        for label, put in self.starts.items():
            if label not in self.models:
                raise UserError(f"starts are for {label!r}, and here are {', '.join(self.models)}: give them under one of these labels")
            if put.z.shape[1] != self.models[label][0].latent_dim:
                raise UserError(f"the starts of {label!r} have {put.z.shape[1]} dimensions: invert them again with this generator")
        self.label = self.label or next(iter(self.models))

    @property
    def display(self) -> Display:
        """How the chosen model's images are shown."""
        return self.how or self.generator.display

    @property
    def measuring(self) -> Measures:
        """What the chosen model's images are measured with: what was given, else the generator's own."""
        return self.measures or self.generator.measures

    @property
    def generator(self) -> Generator:
        """The chosen model's generator."""
        return self.models[self.label][0]

    @property
    def directions(self) -> Directions:
        """The chosen model's directions."""
        return self.models[self.label][1]

    def z(self, moved: bool = True) -> Tensor:
        """The latent vector (1, d), with or without the shifts."""
        if not moved:
            return self.starts[self.label].z[-self.seed - 1][None] if self.seed < 0 else self.generator.draw(1, self.seed)
        return self.steered().end if self.changes else self._shifted()

    def _shifted(self) -> Tensor:
        z = self.z(moved=False)
        for k, shift in sorted(self.shifts.items()):
            z = self.directions.shift(z, k, shift)
        return z

    @property
    def steering(self) -> Steering:
        """How the chosen model's factors go with z, learned at the first need."""
        if self.generator not in self.learned:
            self.learned[self.generator] = fit_steering(self.generator, self.measuring, LEARNED)
        return self.learned[self.generator]

    def steered(self) -> Steered:
        """The path from the shifted z by which `changes` are reached; computed once for a view."""
        z = self._shifted()
        view = self.label, self.quick, tuple(z[0].tolist()), tuple(sorted(self.changes.items()))
        if self._steered[0] != view:
            how: dict[str, Any] = {"rounds": QUICK, "probes": 0} if self.quick else {}
            self._steered = view, steer(self.generator, z, self.changes, self.measuring, steering=self.steering, **how)
        return self._steered[1]

    def values(self, images: Tensor) -> np.ndarray:
        """Images as values in the display's unit, (N, S, S), of colour (N, S, S, 3)."""
        return self.display.pictures(images)

    def both(self) -> Tensor:
        """The image before and after the shifts, (2, 1, S, S) in [-1, 1]; the first is drawn once for a model and seed."""
        if self._drawn[0] != (self.label, self.seed):
            self._drawn = (self.label, self.seed), self.generator.images(self.z(False))
        both = torch.cat([self._drawn[1], self.generator.images(self.z())])
        if not (self.keep and self.seed < 0):
            return both
        put = self.starts[self.label]
        return (both + put.slices[-self.seed - 1] - self._drawn[1]).clamp(-1, 1)

    @property
    def called(self) -> str:
        """The image before it is moved, in words."""
        return f"held-out {self.display.noun} {-self.seed}" if self.seed < 0 else f"{self.display.noun} {self.seed}"

    def read(self, both: Tensor) -> dict[str, tuple[float, float]]:
        """What is measured before and after, NaN where an image cannot be measured."""
        table = self.measuring(both)
        return {name: (table[name][0], table[name][1]) for name in table}

    def typical(self) -> float:
        """Share of the prior that lies further out than the moved z."""
        return float(self.generator.typicality(self.z())[0])

    def state(self) -> dict:
        """What is needed to see the same again, with the same models."""
        shifts = {str(k): round(float(shift), 6) for k, shift in sorted(self.shifts.items()) if shift}
        changes = {name: round(float(change), 6) for name, change in sorted(self.changes.items()) if change}
        return {"format": FORMAT, "model": self.label, "seed": self.seed, "shifts": shifts, "changes": changes} | {
            "preset": self.preset,
            "keep": self.keep,
        }

    def restore(self, state: dict) -> None:
        """Go to a `state`; UserError where it is another kind of file or belongs to other models."""
        if state.get("format") != FORMAT:
            raise UserError(f"this is no saved state of the explorer (format {state.get('format')!r}, not {FORMAT!r})")
        if state["model"] not in self.models:
            raise UserError(f"the state belongs to model {state['model']!r}, and here are {', '.join(self.models)}")
        shifts = {int(k): float(shift) for k, shift in state["shifts"].items()}
        largest = len(self.models[state["model"]][1])
        if any(not 0 <= k < largest for k in shifts):
            raise UserError(f"the state moves direction {max(shifts)}, and {state['model']} has {largest}")
        changes = {str(name): float(change) for name, change in state.get("changes", {}).items()}
        there = (self.measures or self.models[state["model"]][0].measures).factors
        if unknown := sorted(set(changes) - set(there)):
            raise UserError(f"the state changes {', '.join(unknown)}, and here {', '.join(there)} are measured")
        if int(state["seed"]) < -self.held_out(state["model"]):
            raise UserError(f"the state starts from held-out {self.display.noun} {-int(state['seed'])}, which is not here")
        preset = state["preset"] if state["preset"] in (self.how or self.models[state["model"]][0].display).greys else "full"
        self.label, self.seed, self.shifts, self.preset = state["model"], int(state["seed"]), shifts, preset
        self.changes, self.keep = changes, bool(state.get("keep", False))

    def held_out(self, label: str) -> int:
        """How many slices of `starts` there are for a model."""
        return len(self.starts[label].z) if label in self.starts else 0

    def grey(self, values: np.ndarray) -> np.ndarray:
        """Values as 8-bit grey, in the chosen preset."""
        return self.display.to_grey(values, self.preset)

    def film(self, k: int, furthest: float, frames: int) -> np.ndarray:
        """Values (frames, S, S) along direction k from the present image, there and back."""
        shifts = np.linspace(-furthest, furthest, frames)
        z = self.z()
        values = self.values(self.generator.images(torch.cat([self.directions.shift(z, k, shift) for shift in shifts])))
        return np.concatenate([values, values[-2:0:-1]])

    def save_png(self, path: Path) -> Path:
        """The moved image as a picture, marked as synthetic in its pixels and in its metadata, with the state to reopen it."""
        info = PngInfo()
        info.add_text("Description", NOTICE)
        info.add_text("lpdirs", json.dumps(self.state()))
        return _write(path, _encoded(_marked(self.grey(self.values(self.both())[1])), "PNG", pnginfo=info))

    def save_gif(self, path: Path, k: int, furthest: float = 4.5, frames: int = 15) -> Path:
        """A direction there and back as GIF, marked as synthetic."""
        first, *others = [_marked(self.grey(frame)) for frame in self.film(k, furthest, frames)]
        return _write(path, _encoded(first, "GIF", save_all=True, append_images=others, duration=120, loop=0, comment=NOTICE))

    def save_state(self, path: Path) -> Path:
        """The state as a small JSON file."""
        return _write(path, json.dumps(self.state(), indent=1))

    def open_state(self, path: Path) -> None:
        """Restore what `save_state` wrote, or the state in a PNG of `save_png`."""
        self.restore(read_state(path.read_bytes(), path.name))

    def save_csv(self, path: Path) -> Path:
        """What is measured before and after, a row a factor with its unit."""
        units = self.measuring.units
        rows = [{"factor": name, "unit": units[name], "before": a, "after": b} for name, (a, b) in self.read(self.both()).items()]
        return _write(path, pd.DataFrame(rows).to_csv(index=False))


def read_state(content: bytes, name: str) -> dict:
    """The state in a file's content, JSON of `save_state` or a PNG of `save_png`."""
    if name.lower().endswith(".png"):
        with Image.open(io.BytesIO(content)) as picture:
            return json.loads(picture.info.get("lpdirs", "{}"))
    return json.loads(content)


def to_png(grey: np.ndarray) -> bytes:
    """8-bit grey or colour as PNG bytes, quickly."""
    return _encoded(Image.fromarray(grey), "PNG", compress_level=1)


def _encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def _marked(grey: np.ndarray) -> Image.Image:
    picture = Image.fromarray(grey)
    zoom = max(1, -(-LEAST_SIDE // picture.width))
    return mark(picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.BICUBIC))


def _write(path: Path, content: bytes | str) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content)
    return path
