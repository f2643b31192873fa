"""What each option of training does to the models: short runs of the demo profile, judged on the validation patients.

python -m experiments.options DATA FOLDER      DATA is the demo's data set (outputs/demo/data), FOLDER keeps the trainings (resumed)

One option is changed at a time; the profile itself is trained with three seeds, which says how much of a difference is chance, and judged
on its way. Writes outputs/reference/chest/options_64.csv, a row a model that was judged; a row that is there is not made again. About an
hour on one core.
"""

import copy
from pathlib import Path

import pandas as pd

import lpdirs as lp
from experiments import data_and_folder
from experiments.chest import Judge
from experiments.chest_figures import OUT, generator_of
from lpdirs.base.checkpoints import train
from lpdirs.base.files import read_json
from lpdirs.data.store import open_dataset
from lpdirs.measures.thorax import fit_z
from lpdirs.models.training import GANTraining, VAETraining
from lpdirs.runs.settings import resolve
from lpdirs.scores.inversion import invert_by_encoder

TARGET = OUT / "options_64.csv"
STEPS = {"gan": (500, 1000, 2000), "vae": (300, 600, 1200)}  # at the last all are judged, and the profile itself at all of them
OPTIONS: dict[str, dict[str, dict]] = {
    "gan": {
        "the profile": {},
        "without differentiable augmentation": {"diffaugment": False},
        "without the paper's augmentation": {"augment": False},
        "without instance noise": {"noise": 0.0},
        "without spectral normalisation": {"spectral_norm": False},
        "R1 of weight 0.5 in place of it": {"spectral_norm": False, "r1": 0.5},
        "learning rate halved every 1,000 steps": {"halving": 1000},
        "without a moving average of the weights": {"ema": 0.0},
    },
    "vae": {
        "the profile": {},
        "KL weight 10": {"kl_weight": 10.0},
        "KL weight 100": {"kl_weight": 100.0},
        "the paper's loss, KL weight 0.01": {"loss": "paper", "kl_weight": 0.01},
        "without the paper's augmentation": {"augment": False},
        "learning rate halved every 600 steps": {"halving": 600},
    },
}


def main(data: Path, folder: Path) -> None:
    slices, held_out = open_dataset(data, "train"), open_dataset(data, "validation")
    about, profile = read_json(data / "dataset.json"), resolve("demo", {})
    measures = lp.thorax(slices.window, about["pixel_mm"], fit_z(slices, held_out))
    judge = Judge(slices, held_out, measures)
    rows = pd.read_csv(TARGET).to_dict("records") if TARGET.exists() else []
    if not rows:
        rows.append(
            {"model": "training slices", "option": "", "seed": 0, "steps": 0}
            | judge.slices(slices.tensor(), slices.table["patient"].to_numpy())
        )
    done = {(row["model"], row["option"], row["seed"], row["steps"]) for row in rows}
    for seed in (0, 1, 2):
        for kind, options in OPTIONS.items():
            for option, changed in options.items() if seed == 0 else [("the profile", {})]:
                own = profile.gan if kind == "gan" else profile.vae
                short = {"noise_steps": STEPS["gan"][-1] // 2} if kind == "gan" else {}
                settings = own.model_copy(update=short | {"seed": seed} | changed)
                training = GANTraining(slices, settings) if kind == "gan" else VAETraining(slices, settings)
                for steps in STEPS[kind] if option == "the profile" else STEPS[kind][-1:]:
                    which = {"model": kind, "option": option, "seed": seed, "steps": steps}
                    if tuple(which.values()) in done:
                        continue
                    train(training, steps, folder / f"{kind}-{list(options).index(option)}-{seed}", training.identity(about["fingerprint"]))
                    model = training.average if kind == "gan" else copy.deepcopy(training.vae).eval()
                    row = which | judge.samples(model if kind == "gan" else generator_of(model, settings.latent_dim))
                    if kind == "vae":
                        put = invert_by_encoder(model, generator_of(model, settings.latent_dim), held_out.tensor(), held_out.window)
                        row |= {"error": put.error.mean(), "ssim": put.ssim.mean()}
                    rows.append(row)
                    pd.DataFrame(rows).to_csv(TARGET, index=False, float_format="%.5g")
                    print(*which.values(), {name: round(float(row[name]), 2) for name in ("KID", "KID_error", "copied")}, flush=True)


if __name__ == "__main__":
    main(*data_and_folder(__doc__))
