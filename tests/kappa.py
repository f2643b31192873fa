"""How many steps a fresh reconstructor needs, into outputs/reference/methods/kappa.csv: kappa_fresh along training, for K = 32 and 100.

python -m tests.kappa PHANTOM [--steps 3000]

The first is a folder of generators (gan1.safetensors, vae1.safetensors). Each set is found by the paper's method, or is random. About half
an hour on one core.
"""

import argparse
from pathlib import Path

import pandas as pd

from lpdirs.discovery.methods import discover
from lpdirs.models.files import load_generator
from lpdirs.scores.recoverability import recoverability
from tests.notebooks.refresh import ROOT

OUT = ROOT / "outputs" / "reference" / "methods" / "kappa.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("phantom", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    given = parser.parse_args()
    rows: list[dict] = []
    for path in (given.phantom / "vae1.safetensors", given.phantom / "gan1.safetensors"):
        generator = load_generator(path)
        for k in (32, 100):
            for method in ("random", "reconstructor"):
                found = recoverability(generator, discover(generator, method, k), given.steps, (0,))
                which = {"model": path.stem[:3], "training": int(path.stem[3:]), "method": method, "K": k}
                rows += [which | {"steps": step, "kappa": round(value, 4)} for step, value in found.curve.items()]
                pd.DataFrame(rows).to_csv(OUT, index=False)


if __name__ == "__main__":
    main()
