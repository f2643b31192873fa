"""The thorax: what is measured on axial slices of chest CT, ready to use."""

from functools import partial
from numbers import Real

import pandas as pd
from torch import Tensor

from lpdirs.base.errors import UserError
from lpdirs.data.store import to_hu
from lpdirs.measures.anatomy import MEASURES, measure
from lpdirs.measures.measures import Measures
from lpdirs.measures.zposition import EXTENT, ZPosition

UNITS = {name: unit for name, (_, unit) in MEASURES.items()} | {"z_position": EXTENT}
FACTORS = ("rotation", "thickness", "breast", "y_position", "z_position", "x_position", "width")  # that directions are judged by
MAIN = FACTORS[:5]  # those that the paper names
TISSUE = ("lung_density", "lung_share", "mediastinum", "contrast", "skin_fat")  # no turn, shift or stretch is one of these
GROUPS = {"shape": FACTORS, "tissue": TISSUE, "all": FACTORS + TISSUE}


def measure_all(
    slices: Tensor,
    window: tuple[float, float],
    pixel_mm: float,
    z_position: ZPosition | None,
    names: tuple[str, ...] = tuple(MEASURES),
) -> pd.DataFrame:
    """The measures in `names` of slices (N, 1, S, S) in [-1, 1], with z_position where a regression is given."""
    hu = to_hu(slices[:, 0].numpy(), window)
    table = measure(hu, pixel_mm, names)
    if z_position is not None:
        table["z_position"] = z_position(hu)
    return table


def thorax(window: tuple[float, float], pixel_mm: float, z_position: ZPosition | None = None, factors: str = "shape") -> Measures:
    """Measures of chest slices whose values -1 and +1 are `window` in HU, with pixels of `pixel_mm`.

    Roll, thickness, breast size, position and width, measured on HU alone; z-position where a regression is given (`fit_z`). Breasts
    exist at some levels of the body alone, which z tells. With factors="tissue" how dense and large the lungs are, what lies between
    them, contrast agent and fat under the skin; "all" are both.
    """
    numbers = [*window, pixel_mm] if isinstance(window, tuple | list) and len(window) == 2 else []
    if not numbers or not all(isinstance(v, Real) for v in numbers) or not window[0] < window[1] or not pixel_mm > 0:
        raise UserError(f"thorax needs the window in HU that -1 and 1 stand for, and mm a pixel, not {window} and {pixel_mm}")
    if factors not in GROUPS:
        raise UserError(f"factors of the thorax must be {', '.join(GROUPS)}, not {factors!r}")
    chosen = [name for name in GROUPS[factors] if name != "z_position" or z_position is not None]
    return Measures(
        partial(
            measure_all,
            window=(float(window[0]), float(window[1])),
            pixel_mm=pixel_mm,
            z_position=z_position if "z_position" in chosen else None,
            names=tuple(name for name in chosen if name in MEASURES),
        ),
        {name: z_position.unit if name == "z_position" and z_position else UNITS[name] for name in chosen},
        tuple(name for name in MAIN if name in chosen),
        {"breast": ("z_position", 0.3, 0.7)} if "z_position" in chosen else {},
    )
