"""The page in which the shipped models of real chest CT draw: outputs/reference/live.html. python -m experiments.page (make page)

About two minutes on two cores, of which a minute is for learning how factors go with z.
"""

import lpdirs as lp
from experiments.chest_figures import OUT, K
from lpdirs.scores.steering import Steering, fit_steering
from tests.notebooks.refresh import ROOT

TARGET = ROOT / "outputs" / "reference" / "live.html"
SETS = tuple(f"{name}-{kind}" for kind in (f"motion{K}", f"unit{K}-lenet", f"random{K}") for name in ("gan", "vae"))


def main() -> None:
    known = lp.load(OUT)
    models = {label: known[label] for label in SETS if label in known}
    steering = {}
    for name in ("gan", "vae"):
        kept = ROOT / "build" / f"steering_{name}.safetensors"
        if not kept.exists():
            fit_steering(models[f"{name}-motion{K}"][0]).save(kept)
        steering[f"{name}-motion{K}"] = Steering.load(kept)
    note = "Models of 1,801 slices of 281 patients, real chest CT (outputs/reference/chest)."
    path = lp.share(models, TARGET, note=note, live=True, steering=steering)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
