"""What the measures can see: real slices moved by hand, and patients' own series. `python -m experiments.hand DATA`

DATA is the demo's data set (outputs/demo/data). Each of the five motions is put into real slices, by 1.5 standard deviations of its factor
either way, and what the seven factors then do is scored as along a direction; so is the way through the levels of each whole series, for z.
A model that moved one factor and nothing else would reach these selectivities, and no more. Writes outputs/reference/chest/by_hand.csv.
Two minutes on two cores.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lpdirs.base.files import read_json
from lpdirs.data.store import moved, open_dataset
from lpdirs.measures.measures import Measures
from lpdirs.measures.thorax import fit_z, thorax
from lpdirs.scores.response import Responses
from tests.notebooks.refresh import ROOT

OUT = ROOT / "outputs" / "reference" / "chest"
AMOUNTS, SLICES, WHOLE = (-1.5, -0.75, 0.0, 0.75, 1.5), 400, 10  # SDs; slices that are moved; slices of a series that counts as whole
MOTIONS = {"rotation": 0, "x_position": 3, "y_position": 4, "width": 1, "thickness": 2}  # factor: its column of `motions`


def by_motion(x: torch.Tensor, measures: Measures, spread: pd.Series, side_mm: float) -> np.ndarray:
    """Values (5, amounts, N, F) of slices (N, 1, S, S) in which one motion after the other was put."""
    mean, values = measures(x).mean(), []
    unit = {
        "rotation": spread["rotation"],
        "x_position": 2 * spread["x_position"] / side_mm,
        "y_position": 2 * spread["y_position"] / side_mm,
    }
    unit |= {name: spread[name] / mean[name] for name in ("width", "thickness")}
    for factor, column in MOTIONS.items():
        still = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0]).repeat(len(x), 1)
        parts = []
        for amount in AMOUNTS:
            motion = still.clone()
            motion[:, column] += float(amount * unit[factor])
            parts.append(measures(moved(x, motion)).to_numpy())
        values.append(np.stack(parts))
    return np.stack(values)


def main(data: Path) -> None:
    slices, train, test = (open_dataset(data, split) for split in (None, "train", "test"))
    about = read_json(data / "dataset.json")
    measures = thorax(slices.window, about["pixel_mm"], fit_z(train, test))
    x = slices.tensor(np.linspace(0, len(slices) - 1, SLICES).astype(int))
    spread = measures(x).std()
    values = by_motion(x, measures, spread, slices.size * about["pixel_mm"])
    scored = {"moved by hand": (list(MOTIONS), Responses(values, np.asarray(AMOUNTS), spread))}
    walks = []
    for _, rows in slices.table.groupby("series"):
        own = rows.sort_values("z_mm").index.to_numpy()
        if len(own) >= WHOLE:
            walks.append([own[int(i)] for i in np.linspace(0, len(own) - 1, len(AMOUNTS))])
    along = measures(slices.tensor(np.array(walks).T.ravel())).to_numpy().reshape(1, len(AMOUNTS), len(walks), -1)
    scored["along the patient's own series"] = ["z_position"], Responses(along, np.asarray(AMOUNTS), spread)
    found = []
    for way, (factors, responses) in scored.items():
        table = responses.table().set_index(["direction", "factor"])
        for k, factor in enumerate(factors):
            row = table.loc[(k, factor), ["selectivity", "selectivity_low", "selectivity_high", "r", "missing"]].abs()
            found.append({"way": way, "factor": factor, "n": responses.values.shape[2]} | row.to_dict())
    pd.DataFrame(found).to_csv(OUT / "by_hand.csv", index=False, float_format="%.4g")
    print(pd.DataFrame(found).round(3).to_string())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
