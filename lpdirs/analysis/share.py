"""One HTML file that needs no server and no network: choose a model, a direction and a slice, and drag."""

import base64
import io
import json
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from lpdirs.analysis.plots import CT_WINDOW, to_grey, walk
from lpdirs.discovery.directions import Directions
from lpdirs.errors import UserError
from lpdirs.files import write_atomic
from lpdirs.generative.generators import typical_z

LIMIT = 800  # HU at the ends of the difference's colours
LARGEST = 10_000_000  # bytes


def share(
    models: dict[str, tuple[nn.Module, Directions]],
    window: tuple[float, float],
    path: Path,
    reach: float = 4.5,
    frames: int = 13,
    slices: int = 3,
    seed: int = 0,
    note: str = "",
) -> Path:
    """Write the page to `path` from pre-rendered strips of all directions, named ones first; returns `path`.

    `frames` is odd, so that the unshifted slice is among them. UserError where the file would be larger than 10 MB.
    """
    if frames % 2 == 0:
        raise UserError(f"frames must be odd, so that the unshifted slice is among them, not {frames}")
    steps = np.linspace(-reach, reach, frames).round(3)
    size, content = 0, []
    for label, (generator, directions) in models.items():
        names = directions.metadata.get("names", {})
        order = sorted(range(len(directions)), key=lambda k, names=names: (str(k) not in names, names.get(str(k), ""), k))
        starts = [typical_z(generator, directions.latent_dim, seed)]
        starts += list(torch.randn(slices - 1, directions.latent_dim, generator=torch.Generator().manual_seed(seed + 1)))
        strips = [[walk(generator, directions, z, k, steps, window) for k in order] for z in starts]
        size = strips[0][0].shape[-1]
        titles = [
            {"name": f"{directions.name(k)} ({k})" if str(k) in names else directions.name(k), "words": _words(directions, k)}
            for k in order
        ]
        content.append({"name": label, "directions": titles, "sprites": [[_sprite(x) for x in row] for row in strips]})
    data = {"size": size, "steps": steps.tolist(), "window": CT_WINDOW, "limit": LIMIT, "note": note, "models": content}
    template = resources.files("lpdirs.analysis").joinpath("share.html").read_text()
    page = template.replace("__DATA__", json.dumps(data).replace("<", "\\u003c"))
    if len(page) > LARGEST:
        raise UserError(f"the page would have {len(page) / 1e6:.0f} MB: share fewer slices, frames or models")
    write_atomic(path, lambda partial: partial.write_text(page))
    return path


def _words(directions: Directions, k: int) -> str:
    return directions.metadata.get("words", {}).get(str(k), "not measured")


def _sprite(strip: np.ndarray) -> str:
    """Frames (n, S, S) in HU side by side, as WebP in base64."""
    file = io.BytesIO()
    Image.fromarray(np.concatenate(list(to_grey(strip)), axis=1)).save(file, "WEBP", quality=88, method=4)
    return base64.b64encode(file.getvalue()).decode()
