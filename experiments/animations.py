"""The five animations that the paper's authors publish, measured. `python -m experiments.animations`

Reads ../shared/paper_animations beside the checkout (julschoen/Latent-Space-Exploration-CT, MIT; every frame synthetic), 17 frames one
way each. Grey 0 to 255 is taken for -1000 to 2000 HU and a pixel for 2.73 mm, which fits and is a guess. Writes
outputs/reference/trainings/animations.csv: of each animation and factor, by the outline and by what lies inside, how far it goes in its
unit and in SDs of real slices, how regularly, on how many frames it can be measured, and its share of all that moves. A minute.
"""

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageSequence
from scipy import ndimage

import lpdirs as lp
from experiments.trainings import OUT
from lpdirs.data.store import open_dataset
from lpdirs.measures.thorax import UNITS, fit_z
from tests.notebooks.refresh import ROOT

GIFS = ROOT.parent / "shared" / "paper_animations"
WINDOW, PIXEL_MM, FRAMES = (-1000.0, 2000.0), 2.73, 17
OUTLINE = ("rotation", "thickness", "breast", "y_position", "x_position", "width")
NAMES = {"rotation": ("rotation", "axis_rotation"), "thickness": ("thickness", "lungs_depth"), "breast": ("breast",),
         "y_position": ("y_position", "spine_y"), "z_position": ("z_position",)}  # fmt: skip


def frames_of(name: str) -> torch.Tensor:
    """The frames of an animation one way, (17, 1, 128, 128) in [-1, 1], blurred by a pixel since they are dithered."""
    with Image.open(GIFS / f"{name}.gif") as film:
        grey = [np.asarray(frame.convert("L").resize((128, 128)), np.float32) for frame in ImageSequence.Iterator(film)]
    smooth = ndimage.gaussian_filter(np.stack(grey[:FRAMES]) / 127.5 - 1, (0, 1, 1))
    return torch.from_numpy(smooth)[:, None]


def main() -> None:
    data = ROOT / "outputs" / "demo" / "data"
    train, test = open_dataset(data, "train"), open_dataset(data, "test")
    z_position = fit_z(train, test)
    pixel = float(train.table["pixel_mm"].median())
    some = train.tensor(np.linspace(0, len(train) - 1, 800).astype(int))
    of = lambda window, mm, x: pd.concat([lp.thorax(window, mm, z_position)(x), lp.thorax(window, mm, factors="inner")(x)], axis=1)
    sd, rows = of(train.window, pixel, some).std(), []
    for name in NAMES:
        table = of(WINDOW, PIXEL_MM, frames_of(name))
        for group in ((*OUTLINE, "z_position"), tuple(n for n in table if n not in (*OUTLINE, "z_position"))):
            known = table[list(group)].loc[:, table[list(group)].notna().sum() > FRAMES / 2]
            goes = {f: v.dropna().iloc[-1] - v.dropna().iloc[0] for f, v in known.items()}
            whole = sum(abs(goes[f] / sd[f]) for f in goes)
            for factor in group:
                values = table[factor]
                row = {"animation": name, "factor": factor, "unit": UNITS[factor], "frames": int(values.notna().sum())}
                if factor in goes:
                    r = values.corr(pd.Series(np.arange(FRAMES, dtype=float)))
                    row |= {"moves": goes[factor], "sds": abs(goes[factor] / sd[factor]), "r": abs(r)}
                    row |= {"share": abs(goes[factor] / sd[factor]) / whole, "meant": factor in NAMES[name]}
                rows.append(row)
    pd.DataFrame(rows).to_csv(OUT / "animations.csv", index=False, float_format="%.4g")
    print(pd.DataFrame(rows).round(2).to_string())


if __name__ == "__main__":
    main()
