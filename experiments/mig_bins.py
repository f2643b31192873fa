"""How MIG depends on its number of bins: `python -m experiments.mig_bins`, on the phantom's models, into outputs/reference/methods."""

import pandas as pd

import lpdirs as lp
from lpdirs.discovery.methods import discover
from lpdirs.runs.models import measures_of
from lpdirs.runs.stage import open_run
from lpdirs.scores import disentanglement
from tests.notebooks.refresh import ROOT

REFERENCE = ROOT / "outputs" / "reference"
BINS = (5, 10, 20, 40)


def main() -> None:
    rows, stage = [], open_run(REFERENCE / "phantom")
    for label, (generator, found) in lp.load(REFERENCE / "phantom").items():
        z, factors = measures_of(stage, generator).sample(generator, 2000, 1)
        factors = factors.dropna()
        for method in ("the paper's", "motion", "pca", "random"):
            directions = found if method == "the paper's" else discover(generator, method, len(found))
            codes = (z @ directions.matrix.T).numpy()[factors.index]
            for bins in BINS:
                disentanglement.BINS = bins
                information = disentanglement.mutual_information(codes, factors.to_numpy())
                value = disentanglement.mig(information, factors.to_numpy())
                rows.append({"model": label[:3], "method": method, "bins": bins, "mig": round(value, 4)})
    pd.DataFrame(rows).to_csv(REFERENCE / "methods" / "mig_bins.csv", index=False)


if __name__ == "__main__":
    main()
