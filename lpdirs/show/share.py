"""One HTML file that needs no server and no network: choose a model, a direction and a slice, and drag."""

import base64
import io
import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import InstanceOf
from torch import Tensor

from lpdirs.base.checked import Count, Positive, checked
from lpdirs.base.errors import UserError
from lpdirs.base.files import write_atomic
from lpdirs.measures.display import Display
from lpdirs.measures.measures import factor_words
from lpdirs.models.generators import Generator
from lpdirs.show.scene import check_models, title_of

WIDEST = 16383  # px of a WebP picture
LARGEST, ROOM = 10_000_000, 50_000  # bytes of a page, and of what stands around its pictures


@checked
def share(
    models: Any,
    path: str | Path,
    display: InstanceOf[Display] | None = None,
    furthest: Positive = 4.5,
    frames: Count = 13,
    slices: Count = 5,
    note: str = "",
) -> Path:
    """Write the page to `path` from pre-rendered strips of all directions, named ones first; returns `path`.

    From `slices` starting images, up to a shift of `furthest`, with the factors that a generator's measures read along the way; `frames`
    is odd, so that the unshifted image is among them. All models are
    shown as `display` says, by default as the first one's is. The page takes as many directions as fit into 10 MB, the first ones of
    each model, and says how many it left out; UserError where not one fits.
    """
    if frames % 2 == 0:
        raise UserError(f"frames must be odd, so that the unshifted image is among them, not {frames}")
    check_models(models)
    if next((part for part in Path(path).parents if part.exists()), Path()).is_file():
        raise UserError(f"{path} cannot be written: a folder of its path is a file")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    path, shifts = Path(path), np.linspace(-furthest, furthest, frames).round(3)
    how = display or next(iter(models.values()))[0].display
    starts = {label: [generator.typical(), *generator.draw(slices - 1, 1)] for label, (generator, _) in models.items()}
    content: dict[str, dict] = {
        label: {
            "name": title_of(label, directions),
            "factors": _factors(generator),
            "directions": [],
            "sprites": [[] for _ in starts[label]],
        }
        for label, (generator, directions) in models.items()
    }
    size, room = 0, LARGEST - ROOM
    for rank in range(max(len(directions) for _, directions in models.values())):  # the first of each model, the second of each, ...
        for label, (generator, directions) in models.items():
            if rank >= len(directions) or room <= 0:
                continue
            k = directions.in_order()[rank]
            images = [generator.images(torch.cat([directions.shift(z[None], k, shift) for shift in shifts])) for z in starts[label]]
            strips = [how.pictures(x) for x in images]
            if size and size != strips[0].shape[1]:
                raise UserError(f"a page shows images of one size: {label} has {strips[0].shape[1]} px, others {size}; share them apart")
            size = strips[0].shape[1]
            if size * frames > WIDEST:
                raise UserError(f"{frames} frames of {size} px are wider than a picture may be: share at most {WIDEST // size} frames")
            sprites = [_sprite(x, how) for x in strips]
            read = [_read(generator, x) for x in images]
            room -= sum(map(len, sprites)) + len(directions.words(k)) + len(json.dumps(read)) + 200
            if room > 0:
                content[label]["directions"].append({"name": directions.title(k), "words": directions.words(k), "read": read})
                for row, sprite in zip(content[label]["sprites"], sprites, strict=True):
                    row.append(sprite)
    shown = {label: (len(content[label]["directions"]), len(directions)) for label, (_, directions) in models.items()}
    if not all(n for n, _ in shown.values()):
        raise UserError(f"not one direction of each model fits into {LARGEST / 1e6:.0f} MB: share fewer slices, frames or models")
    if any(n < of for n, of in shown.values()):
        few = "; ".join(f"{n} of the {of} directions of {title_of(label, models[label][1])}" for label, (n, of) in shown.items())
        note += f" To stay small the page shows {few}."
        print(note.strip())
    about = {"window": how.grey, "limit": how.difference, "unit": how.unit, "noun": how.noun, "note": note}
    data = about | {"size": size, "shifts": shifts.tolist(), "models": list(content.values())}
    template = resources.files("lpdirs.show").joinpath("share.html").read_text(encoding="utf-8")
    page = template.replace("__DATA__", json.dumps(data).replace("<", "\\u003c"))
    write_atomic(path, lambda partial: partial.write_text(page, encoding="utf-8"))
    return path


def _factors(generator: Generator) -> list[list[str]]:
    """Words and unit of each factor that the generator's measures read."""
    return [[factor_words(name), unit] for name, unit in generator.measures.units.items()]


def _read(generator: Generator, images: Tensor) -> list[list[float | None]]:
    """The factors of images (n, C, S, S), a row an image; None where one cannot be measured."""
    said = lambda v: None if not np.isfinite(v) else float(f"{v:.3g}") if abs(v) >= 0.01 else round(float(v), 3)
    return [[said(v) for v in row] for row in generator.measures(images).to_numpy()]


def _sprite(frames: np.ndarray, display: Display) -> str:
    """Frames (n, S, S) in the display's unit side by side, as WebP in base64."""
    file = io.BytesIO()
    Image.fromarray(np.concatenate(list(display.to_grey(frames)), axis=1)).save(file, "WEBP", quality=88, method=4)
    return base64.b64encode(file.getvalue()).decode()
