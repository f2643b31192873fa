"""read_slices(): a folder of images as slices, in one call."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from lpdirs.base.errors import UserError
from lpdirs.base.progress import Progress
from lpdirs.base.settings import Side
from lpdirs.data.build import build_dataset
from lpdirs.data.series import DataSettings
from lpdirs.data.store import Slices, open_dataset


def read_slices(
    source: str | Path, size: Side = 128, window: tuple[float, float] = (-1000.0, 1000.0), folder: str | Path | None = None
) -> Slices:
    """All usable slices of the files below `source` (DICOM, and what data_manifests/README.md lists besides), at `size` px.

    Values beyond `window` (HU) are clipped to it. What `Slices` holds: `hu` (N, size, size), `table` (a row a slice) and `tensor(rows)`,
    (n, 1, size, size) in [-1, 1], as models take them. The data set is written to `folder` (slices.npy, slices.csv, rejected.csv with a
    reason for each file that is not used) where one is given. What there is to know of the files is printed. UserError where nothing
    can be used.
    """
    if not isinstance(source, str | Path) or not str(source):
        raise UserError(f"read_slices takes the folder that holds your files, not {source!r}")
    if not isinstance(window, tuple | list) or len(window) != 2:
        raise UserError(f"window must be (lowest, highest) in HU, not {window!r}")
    settings = DataSettings(size=size, window_low=window[0], window_high=window[1])
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(folder or temporary)
        about = build_dataset(Path(source), target, settings, Progress("reading slices"))
        left_out = [f"left out: {', '.join(f'{n} {why}' for why, n in about['rejected'].items())}"] if about["rejected"] else []
        print(*[f"{about['slices']} slices of {about['patients']} patients", *left_out, *about["notes"]], sep="; ")
        slices = open_dataset(target)
        return slices if folder else replace(slices, hu=np.array(slices.hu))
