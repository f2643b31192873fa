"""What made the committed results: scripts that are run by hand, over hours, from the top of the clone."""

import argparse
from pathlib import Path

FACTORS = ("rotation", "breast", "thickness", "y_position", "z_position", "x_position", "width")  # in the order of the tables
MODELS = {"gan": "GAN", "vae": "VAE"}


def data_and_folder(about: str | None) -> tuple[Path, Path]:
    """What scripts are given that train: the data set, and the folder that keeps trainings."""
    parser = argparse.ArgumentParser(description=(about or "").split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    return given.data, given.folder
