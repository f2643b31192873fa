"""A blind rating sheet: what do people see along a direction, when they do not know which method found it?

In a notebook, with examples/ on the path:

    from rating_sheet import RatingSheet, make_items, read_ratings

    models = lp.load("outputs/demo")  # {label: (generator, directions)}; add sets of random directions, so that chance is rated too
    RatingSheet(make_items(models, Path("ratings")), Path("ratings"), ["rotation", "thickness", "breast"])

Strips come in random order and without the method. Answers are saved one by one, one file a rater; `read_ratings` joins them with what
was behind each strip, and `fleiss_kappa` says how far raters agree beyond chance.
"""

import csv
import hashlib
import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from torch import nn

from lpdirs.base.errors import UserError
from lpdirs.base.files import write_atomic
from lpdirs.discovery.directions import Directions
from lpdirs.measures.measures import Display
from lpdirs.show.plots import film_strips, shift_heads, strip

COLUMNS = ("rater", "item", "answer", "free_text", "sure", "when")


@dataclass(frozen=True)
class Item:
    """One strip to be rated; `key` is opaque, `source` says which set and direction it is and is not shown."""

    key: str
    source: dict
    png: bytes


def make_items(
    models: dict[str, tuple[nn.Module, Directions]],
    folder: Path,
    each: int = 6,
    reach: float = 4.5,
    seed: int = 0,
    display: Display | None = None,
) -> list[Item]:
    """`each` random directions of every set in `models`, as strips without a name, in random order.

    What is behind each key goes to folder/key.json, which raters should not open.
    """
    rng, items = np.random.default_rng(seed), []
    shifts = np.linspace(-reach, reach, 7)
    for label, (generator, directions) in models.items():
        z, how = generator.typical(seed), (display or generator.display)
        for k in sorted(rng.choice(len(directions), min(each, len(directions)), replace=False).tolist()):
            fig = film_strips(strip(generator, directions, z, k, shifts, how)[None], shift_heads(shifts), [""], "", how)
            file = io.BytesIO()
            fig.savefig(file, format="png", dpi=110)
            plt.close(fig)
            key = hashlib.sha256(f"{seed} {label} {k}".encode()).hexdigest()[:10]
            items.append(Item(key, {"set": label, "direction": k}, file.getvalue()))
    order = rng.permutation(len(items))
    folder.mkdir(parents=True, exist_ok=True)
    key = json.dumps({item.key: item.source for item in items}, indent=1)
    write_atomic(folder / "key.json", key)
    return [items[i] for i in order]


class RatingSheet(widgets.VBox):
    """Shows the items one by one, with the measures' `factors` as answers. Each answer is added to folder/<rater>.csv at once, and a rater
    who comes back goes on."""

    def __init__(self, items: list[Item], folder: Path, factors: Sequence[str]):
        self.items, self.folder = items, folder
        self.rater = widgets.Text(description="your name", placeholder="initials will do")
        self.picture = widgets.Image(format="png", layout={"max_width": "100%"})
        self.answer = widgets.ToggleButtons(options=(*factors, "something else", "nothing"), value=None, style={"button_width": "auto"})
        self.free = widgets.Text(placeholder="in your own words, if you like", layout={"width": "30em"})
        self.sure = widgets.ToggleButtons(options=[("guess", 1), ("fairly sure", 2), ("sure", 3)], value=2, description="how sure")
        self.save, self.message = widgets.Button(description="Save and go on", button_style="primary"), widgets.Label()
        self.save.on_click(lambda _: self._save())
        self.rater.observe(lambda _: self._show(), "value")
        question = widgets.HTML("<b>What changes from left to right?</b> Choose what changes most.")
        super().__init__([self.rater, self.picture, question, self.answer, self.free, self.sure, self.save, self.message])
        self._show()

    @property
    def name(self) -> str:
        """The rater's name, as far as it can be a file's."""
        return "".join(c for c in self.rater.value if c.isalnum() or c in "-_")

    @property
    def path(self) -> Path:
        """Where this rater's answers are."""
        return self.folder / f"{self.name}.csv"

    def left(self) -> list[Item]:
        """Items that this rater has not answered."""
        done = set(pd.read_csv(self.path)["item"]) if self.path.exists() else set()
        return [item for item in self.items if item.key not in done]

    def _show(self) -> None:
        named, left = bool(self.name), self.left()
        self.save.disabled = not named or not left
        self.picture.value = left[0].png if left else b""
        self.answer.value, self.free.value = None, ""
        told = f"{len(self.items) - len(left)} of {len(self.items)} done" if named else "Give a name first: answers are saved under it."
        self.message.value = told if left else "All are done. Thank you."

    def _save(self) -> None:
        if self.answer.value is None:
            self.message.value = "Choose an answer first; “nothing” is one."
            return
        row = (
            self.rater.value,
            self.left()[0].key,
            self.answer.value,
            self.free.value,
            self.sure.value,
            time.strftime("%Y-%m-%dT%H:%M:%S"),
        )
        new = not self.path.exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(COLUMNS)
            writer.writerow(row)
        self._show()

    def __repr__(self) -> str:
        return "RatingSheet: answers can be given in JupyterLab, with a running kernel"


def read_ratings(folder: Path) -> pd.DataFrame:
    """All answers in `folder`, with the set and direction behind each item; empty where nobody has rated. UserError without key.json."""
    sheets = sorted(folder.glob("*.csv"))
    if not sheets:
        return pd.DataFrame(columns=[*COLUMNS, "set", "direction"])
    if not (folder / "key.json").exists():
        raise UserError(
            f"{folder.name}/key.json is missing: without it nobody knows what was rated; make the items again with the same seed"
        )
    key = pd.DataFrame(json.loads((folder / "key.json").read_text())).T.rename_axis("item").reset_index()
    return pd.concat([pd.read_csv(path) for path in sheets], ignore_index=True).merge(key, on="item")


def fleiss_kappa(counts: np.ndarray) -> float:
    """Agreement of raters beyond chance (Fleiss 1971) from counts (items, answers); all items rated equally often, by at least two."""
    counts = np.asarray(counts, float)
    n = counts.sum(1)
    if len(counts) == 0 or n.min() != n.max() or n[0] < 2:
        return float("nan")
    share = counts.sum(0) / counts.sum()
    agreed = ((counts**2).sum(1) - n) / (n * (n - 1))
    chance = (share**2).sum()
    return float((agreed.mean() - chance) / (1 - chance)) if chance < 1 else float("nan")
