"""One HTML file that needs no server and no network: choose a model, a direction and a slice, and drag."""

import base64
import io
import json
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

from lpdirs.base.errors import UserError
from lpdirs.base.files import write_atomic
from lpdirs.discovery.directions import Directions
from lpdirs.measures.display import Display, display_of
from lpdirs.models.generators import draw_z, typical_z
from lpdirs.show.plots import strip
from lpdirs.show.scene import check_models

LARGEST = 10_000_000  # bytes


def share(
    models: dict[str, tuple[nn.Module, Directions]],
    path: str | Path,
    display: Display | None = None,
    reach: float = 4.5,
    frames: int = 13,
    slices: int = 3,
    note: str = "",
) -> Path:
    """Write the page to `path` from pre-rendered strips of all directions, named ones first; returns `path`.

    From `slices` starting images, up to a shift of `reach`; `frames` is odd, so that the unshifted image is among them. All models are
    shown as `display` says, by default as the first one's is. UserError where the file would be larger than 10 MB.
    """
    if frames % 2 == 0:
        raise UserError(f"frames must be odd, so that the unshifted image is among them, not {frames}")
    check_models(models)
    if slices < 1:
        raise UserError(f"a page needs at least one starting image, not {slices}")
    path, shifts = Path(path), np.linspace(-reach, reach, frames).round(3)
    how = display_of(next(iter(models.values()))[0], display)
    size, content = 0, []
    for label, (generator, directions) in models.items():
        starts = [typical_z(generator), *draw_z(generator, slices - 1, 1)]
        order = directions.in_order()
        strips = [[strip(generator, directions, z, k, shifts, how) for k in order] for z in starts]
        if size and size != strips[0][0].shape[-1]:
            raise UserError(f"a page shows images of one size: {label} has {strips[0][0].shape[-1]} px, others {size}; share them apart")
        size = strips[0][0].shape[-1]
        titles = [{"name": directions.title(k), "words": directions.words(k)} for k in order]
        content.append({"name": label, "directions": titles, "sprites": [[_sprite(x, how) for x in row] for row in strips]})
    about = {"window": how.grey, "limit": how.difference, "unit": how.unit, "noun": how.noun, "note": note}
    data = about | {"size": size, "shifts": shifts.tolist(), "models": content}
    template = resources.files("lpdirs.show").joinpath("share.html").read_text(encoding="utf-8")
    page = template.replace("__DATA__", json.dumps(data).replace("<", "\\u003c"))
    if len(page) > LARGEST:
        raise UserError(f"the page would have {len(page) / 1e6:.0f} MB: share fewer slices, frames or models")
    write_atomic(path, lambda partial: partial.write_text(page, encoding="utf-8"))
    return path


def _sprite(frames: np.ndarray, display: Display) -> str:
    """Frames (n, S, S) in the display's unit side by side, as WebP in base64."""
    file = io.BytesIO()
    Image.fromarray(np.concatenate(list(display.to_grey(frames)), axis=1)).save(file, "WEBP", quality=88, method=4)
    return base64.b64encode(file.getvalue()).decode()
