"""One HTML file that needs no server and no network: the generators draw in it, or where they cannot, it holds strips of what they drew."""

import base64
import io
import json
from collections.abc import Mapping
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
from lpdirs.measures.measures import Display, factor_words
from lpdirs.models.generators import Generator
from lpdirs.scores.steering import Steering
from lpdirs.show.live import live_page
from lpdirs.show.scene import check_models, title_of

WIDEST = 16383  # px of a WebP picture
LARGEST, ROOM = 10_000_000, 50_000  # bytes of a page of strips, and of what stands around its pictures
LARGEST_LIVE = 25_000_000  # bytes of a page in which generators draw


@checked
def share(
    models: Any,
    path: str | Path,
    display: InstanceOf[Display] | None = None,
    furthest: Positive = 4.5,
    frames: Count = 13,
    slices: Count = 5,
    note: str = "",
    *,
    live: bool | None = None,
    steering: Mapping[str, InstanceOf[Steering]] | None = None,
    starts: Mapping[str, Any] | None = None,
) -> Path:
    """Write the page to `path`; returns `path`. All models are shown as `display` says, by default as the first one's is.

    The generators themselves draw in it: any mixture of all directions up to shifts of `furthest`, from random images, and with `steering`
    (a label to what `fit_steering` gave) one factor at a time. `starts` (a label to z (N, d), of slices that were inverted, say) come
    before random images. That takes pip install 'lpdirs[live]' and at most 25 MB. Where it cannot be,
    a line says why and the page holds pre-rendered strips, as with live=False: from `slices` starting images, of `frames` (an odd number),
    with the factors that are read along the way, of as many directions as fit into 10 MB, the first ones of each model. With live=True it
    is a UserError that it cannot be; so it is where not one strip fits.
    """
    if frames % 2 == 0:
        raise UserError(f"frames must be odd, so that the unshifted image is among them, not {frames}")
    check_models(models)
    for name, given in (("steering", steering), ("starts", starts)):
        if unknown := sorted(set(given or {}) - set(models)):
            raise UserError(f"{name} is given for {unknown[0]!r}, and the models are {', '.join(models)}")
    if steering and live is False:
        raise UserError("steering takes a page in which the generators draw: leave live=False out, or steering")
    if next((part for part in Path(path).parents if part.exists()), Path()).is_file():
        raise UserError(f"{path} cannot be written: a folder of its path is a file")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    path, how = Path(path), display or next(iter(models.values()))[0].display
    if live is not False:
        try:
            page = live_page(models, how, steering or {}, starts or {}, furthest, note)
            if len(page) > LARGEST_LIVE:
                raise UserError(f"it would have {len(page) / 1e6:.0f} MB, and {LARGEST_LIVE / 1e6:.0f} are the most: share fewer models")
            return _written(path, page)
        except UserError as error:
            if live:
                raise
            print(f"The page holds strips, and no generator that draws: {error}")
    shifts = np.linspace(-furthest, furthest, frames).round(3)
    own = {label: list(torch.as_tensor(z).float()) for label, z in (starts or {}).items()}
    drawn = {label: [*own.get(label, []), generator.typical(), *generator.draw(slices - 1, 1)] for label, (generator, _) in models.items()}
    first = {label: z[:slices] for label, z in drawn.items()}
    content: dict[str, dict] = {
        label: {
            "name": title_of(label, directions),
            "factors": _factors(generator),
            "directions": [],
            "sprites": [[] for _ in first[label]],
        }
        for label, (generator, directions) in models.items()
    }
    size, room = 0, LARGEST - ROOM
    for rank in range(max(len(directions) for _, directions in models.values())):  # the first of each model, the second of each, ...
        for label, (generator, directions) in models.items():
            if rank >= len(directions) or room <= 0:
                continue
            k = directions.in_order()[rank]
            images = [generator.images(torch.cat([directions.shift(z[None], k, shift) for shift in shifts])) for z in first[label]]
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
    return _written(path, page)


def _written(path: Path, page: str) -> Path:
    write_atomic(path, page)
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
