"""How many steps a fresh reconstructor needs, into outputs/reference/methods/kappa_gan.csv and kappa_vae.csv, for K = 32 and 100.

python -m experiments.kappa MODEL PHANTOM [--steps 2000]

MODEL is gan or vae, PHANTOM a folder of generators (gan1.safetensors, vae1.safetensors). A set is found by the paper's method, or random.
About ten minutes on one core.
"""

import argparse
from pathlib import Path

import pandas as pd

from lpdirs.discovery.methods import discover
from lpdirs.models.files import load_generator
from lpdirs.scores.score import recoverability
from tests.conftest import ROOT

OUT = ROOT / "outputs" / "reference" / "methods"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", choices=("gan", "vae"))
    parser.add_argument("phantom", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    given = parser.parse_args()
    generator, rows = load_generator(given.phantom / f"{given.model}1.safetensors"), []
    for k in (32, 100):
        for method in ("random", "reconstructor"):
            found = recoverability(generator, discover(generator, method, k), given.steps, (0,))
            which = {"model": given.model, "training": 1, "method": method, "K": k}
            rows += [which | {"steps": step, "kappa": round(value, 4)} for step, value in found.curve.items()]
            pd.DataFrame(rows).to_csv(OUT / f"kappa_{given.model}.csv", index=False)


if __name__ == "__main__":
    main()
