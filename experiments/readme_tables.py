"""The tables of results in the pages, from the committed files: `python -m experiments.readme_tables` prints them."""

import json
import re

import pandas as pd

from experiments import FACTORS
from experiments.bench_tables import compared, growth, shares, sharing, waits, workers
from experiments.chest_figures import with_interval
from experiments.folds import decisions, mean_errors
from lpdirs.measures.measures import factor_words
from lpdirs.runs.comparison import collect, sorted_by, tested
from tests.conftest import ROOT

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
SECOND = {
    "axis_rotation": "axis of lungs and bones",
    "axis_x": "that axis",
    "spine_y": "the spine",
    "lungs_width": "the lungs",
    "lungs_depth": "the lungs",
}
MODELS = ("gan", "vae")
PANELS = ("real CT, GAN", "real CT, VAE", "phantom, GAN", "phantom, VAE")  # of the searches of `python -m experiments.seeds`
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
    """A line each factor: what `motion` finds in a model of real chest CT, measured again from other slices, and the set against chance."""
    table = pd.read_csv(CHEST / "against_chance.csv")
    lines = [
        "| factor | direction | \\|r\\| | per unit of shift | selectivity | the set's | chance | p, corrected |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = table[(table["model"] == model) & (table["set"] == "motion32")].set_index("factor")
    for factor, words in ALL.items():
        row = rows.loc[factor]
        unit = f"{abs(row['again_slope']):.2g} {UNITS.get(factor, 'mm')}"
        own = f"{with_interval(row, 'r')} | {unit} | {with_interval(row, 'selectivity')}"
        sets = f"{row['selectivity']:.2f} | {row['selectivity_chance']:.2f} | {row['selectivity_corrected']:.3f}"
        lines.append(f"| {words} | {int(row['direction'])} | {own} | {sets} |")
    return lines


def chest_away() -> list[str]:
    """A line each factor: Kolmogorov-Smirnov distances to held-out patients, and of as many training patients from the others."""
    away, between = pd.read_csv(CHEST / "quality.csv").set_index("model"), pd.read_csv(CHEST / "patients.csv").set_index("factor")
    lines = ["| factor | GAN | VAE | training slices | 29 training patients and the others |", "|---|---|---|---|---|"]
    for factor, words in ALL.items():
        of = " | ".join(f"{away.loc[name, f'KS {factor}']:.2f}" for name in ("gan0", "vae2", "training slices"))
        low, median, high = between.loc[factor, ["low", "median", "high"]]
        lines.append(f"| {words} | {of} | {median:.2f} [{low:.2f}, {high:.2f}] |")
    return lines


def chest_edits() -> list[str]:
    """A line each model and factor: what a shift along its best direction changes on held-out slices that were drawn again."""
    lines = ["| model | factor | on samples | on held-out slices | the right way | most other change, SD |", "|---|---|---|---|---|---|"]
    for row in pd.read_csv(CHEST / "edits.csv").to_dict("records"):
        unit = UNITS.get(row["factor"], "mm")
        change = f"{row['wanted']:.2g} {unit} | {row['change']:.2g} ± {row['sd']:.2g} {unit} | {row['right']:.0%} of {row['slices']:.0f}"
        other = f"{ALL[row['other']]} {row['other_sd']:.1f} (its own {row['own']:.1f})"
        lines.append(f"| {row['model'].upper()} | {ALL[row['factor']]} | {change} | {other} |")
    return lines


def chest_steering() -> list[str]:
    """A line each factor: selectivity steered and along `motion`'s best direction, and how much was reached of what was asked."""
    table = pd.read_csv(CHEST / "steering.csv").set_index(["model", "factor"])
    heads = "steered | motion | chance | reached | on slices |"
    lines = [f"| factor | GAN: {heads} VAE: {heads}", "|---" * 11 + "|"]
    for factor, words in ALL.items():
        cells = []
        for model in MODELS:
            row = table.loc[(model, factor)]
            cells.append(f"{row['selectivity']:.2f} [{row['selectivity_low']:.2f}, {row['selectivity_high']:.2f}]")
            cells += [f"{row[name]:.2f}" for name in ("motion", "chance")] + [f"{row[name]:.0%}" for name in ("reached", "measured")]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    means = [table.loc[model][["selectivity", "motion", "chance", "reached", "measured"]].mean() for model in MODELS]
    cells = [f"{m['selectivity']:.2f} | {m['motion']:.2f} | {m['chance']:.2f} | {m['reached']:.0%} | {m['measured']:.0%}" for m in means]
    return [*lines, f"| mean | {' | '.join(cells)} |"]


def chest_second() -> list[str]:
    """A line each factor: selectivity by a second definition, along what was fed or chosen by the first, or by both."""
    known = pd.read_csv(CHEST / "steering_second.csv")
    table = known.set_index(["model", "factor", "way"])["selectivity"].unstack("way")
    heads = "fed the outline | fed both | `motion` | random |"
    lines = [f"| factor, read by | GAN: {heads} VAE: {heads}", "|---" * 9 + "|"]
    ways = ("steered", "both", "motion", "random")
    for factor, second in known.drop_duplicates("factor").set_index("factor")["second"].items():
        cells = [f"{table.loc[(model, factor), way]:.2f}" for model in MODELS for way in ways]
        lines.append(f"| {ALL[factor]}, {SECOND[second]} | {' | '.join(cells)} |")
    means = [f"{table.loc[model][way].mean():.2f}" for model in MODELS for way in ways]
    return [*lines, f"| mean | {' | '.join(means)} |"]


def chest_kid() -> list[str]:
    """A line each model: KID of slices as drawn, steered and shifted as far along straight directions, over factors."""
    table = pd.read_csv(CHEST / "steering_kid.csv")
    lines = ["| model | as drawn | steered by 1.5 SDs | as far along `motion` | factors where steered is lower |", "|---" * 5 + "|"]
    for model, part in table.groupby("model", sort=False):
        start = part[part["way"] == "start"]["KID"].iloc[0]
        each = part[part["way"] != "start"].pivot(index="factor", columns="way", values="KID")
        spans = [f"{each[way].mean():.2f} [{each[way].min():.2f}, {each[way].max():.2f}]" for way in ("steered", "motion")]
        better = f"{int((each['steered'] < each['motion']).sum())} of {len(each)}"
        lines.append(f"| {model.upper()} | {start:.2f} | {' | '.join(spans)} | {better} |")
    return lines


def animated() -> list[str]:
    """A line each of the authors' animations and definition of what it is called: on how many frames, how far, and what else goes."""
    table = pd.read_csv(REFERENCE / "trainings" / "animations.csv")
    heads = "frames of 17 | goes | SDs of real slices | \\|r\\| | share of what moves | most else, SDs |"
    lines = [f"| animation | read by | {heads}", "|---" * 8 + "|"]
    meant = {"rotation": ("rotation", "axis_rotation"), "thickness": ("thickness", "lungs_depth"), "breast": ("breast", None)}
    meant |= {"y_position": ("y_position", "spine_y"), "z_position": ("z_position", None)}
    for name, (outline, inner) in meant.items():
        part = table[table["animation"] == name]
        for factor, others in ((outline, [*ALL]), (inner, [*SECOND])):
            row = part[part["factor"] == factor]
            if not len(row):
                continue
            row, rest = row.iloc[0], part[part["factor"].isin(others) & (part["factor"] != factor)].dropna(subset=["sds"])
            most = rest.loc[rest["sds"].idxmax()] if len(rest) else None
            else_ = f"{ALL.get(most['factor'], SECOND.get(most['factor']))} {most['sds']:.1f}" if most is not None else "–"
            by = "the level" if factor == "z_position" else "the outline" if factor in ALL else SECOND[factor]
            if pd.isna(row["moves"]):
                lines.append(f"| {ALL[name]} | {by} | {row['frames']} | – | – | – | – | {else_} |")
            else:
                goes = f"{row['moves']:+.2g} {row['unit']}"
                numbers = f"{row['sds']:.1f} | {row['r']:.2f} | {row['share']:.2f}"
                lines.append(f"| {ALL[name]} | {by} | {row['frames']} | {goes} | {numbers} | {else_} |")
    return lines


def rated() -> list[str]:
    """A line each set: directions that a rater names who sees nothing but the factor that moves most, if it moves regularly."""
    heads = "named of 32 | factors | their selectivity |"
    lines = [f"| directions | GAN: {heads} VAE: {heads}", "|---" * 7 + "|"]
    for label, words in SETS.items():
        cells = []
        for model in MODELS:
            path = CHEST / "directions" / f"{model}-{label}" / "responses.csv"
            if not path.exists():
                break
            table = pd.read_csv(path)
            most = table.loc[table["effect"].abs().groupby(table["direction"]).idxmax().dropna()]
            seen = most[(most["r"].abs() >= 0.8) & (most["effect"].abs() >= 0.1)]
            cells.append(f"{len(seen)} | {seen['factor'].nunique()} | {seen['selectivity'].mean():.2f}")
        if len(cells) == len(MODELS):
            lines.append(f"| {words} | {' | '.join(cells)} |")
    return lines


def planted() -> list[str]:
    """A line each model and method: selectivity of the best direction for each planted motion, in bold beyond random sets, corrected."""
    table = pd.read_csv(REFERENCE / "trainings" / "planted.csv")
    factors = ("rotation", "x_position", "y_position", "width", "thickness")
    lines = [f"| model | directions | {' | '.join(ALL[f] for f in factors)} | mean |", "|---" * 8 + "|"]
    for model, part in table.groupby("model", sort=False):
        for method, rows in part.groupby("method", sort=False):
            rows = rows.set_index("factor")
            said = [
                f"**{rows.loc[f, 'selectivity']:.2f}**"
                if rows.loc[f].get("selectivity_corrected", 1) <= 0.05
                else f"{rows.loc[f, 'selectivity']:.2f}"
                for f in factors
            ]
            name = WAYS.get(method, method)
            lines.append(f"| {model.upper()} | {name} | {' | '.join(said)} | {rows.loc[list(factors), 'selectivity'].mean():.2f} |")
        chance = part[part["method"] == "motion"].set_index("factor")["selectivity_chance"]
        lines.append(
            f"| {model.upper()} | random, median | {' | '.join(f'{chance[f]:.2f}' for f in factors)} | {chance[list(factors)].mean():.2f} |"
        )
    return lines


def chest_sets() -> list[str]:
    """A line each method: mean selectivity (of the set, and measured again) and |r| over the seven factors, and names earned."""
    table = pd.read_csv(CHEST / "against_chance.csv")
    heads = "selectivity | on other slices | \\|r\\| | names |"
    lines = [f"| directions | GAN: {heads} VAE: {heads}", "|---" * 9 + "|"]
    order = table.groupby("set")["selectivity"].mean().sort_values(ascending=False).index
    for name, words in sorted(SETS.items(), key=lambda pair: order.get_loc(pair[0])):
        cells = []
        for model in MODELS:
            rows = table[(table["model"] == model) & (table["set"] == name)]
            means = [rows[column].abs().mean() for column in ("selectivity", "again_selectivity", "r")]
            cells += [*(f"{mean:.2f}" for mean in means), str(rows["names"].iloc[0])] if len(rows) else ["–"] * 4
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


SHORT = {"KID": ".2f", "lost thickness": ".0%", "copied": ".0%", "error": ".0f", "ssim": ".2f"}


def _short(row: dict) -> str:
    cells = {name: f"{row[name]:{form}}" if row[name] == row[name] else "–" for name, form in SHORT.items()}
    cells["KID"] += f" ± {row['KID_error']:.2f}"
    return " | ".join(cells.values())


def chest_short() -> list[str]:
    """A line each short run at 64 px, judged on the validation patients (`python -m experiments.options`)."""
    table = pd.read_csv(CHEST / "options_64.csv").query("option == option")
    lines = [
        "| short run | KID to validation patients | thickness not measurable | nearer to training | error, HU | SSIM |",
        "|---" * 6 + "|",
    ]
    for model, rows in table.groupby("model"):
        for row in rows[rows["steps"] == rows["steps"].max()].sort_values("seed", kind="stable").to_dict("records"):
            seed = f", seed {row['seed']}" if row["option"] == "the profile" else ""
            lines.append(f"| {model.upper()}: {row['option']}{seed} | {_short(row)} |")
    return lines


def chest_short_steps() -> list[str]:
    """A line each stage of the profile's own short runs: the mean over three seeds, and KID of each."""
    table = pd.read_csv(CHEST / "options_64.csv").query("option == 'the profile'")
    lines = ["| model | steps | KID, three seeds | thickness not measurable | nearer to training | error, HU | SSIM |", "|---" * 7 + "|"]
    for (model, steps), rows in table.groupby(["model", "steps"]):
        mean, kid = rows[[*SHORT, "KID_error"]].mean(), ", ".join(f"{value:.2f}" for value in rows.sort_values("seed")["KID"])
        lines.append(f"| {model.upper()} | {steps:,} | {kid} | {_short(mean.to_dict()).partition(' | ')[2]} |")
    return lines


def chest_kept() -> list[str]:
    """A line each factor: how well a slice that the VAE draws again keeps it."""
    table = pd.read_csv(CHEST / "kept.csv").set_index(["split", "factor"])
    splits = ("training", "held out", "held out, refined")
    lines = ["| drawn again by the VAE | training: r | held out: r | error | refined: r | error | error of the mean | unit |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for factor, words in ALL.items():
        inside, outside, refined = (table.loc[(split, factor)] for split in splits)
        said = f"{inside['r']:.2f} | {outside['r']:.2f} | {outside['error']:.2g} | {refined['r']:.2f} | {refined['error']:.2g}"
        lines.append(f"| {words} | {said} | {outside['error_of_mean']:.2g} | {UNITS.get(factor, 'mm')} |")
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
    words = {"encoder": "VAE, encoder", "refined": "VAE, encoder, refined", "optimisation": "GAN, optimisation of z"}
    for (split, how), rows in table.groupby(["split", "how"], sort=False):
        lines.append(f"| {split} | {words[how]} | {rows['error'].mean():.0f} | {rows['ssim'].mean():.2f} | {len(rows)} |")
    return lines


def linear() -> list[str]:
    """A line each factor: R2 of its linear prediction from z, lowest to highest over the trainings of each model."""
    rows = searched().query("configuration == 'oracle'")
    lines = [f"| R2 of the oracle | {' | '.join(PANELS)} |", "|---|" + "---|" * len(PANELS)]
    for factor, words in ALL.items():
        each = [rows.loc[rows["generator"] == panel, f"{factor}_r2"] for panel in PANELS]
        lines.append(f"| {words} | {' | '.join(f'{v.min():.2f} to {v.max():.2f}' for v in each)} |")
    return lines


def claims() -> list[str]:
    """The numbers behind the four claims, real CT first: what was found, what random directions or a plain picture give, and p."""
    real, folds = pd.read_csv(CHEST / "against_chance.csv"), pd.read_csv(CHEST / "folds_tested.csv").set_index(["against", "gap"])
    paper = real[real["set"] == "unit32-lenet"].groupby("model")
    beyond = lambda name: int((paper.get_group(name)["selectivity_corrected"] <= 0.05).sum())
    found = {name: (paper.get_group(name)["selectivity"].mean(), paper.get_group(name)["selectivity_chance"].mean()) for name in MODELS}
    lines = [
        "| claim | data | what was measured | found | median of random sets, or without a model | p, corrected |",
        "|---|---|---|---|---|---|",
    ]
    for name in MODELS:
        what = f"{name.upper()}: mean selectivity of the paper's directions; factors of seven beyond chance"
        lines.append(f"| 1, 2 | real CT | {what} | {found[name][0]:.2f}; {beyond(name)} | {found[name][1]:.2f} | – |")
    rows, tests = searched(), differences().set_index(["one", "other", "generator", "score"])
    middle = rows.groupby(["generator", "configuration"])["selectivity"].median()
    for panel in PANELS:
        p, data = tests.loc[("lenet-unit-32", "random", panel, "selectivity"), "holm"], panel.partition(", ")[0]
        what = f"{panel.rpartition(', ')[2]}: mean selectivity of the paper's directions, median of thirty searches"
        found_here = " | ".join(f"{middle[panel, name]:.2f}" for name in ("lenet-unit-32", "random"))
        lines.append(f"| 1, 2 | {data}, 64 px | {what} | {found_here} | {p:.2f} |")
    names = lambda label: ", ".join(str(real[(real["set"] == label) & (real["model"] == m)]["names"].iloc[0]) for m in MODELS)
    lines.append(f"| 3 | real CT | GAN, VAE: names that the paper's directions earn, and those of `motion` | {names('unit32-lenet')}; "
                 f"{names('motion32')} | one set in twenty | – |")  # fmt: skip
    for data in dict.fromkeys(panel.partition(", ")[0] for panel in PANELS):
        named = rows[rows["generator"].str.startswith(data)].groupby("configuration")["factors_named"]
        said = "; ".join(_ranged(named.get_group(name), 0) for name in ("lenet-unit-32", "motion"))
        lines.append(
            f"| 3 | {data}, 64 px | the same, median of sixty searches in both models [lowest, highest] | {said} | one set in twenty | – |"
        )
    for against in ("mean slice of the level", "unchanged slice"):
        row = folds.loc[(against, 40)]
        p = f"{row['holm']:.3f}" if row["holm"] >= 0.001 else "below 0.001"
        what = f"VAE: error 40 mm away along the curved path, minus that of the {against}"
        lines.append(f"| 4 | real CT, 23 patients | {what} | {row['difference']:+.0f} HU | 0 | {p} |")
    return lines


def over_trainings() -> list[str]:
    """A line each claim about models: how far a method lies beyond random sets or straight lines, over trainings, and what that says."""
    words = {
        "motion": "directions of `motion` are purer than random ones", "paper": "the paper's directions are purer than random ones",
        "steered": "steered paths, by the measures that they are fed, are purer than the better straight direction of each factor",
    }  # fmt: skip
    new = pd.read_csv(REFERENCE / "trainings" / "tested.csv").rename(columns={"of": "method", "mean of the other": "random"})
    old = pd.read_csv(REFERENCE / "by_training.csv").replace({"the paper's": "paper"}).query("method in ['motion', 'paper']")
    lines = [
        "| claim | factors, data | trainings | means | difference, in SDs over trainings | p, corrected | in five words |",
        "|---|---|---|---|---|---|---|",
    ]
    for rows, marked in ((new.assign(data="real CT"), True), (old.assign(group="shape"), False)):
        for row in rows.to_dict("records"):
            sure, p = row["holm"] <= 0.05, "below 0.001" if row["holm"] < 0.001 else f"{row['holm']:.3f}"
            verdict = "yes: higher in every training" if sure and row["lowest difference"] > 0 else "not shown: alike on average"
            verdict = "yes: higher on average only" if sure and row["lowest difference"] <= 0 else verdict
            means = f"{row['mean']:.2f}, {row['random']:.2f}"
            said = f"{words[row['method']]}{'*' if marked else ''} | {row['group']}, {row['data']} | {row['trainings']} | {means}"
            lines.append(f"| {said} | {row['in SDs']:+.1f} | {p} | {verdict} |")
    return lines


def precisions() -> list[str]:
    """A line each model and score: three trainings in bf16 and three in fp32, mean [lowest, highest]."""
    lines = ["| 64 px, three seeds each | in bf16 | in fp32 |", "|---|---|---|"]
    for row in pd.read_csv(REFERENCE / "trainings" / "precision.csv").to_dict("records"):
        ways = [f"{row[f'{way} mean']:.3g} [{row[f'{way} min']:.3g}, {row[f'{way} max']:.3g}]" for way in ("bf16", "fp32")]
        lines.append(f"| {row['model'].upper()}: {row['score']} | {' | '.join(ways)} |")
    return lines


def by_hand() -> list[str]:
    """Selectivity of real slices that were moved by hand, and of z along patients' own series (`experiments.hand`)."""
    table = pd.read_csv(REFERENCE / "chest" / "by_hand.csv").set_index("factor")
    said = " | ".join(f"{row.selectivity:.2f} [{row.selectivity_low:.2f}, {row.selectivity_high:.2f}]" for row in table.itertuples())
    heads = " | ".join(factor_words(f) + (", along their own series" if f == "z_position" else "") for f in table.index)
    return [f"| real slices | {heads} |", "|---|" + "---|" * len(table), f"| moved by hand | {said} |"]


def by_truth() -> list[str]:
    """A line each model and way: selectivity of each factor on the synthetic thorax, by what it was painted with (`experiments.truth`)."""
    table = pd.read_csv(REFERENCE / "phantom" / "truth.csv").set_index(["model", "way", "factor"])["selectivity"].unstack()[list(FACTORS)]
    words = {"steered": "steered by the outline", "label-free": "steered by moments", "motion": "motion", "paper": "the paper's, LeNet"}
    words |= {"random": "random, median"}
    lines = [f"| model | directions | {' | '.join(factor_words(f) for f in FACTORS)} | mean |", "|---|---|" + "---|" * (len(FACTORS) + 1)]
    for model in MODELS:
        for way, said in words.items():
            row = table.loc[(model, way)]
            lines.append(f"| {model.upper()} | {said} | {' | '.join(f'{v:.2f}' for v in row)} | {row.mean():.2f} |")
    return lines


def chest_lost() -> list[str]:
    """A line each factor: share of what was to hold that is lost, and how typical z is at the end (`python -m experiments.lost`)."""
    table = pd.read_csv(CHEST / "steering_lost.csv").set_index(["factor", "model", "way"])
    heads = [f"{model.upper()}: {said}" for model in MODELS for said in ("lost, steered", "lost, straight", "z, steered", "z, straight")]
    lines = [f"| factor | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for factor, words in ALL.items():
        cells = []
        for model in MODELS:
            rows = [table.loc[(factor, model, way)] for way in ("steered", "motion")]
            cells += [f"{row['lost'] / row['held']:.0%}" for row in rows] + [f"{row['typicality']:.2g}" for row in rows]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return lines


def chest_labelfree() -> list[str]:
    """A line each factor: the purest path of moments for it, and random sets of as many (`python -m experiments.labelfree`)."""
    table = pd.read_csv(CHEST / "steering_labelfree.csv").set_index(["model", "factor"])
    lines = ["| factor | GAN: by | selectivity | random | p | VAE: by | selectivity | random | p |", "|---|" + "---|" * 8]
    columns = ["selectivity", "selectivity_chance", "selectivity_corrected"]
    for factor, words in ALL.items():
        cells = []
        for model in MODELS:
            row = table.loc[(model, factor)]
            cells += [factor_words(str(row["by"])), *(f"{value:.{n}f}" for value, n in zip(row[columns], (2, 2, 3), strict=True))]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    mean = table.groupby("model")[columns[:2]].mean()
    means = [f" | {mean.loc[model, columns[0]]:.2f} | {mean.loc[model, columns[1]]:.2f} | " for model in MODELS]
    return [*lines, f"| mean | {' | '.join(means)} |"]


def peers() -> list[str]:
    """A line each model and code, released by others or ours, on the same generator (`python -m experiments.peers`)."""
    lines = ["| model | code | seconds | selectivity | \\|r\\| |", "|---|---|---|---|---|"]
    for row in pd.read_csv(REFERENCE / "trainings" / "peers.csv").itertuples():
        lines.append(f"| {row.model.upper()} | {row.way} | {row.seconds:.0f} | {row.selectivity:.2f} | {row.r:.2f} |")
    return lines


def searched() -> pd.DataFrame:
    """Every search of `python -m experiments.seeds`; the generator is one of PANELS."""
    folders = {"real CT": "seeds_demo", "phantom": "seeds_phantom"}
    tables = [collect(REFERENCE / folder).assign(data=data) for data, folder in folders.items()]
    rows = pd.concat(tables, ignore_index=True)
    return rows.assign(generator=rows["data"] + ", " + rows["generator"].str.upper())


def _ranged(values: pd.Series, digits: int = 2) -> str:
    if not values.notna().any():
        return "–"
    low, middle, high = (f"{values.quantile(q):.{digits}f}" for q in (0, 0.5, 1))
    return f"{middle} [{low}, {high}]" if low != high else middle


def _by_method(columns: list[str], heads: list[str], digits: int) -> list[str]:
    """A line each method, in the order of its purity: medians of `columns` over its searches with lowest and highest, a cell each panel."""
    rows = searched()
    lines = [f"| method | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for method in sorted_by(rows, "selectivity"):
        parts = [rows[(rows["configuration"] == method) & (rows["generator"] == panel)] for panel in PANELS]
        if any(part[columns].notna().any(axis=None) for part in parts):
            said = [_ranged(part[column], digits) for part in parts for column in columns]
            lines.append(f"| {WAYS.get(method, method)} | {' | '.join(said)} |")
    return lines


def purity() -> list[str]:
    """Mean selectivity of the best direction of each factor, by method."""
    return _by_method(["selectivity"], [f"selectivity: {panel}" for panel in PANELS], 2)


def straightness() -> list[str]:
    """Mean |r| of the best direction of each factor, by method."""
    return _by_method(["r"], [f"\\|r\\|: {panel}" for panel in PANELS], 2)


def counted() -> list[str]:
    """Of seven factors, how many are purer than chance (corrected) and how many have a direction that earns a name, by method."""
    heads = [f"{panel}: {what}" for panel in PANELS for what in ("purer than chance", "named")]
    return _by_method(["beyond_chance", "factors_named"], heads, 0)


def differences() -> pd.DataFrame:
    """All differences that are asked of the searches of `python -m experiments.seeds`."""
    pairs = [("lenet-unit-32", other) for other in ("random", "pca", "jacobian")]
    pairs += [("motion", other) for other in ("lenet-unit-32", "random", "jacobian", "pca", "oracle-alone")]
    pairs += [("lenet-orthonormal-32", "random"), ("lenet-unit-100", "random-100")]
    return tested(searched(), pairs, ["selectivity", "r"])


def differences_shown() -> list[str]:
    """A line each comparison: one method minus another, on the same training; those that hold after Holm's correction for all are bold."""
    table = differences()
    words = {"selectivity": "selectivity", "r": "\\|r\\|"}
    lines = [f"| one method minus another | score | {' | '.join(PANELS)} |", "|---|---|" + "---|" * len(PANELS)]
    for (one, other, score), rows in table.groupby(["one", "other", "score"], sort=False):
        of = rows.set_index("generator").reindex(PANELS)
        bold = lambda row: f"**{row.difference:+.2f}**" if row.holm <= 0.05 else f"{row.difference:+.2f}"
        said = [bold(row) if row.n == row.n else "–" for row in of.itertuples()]
        lines.append(f"| {WAYS.get(one, one)} minus {WAYS.get(other, other)} | {words[score]} | {' | '.join(said)} |")
    return lines


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
    "reconstructor": "the paper's, LeNet", "lenet-unit-32": "the paper's, LeNet", "lenet-orthonormal-32": "the paper's, orthonormal, LeNet",
    "lenet-unit-100": "the paper's, LeNet, K = 100", "random-100": "random, K = 100", "resnet18-unit-32": "the paper's, ResNet-18",
    "resnet18-orthonormal-32": "the paper's, orthonormal, ResNet-18", "resnet18-unit-100": "the paper's, ResNet-18, K = 100",
    "jacobian": "Jacobian", "pca": "PCA", "oracle-alone": "oracle, alone", "ica": "ICA",
    "sefa": "SeFa", "sefa-released": "SeFa, as released", "local-basis": "local basis", "hessian": "Hessian penalty",
    "latentclr": "LatentCLR", "disco": "DisCo",
}  # fmt: skip
TABLES = {
    "notebooks/README.md": [gpu_steps],
    "CONTRIBUTING.md": [compared, shares, waits],
    "outputs/reference/README.md": [over_trainings],
    "outputs/reference/methods.md": [
        claims, by_truth, against_chance, prediction, chest_sets, purity, straightness, counted, differences_shown, linear, rated, peers,
        planted, animated, mig_bins, kappa_steps,
    ],
    "outputs/reference/cost.md": [growth, sharing, workers, precisions],
    "outputs/reference/chest/steering.md": [chest_steering, by_hand, chest_second, chest_lost, chest_labelfree, chest_kid],
    "outputs/reference/chest/tables.md": [  # in the order of the page
        lambda: chest_directions("gan"), lambda: chest_directions("vae"), chest_sets, chest_searches, chest_quality, chest_away,
        chest_options, chest_short, chest_short_steps, chest_inversion, chest_kept, chest_edits, chest_third, folds, folds_tested,
        folds_anatomy,
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
