"""What any image has: brightness, contrast, place, size, shape, sharpness and colour. For images of which nothing else is known."""

import pandas as pd
import torch
from torch import Tensor

from lpdirs.measures.measures import Measures

UNITS = {
    "brightness": "of the range",
    "contrast": "of the range",
    "x_position": "half widths, to the right",
    "y_position": "half heights, down",
    "size": "half widths",
    "width_over_height": "doublings",
    "tilt": "correlation of x and y",
    "sharpness": "of the range a pixel",
}
COLOUR = {"red": "of the range, above the mean of the colours", "blue": "of the range, above the mean of the colours"}


def measure_moments(images: Tensor) -> pd.DataFrame:
    """The factors of UNITS, with colour also COLOUR, of images (N, C, S, S) in [-1, 1], a row an image.

    Place, size, shape and tilt are those of what differs from the border's median, weighted by how much; NaN where nothing does.
    """
    x = (images.double() + 1) / 2
    grey = x.mean(1)
    border = torch.cat([grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]], 1).median(1).values
    weight = (grey - border[:, None, None]).abs()
    total = weight.sum((1, 2))
    weight = weight / torch.where(total > 1e-3 * weight[0].numel(), total, torch.nan)[:, None, None]
    across, down = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in (grey.shape[2], grey.shape[1]))
    of_x, of_y = weight.sum(1), weight.sum(2)
    cx, cy = of_x @ across, of_y @ down
    xx, yy = of_x @ across.square() - cx.square(), of_y @ down.square() - cy.square()
    xy = torch.einsum("nyx,y,x->n", weight, down, across) - cx * cy
    gradient = torch.hypot(grey.diff(dim=1)[:, :, 1:], grey.diff(dim=2)[:, 1:])
    shape = {"size": (xx + yy).sqrt(), "width_over_height": 0.5 * torch.log2(xx / yy), "tilt": xy / (xx * yy).sqrt()}
    table = {"brightness": grey.mean((1, 2)), "contrast": grey.std((1, 2)), "x_position": cx, "y_position": cy, **shape}
    table["sharpness"] = gradient.mean((1, 2))
    if x.shape[1] == 3:
        table |= {"red": (x[:, 0] - grey).mean((1, 2)), "blue": (x[:, 2] - grey).mean((1, 2))}
    return pd.DataFrame({name: values.numpy() for name, values in table.items()})


def moments(channels: int = 1) -> Measures:
    """Measures of any images with 1 or 3 `channels`; better ones are of your own subject (`lp.Measures`)."""
    return Measures(measure_moments, UNITS | (COLOUR if channels == 3 else {}))
