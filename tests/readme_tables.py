"""The tables of results in the pages, from the committed files: `python -m tests.readme_tables` prints them."""

import json
import re

import pandas as pd

from lpdirs.runs.comparison import tested
from tests.bench_tables import compared, growth, shares, sharing, waits, workers
from tests.conftest import ROOT
from tests.folds import decisions, mean_errors

REFERENCE = ROOT / "outputs" / "reference"
ANALYSIS, CHEST = REFERENCE / "phantom" / "analysis", REFERENCE / "chest"
WORDS = {
    "rotation": "rotation",
    "thickness": "body thickness",
    "breast": "breast size",
    "y_position": "y-position",
    "z_position": "z-position",
}
ALL = WORDS | {"x_position": "x-position", "width": "body width"}
MODELS = ("gan", "vae")
UNITS = {"rotation": "degrees", "z_position": "of the lungs' extent"}  # the others are mm
SETS = {
    "motion32": "motion",
    "unit32-lenet": "the paper's, LeNet",
    "unit32-resnet18": "the paper's, ResNet-18",
    "orthonormal32-lenet": "the paper's, orthonormal, LeNet",
    "orthonormal32-resnet18": "the paper's, orthonormal, ResNet-18",
    "jacobian32": "Jacobian",
    "pca32": "PCA",
    "sefa32": "SeFa",
    "ica32": "ICA",
    "random32": "one random set",
}


def against_chance() -> list[str]:
    """A line each factor: selectivity, median of random sets, and how likely one of them lies as far out for any factor, of both models."""
    table = pd.read_csv(ANALYSIS / "against_chance.csv")
    lines = ["| factor | GAN | random | p, corrected | VAE | random | p, corrected |", "|---|---|---|---|---|---|---|"]
    for factor, words in WORDS.items():
        cells = []
        for model in MODELS:
            (row,) = table[table["set"].str.startswith(model) & (table["factor"] == factor)].to_dict("records")
            cells += [f"{row[name]:.2f}" for name in ("selectivity", "selectivity_chance", "selectivity_corrected")]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return lines


def prediction() -> list[str]:
    """A line each method: root mean square error of GAN and VAE, mean over patients, for each distance."""
    table = pd.read_csv(ANALYSIS / "prediction.csv")
    table["model"] = table["set"].str.partition("-")[0]
    mean = table.groupby(["model", "method", "gap", "patient"])["error"].mean().groupby(["model", "method", "gap"]).mean()
    gaps = sorted(table["gap"].unique())
    lines = [f"| | {' | '.join(f'{gap:.0f} mm' for gap in gaps)} |", "|---|" + "---|" * len(gaps)]
    for method in dict.fromkeys(table["method"]):
        lines.append(f"| {method} | {' | '.join(', '.join(f'{mean[m, method, gap]:.0f}' for m in MODELS) for gap in gaps)} |")
    return lines


def chest_directions(model: str) -> list[str]:
    """A line each factor: what `motion` finds in a model of real chest CT, and chance."""
    table = pd.read_csv(CHEST / "against_chance.csv")
    lines = ["| factor | direction | \\|r\\| | per unit of shift | selectivity | chance | p, corrected |", "|---|---|---|---|---|---|---|"]
    rows = table[(table["model"] == model) & (table["set"] == "motion32")].set_index("factor")
    for factor, words in ALL.items():
        row, p = rows.loc[factor], rows.loc[factor, "selectivity_corrected"]
        unit = f"{abs(row['slope']):.2g} {UNITS.get(factor, 'mm')}"
        cells = f"{abs(row['r']):.2f} | {unit} | {row['selectivity']:.2f} | {row['selectivity_chance']:.2f} | {p:.3f}"
        lines.append(f"| {words} | {int(row['direction'])} | {cells} |")
    return lines


def chest_sets() -> list[str]:
    """A line each method: mean selectivity and |r| over the seven factors, and names earned, in both models."""
    table = pd.read_csv(CHEST / "against_chance.csv")
    lines = ["| directions | GAN: selectivity | \\|r\\| | names | VAE: selectivity | \\|r\\| | names |", "|---|---|---|---|---|---|---|"]
    order = table.groupby("set")["selectivity"].mean().sort_values(ascending=False).index
    for name, words in sorted(SETS.items(), key=lambda pair: order.get_loc(pair[0])):
        cells = []
        for model in MODELS:
            rows = table[(table["model"] == model) & (table["set"] == name)]
            found = (
                (f"{rows['selectivity'].mean():.2f}", f"{rows['r'].abs().mean():.2f}", f"{rows['names'].iloc[0]}")
                if len(rows)
                else ("–",) * 3
            )
            cells += found
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return lines


def chest_quality() -> list[str]:
    """A line each training: distances to held-out patients."""
    table = pd.read_csv(CHEST / "quality.csv").set_index("model")
    lines = [
        "| slices | KID to held-out patients | Kolmogorov-Smirnov distance, mean of four factors "
        "| thickness not measurable | rotation | nearer to training |",
        "|---|---|---|---|---|---|",
    ]
    factors = ["thickness", "breast", "y_position", "rotation"]
    words = {"held-out slices": "held-out patients", "training slices": "training patients"}
    for name, row in table.iterrows():
        kid = f"{row['KID']:.2f} ± {row['KID_error']:.2f}" if row["KID"] == row["KID"] else "–"
        away = row[[f"KS {f}" for f in factors]].mean()
        copied = f"{row['copied']:.0%}" if row["copied"] == row["copied"] else "–"
        said = words.get(name, f"{name[:3].upper()}, training {name[3:]}")
        lost = f"{row['lost thickness']:.0%} | {row['lost rotation']:.0%}"
        lines.append(f"| {said} | {kid} | {'–' if away != away else f'{away:.2f}'} | {lost} | {copied} |")
    return lines


def chest_options() -> list[str]:
    """A line each short run that compared options."""
    lines = ["| short run | steps | KID to held-out patients | thickness not measurable | nearer to training |", "|---|---|---|---|---|"]
    for row in pd.read_csv(CHEST / "options.csv").itertuples():
        kid = f"{row.KID:.2f} ± {row.KID_error:.2f}"
        lines.append(f"| {row.run} | {row.steps:,} | {kid} | {row.lost_thickness:.0%} | {row.copied:.0%} |")
    return lines


def chest_kept() -> list[str]:
    """A line each factor: how well a slice that the VAE draws again keeps it."""
    table = pd.read_csv(CHEST / "kept.csv").set_index(["split", "factor"])
    lines = ["| drawn again by the VAE | training: r | held out: r | error | error of the mean | unit |", "|---|---|---|---|---|---|"]
    for factor, words in ALL.items():
        inside, outside = table.loc[("training", factor)], table.loc[("held out", factor)]
        error = " | ".join(f"{outside[name]:.2g}" for name in ("error", "error_of_mean"))
        lines.append(f"| {words} | {inside['r']:.2f} | {outside['r']:.2f} | {error} | {UNITS.get(factor, 'mm')} |")
    return lines


def chest_third() -> list[str]:
    """A line each way to predict a slice of a held-out patient from another: root mean square error in HU, mean over patients."""
    table = pd.read_csv(CHEST / "third_dimension.csv")
    mean = table.groupby(["method", "gap", "patient"])["error"].mean().groupby(["method", "gap"]).mean()
    gaps = sorted(table["gap"].unique())
    lines = [f"| | {' | '.join(f'{gap:.0f} mm' for gap in gaps)} |", "|---|" + "---|" * len(gaps)]
    return lines + [f"| {method} | {' | '.join(f'{mean[method, gap]:.0f}' for gap in gaps)} |" for method in dict.fromkeys(table["method"])]


def folds() -> list[str]:
    """A line each way to predict, every patient with a whole series held out once."""
    return mean_errors(pd.read_csv(CHEST / "folds.csv"))


def folds_tested() -> list[str]:
    """A line each comparison with the curved path."""
    return decisions(pd.read_csv(CHEST / "folds_tested.csv"))


def folds_anatomy() -> list[str]:
    """A line each way: how far factors of the slice 40 mm away are missed, mean over patients."""
    table = pd.read_csv(CHEST / "folds.csv").query("gap == 40")
    lines = [f"| | {' | '.join(ALL[name] + ', ' + UNITS.get(name, 'mm') for name in WORDS)} |", "|---|" + "---|" * len(WORDS)]
    for method, rows in table.groupby("method", sort=False):
        said = " | ".join(f"{rows[name].mean():.2f}" if name == "z_position" else f"{rows[name].mean():.1f}" for name in WORDS)
        lines.append(f"| {method} | {said} |")
    return lines


def chest_searches() -> list[str]:
    """A line each search of the paper's method on the shipped models: how long it went, and how well its own R knew the directions."""
    table = pd.read_csv(CHEST / "searches.csv")
    lines = ["| model | directions | K | steps | right, by its own R |", "|---|---|---|---|---|"]
    words = {"unit": "unit columns", "orthonormal": "orthonormal", "lenet": "LeNet", "resnet18": "ResNet-18"}
    for row in table.itertuples():
        basis, k, reconstructor = re.fullmatch(r"([a-z]+)(\d+)-(\w+)", row.set).groups()
        said = f"{words[basis]}, {words[reconstructor]} | {k} | {row.steps:,} | {row.accuracy:.0%}"
        lines.append(f"| {row.model.upper()} | {said} |")
    return lines


def chest_inversion() -> list[str]:
    """A line each model and split: how well slices are drawn again."""
    table = pd.read_csv(CHEST / "inversion.csv")
    lines = ["| slices | by | root mean square error, HU | SSIM | slices |", "|---|---|---|---|---|"]
    words = {"encoder": "VAE, encoder", "optimisation": "GAN, optimisation of z"}
    for (split, how), rows in table.groupby(["split", "how"], sort=False):
        lines.append(f"| {split} | {words[how]} | {rows['error'].mean():.0f} | {rows['ssim'].mean():.2f} | {len(rows)} |")
    return lines


def judged() -> list[str]:
    """A line each method: mean selectivity and |r| of the best direction of a factor, over the trainings that nothing was tuned on."""
    table = pd.read_csv(REFERENCE / "methods" / "judged.csv")
    table = table[(table["data"] == "chest") | (table["training"] > 0)]
    each = table.groupby(["method", "data", "model", "training"])[["selectivity", "r", "seconds"]].mean()
    groups = each.groupby(["method", "data", "model"]).mean()
    heads = [("phantom", "gan"), ("phantom", "vae"), ("chest", "gan"), ("chest", "vae")]
    lines = ["| method | " + " | ".join(f"{d}, {m.upper()}" for d, m in heads) + " |", "|---|" + "---|" * len(heads)]
    order = groups["selectivity"].groupby("method").mean().sort_values(ascending=False).index
    for method in order:
        cells = [
            f"{groups.loc[(method, *head), 'selectivity']:.2f} ({groups.loc[(method, *head), 'r']:.2f})"
            if (method, *head) in groups.index
            else "–"
            for head in heads
        ]
        lines.append(f"| {WAYS.get(method, method)} | {' | '.join(cells)} |")
    return lines


def linear() -> list[str]:
    """A line each factor: R2 of its linear prediction from z, lowest to highest over the trainings of each model."""
    table = pd.read_csv(REFERENCE / "methods" / "oracle.csv")
    heads = [("phantom", "gan"), ("phantom", "vae"), ("chest", "gan"), ("chest", "vae")]
    lines = ["| R2 of the oracle | " + " | ".join(f"{d}, {m.upper()}" for d, m in heads) + " |", "|---|" + "---|" * len(heads)]
    values = table.set_index(["data", "model", "factor"])["r2"].sort_index()
    for factor, words in ALL.items():
        each = [values[(*head, factor)] for head in heads]
        lines.append(f"| {words} | {' | '.join(f'{v.min():.2f} to {v.max():.2f}' for v in each)} |")
    return lines


def named() -> list[str]:
    """A line each method: of seven factors, how many are purer than chance (corrected) and how many earn a name, a number a training."""
    table = pd.read_csv(REFERENCE / "methods" / "named.csv")
    table = table[table["training"] > 0]
    lines = ["| method | GAN: purer than chance | named | VAE: purer than chance | named |", "|---|---|---|---|---|"]
    for method in dict.fromkeys(table["method"]):
        cells = []
        for model in MODELS:
            rows = table[(table["method"] == method) & (table["model"] == model)]
            cells += [", ".join(str(value) for value in rows[column]) for column in ("beyond_selectivity", "factors_named")]
        lines.append(f"| {WAYS.get(method, method)} | {' | '.join(cells)} |")
    return lines


def claims() -> list[str]:
    """The numbers behind the four claims, real CT first: what was found, what random directions or a plain picture give, and p."""
    real, folds = pd.read_csv(CHEST / "against_chance.csv"), pd.read_csv(CHEST / "folds_tested.csv").set_index(["against", "gap"])
    paper = real[real["set"] == "unit32-lenet"].groupby("model")
    beyond = lambda name: int((paper.get_group(name)["selectivity_corrected"] <= 0.05).sum())
    found = {name: (paper.get_group(name)["selectivity"].mean(), paper.get_group(name)["selectivity_chance"].mean()) for name in MODELS}
    lines = ["| claim | data | what was measured | found | chance, or without a model | p, corrected |", "|---|---|---|---|---|---|"]
    for name in MODELS:
        what = f"{name.upper()}: mean selectivity of the paper's directions; factors of seven beyond chance"
        lines.append(f"| 1, 2 | real CT | {what} | {found[name][0]:.2f}; {beyond(name)} | {found[name][1]:.2f} | – |")
    searched, tests = of_seeds(), seeds_comparisons().set_index(["one", "other", "generator", "score"])
    middle = searched.groupby(["generator", "method"])["selectivity"].median()
    for name in MODELS:
        p = tests.loc[("reconstructor", "random", name, "selectivity"), "holm"]
        what = f"{name.upper()}: mean selectivity of the paper's directions, median of thirty searches"
        lines.append(f"| 1, 2 | synthetic | {what} | {middle[name, 'reconstructor']:.2f} | {middle[name, 'random']:.2f} | {p:.2f} |")
    names = lambda label: ", ".join(str(real[(real["set"] == label) & (real["model"] == m)]["names"].iloc[0]) for m in MODELS)
    lines.append(f"| 3 | real CT | GAN, VAE: names that the paper's directions earn, and those of `motion` | {names('unit32-lenet')}; "
                 f"{names('motion32')} | one set in twenty | – |")  # fmt: skip
    table = pd.read_csv(REFERENCE / "methods" / "named.csv").query("training > 0").groupby("method")["factors_named"]
    said = "; ".join(f"{table.get_group(m).min()} to {table.get_group(m).max()}" for m in ("reconstructor", "motion"))
    lines.append(f"| 3 | synthetic | the same, of seven factors, over the trainings of both models | {said} | one set in twenty | – |")
    for against in ("mean slice of the level", "unchanged slice"):
        row = folds.loc[(against, 40)]
        p = f"{row['holm']:.3f}" if row["holm"] >= 0.001 else "below 0.001"
        what = f"VAE: error 40 mm away along the curved path, minus that of the {against}"
        lines.append(f"| 4 | real CT, 23 patients | {what} | {row['difference']:+.0f} HU | 0 | {p} |")
    return lines


def of_seeds() -> pd.DataFrame:
    """Every search of `python -m tests.seeds`, of both models."""
    return pd.concat([pd.read_csv(REFERENCE / "methods" / f"seeds_{model}.csv") for model in MODELS])


def seeds() -> list[str]:
    """A line each method: median over searches with lowest and highest, of mean selectivity and mean |r|."""
    rows = of_seeds()
    lines = ["| method | searches of each | GAN: selectivity | \\|r\\| | VAE: selectivity | \\|r\\| |", "|---|---|---|---|---|---|"]
    order = rows.groupby("method")["selectivity"].median().sort_values(ascending=False).index
    for method in order:
        cells = []
        for model in MODELS:
            part = rows[(rows["method"] == method) & (rows["generator"] == model)]
            for column in ("selectivity", "r"):
                low, middle, high = (part[column].quantile(q) for q in (0, 0.5, 1))
                cells.append(f"{middle:.2f} [{low:.2f}, {high:.2f}]")
        count = rows[rows["method"] == method].groupby("generator").size().min()
        lines.append(f"| {WAYS.get(method, method)} | {count} | {' | '.join(cells)} |")
    return lines


def seeds_comparisons() -> pd.DataFrame:
    """All differences that were asked of the searches of `python -m tests.seeds`."""
    pairs = [("reconstructor", "random"), ("reconstructor", "pca"), ("reconstructor", "jacobian"), ("motion", "reconstructor")]
    pairs += [("motion", "jacobian"), ("motion", "pca"), ("motion", "oracle-alone")]
    return tested(of_seeds(), pairs, ["selectivity", "r"])


def seeds_tested() -> list[str]:
    """A line each difference that holds after Holm's correction for all that were asked: one method minus another, on the same training."""
    table = seeds_comparisons()
    held = table[table["holm"] <= 0.05]
    words = {"selectivity": "selectivity", "r": "\\|r\\|"}
    lines = ["| one method minus another | model | score | difference | pairs | p, corrected |", "|---|---|---|---|---|---|"]
    for row in held.itertuples():
        said = f"{WAYS.get(row.one, row.one)} minus {WAYS.get(row.other, row.other)}"
        lines.append(f"| {said} | {row.generator.upper()} | {words[row.score]} | {row.difference:+.2f} | {row.n} | {row.holm:.3f} |")
    return lines + [f"| (of {len(table)} comparisons, {len(held)} hold) | | | | | |"]


def kappa_steps() -> list[str]:
    """A line each set: kappa of a fresh R along its training."""
    files = [REFERENCE / "methods" / f"kappa_{model}.csv" for model in MODELS]
    table = pd.concat([pd.read_csv(path) for path in files if path.exists()])
    steps = sorted(table["steps"].unique())
    lines = [f"| model | K | directions | {' | '.join(f'{n} steps' for n in steps)} |", "|---|---|---|" + "---|" * len(steps)]
    for (model, k, method), rows in table.groupby(["model", "K", "method"], sort=False):
        said = " | ".join(f"{value:.2f}" for value in rows.set_index("steps")["kappa"].reindex(steps))
        lines.append(f"| {model.upper()} | {k} | {WAYS.get(method, method)} | {said} |")
    return lines


def mig_bins() -> list[str]:
    """A line each model and set: MIG by the number of bins."""
    table = pd.read_csv(REFERENCE / "methods" / "mig_bins.csv")
    bins = sorted(table["bins"].unique())
    lines = [f"| model | directions | {' | '.join(f'{n} bins' for n in bins)} |", "|---|---|" + "---|" * len(bins)]
    for (model, method), rows in table.groupby(["model", "method"], sort=False):
        said = " | ".join(f"{value:.2f}" for value in rows.set_index("bins")["mig"].reindex(bins))
        lines.append(f"| {model.upper()} | {WAYS.get(method, method)} | {said} |")
    return lines


def gpu_steps() -> list[str]:
    """A line each task: milliseconds and memory of a step of batch 128 on a GPU."""
    steps = json.loads((REFERENCE / "bench" / "gpu.json").read_text())["steps"]
    words = {
        "gan, width 128, batch 128": "GAN, width 128",
        "vae, width 64, batch 128": "VAE, width 64",
        "discovery, lenet, K = 100, batch 128": "discovery, K = 100, LeNet",
        "discovery, resnet18, K = 100, batch 128": "discovery, K = 100, ResNet-18",
    }
    lines = []
    for name, said in words.items():
        ways = [
            steps[name].get(f"{precision}, compile {how}") for precision, how in (("fp32", "off"), ("bf16", "off"), ("bf16", "default"))
        ]
        taken = [f"{way['ms']:.0f} ms" if way else "–" for way in ways]
        lines.append(f"| {said} | {' | '.join(taken)} | {ways[0]['GiB']:.1f} GiB |")
    return lines


WAYS = {
    "reconstructor": "the paper's, LeNet", "jacobian": "Jacobian", "pca": "PCA", "oracle-alone": "oracle, alone", "ica": "ICA",
    "sefa": "SeFa", "sefa-released": "SeFa, as released", "local-basis": "local basis", "hessian": "Hessian penalty",
    "latentclr": "LatentCLR", "disco": "DisCo",
}  # fmt: skip
TABLES = {
    "notebooks/README.md": [gpu_steps],
    "CONTRIBUTING.md": [compared, shares, waits],
    "outputs/reference/README.md": [
        against_chance, prediction, claims, chest_sets, judged, linear, named, seeds, seeds_tested, mig_bins, kappa_steps, growth, sharing,
        workers,
    ],
    "outputs/reference/chest/README.md": [
        lambda: chest_directions("gan"), lambda: chest_directions("vae"), chest_sets, chest_searches, chest_quality, chest_options,
        chest_third,
        chest_inversion, chest_kept, folds, folds_tested, folds_anatomy,
    ],
}  # fmt: skip


def written(page: str) -> str:
    """A page with its tables as the committed files have them: each takes the place of the next one with the same head."""
    text, after = (ROOT / page).read_text(), dict[str, int]()
    for lines in (table() for table in TABLES[page]):
        head = "\n".join(lines[: 2 if lines[1].startswith("|---") else 1])
        if head not in text:  # rows alone, under a head of the page's own
            continue
        start = text.index(head, after.get(head, 0))
        end = next((i for i in range(start, len(text)) if text.startswith("\n", i) and not text.startswith("\n|", i)), len(text))
        text = text[:start] + "\n".join(lines) + text[end:]
        after[head] = start + len("\n".join(lines))
    return text


if __name__ == "__main__":
    for page in TABLES:
        (ROOT / page).write_text(written(page))
