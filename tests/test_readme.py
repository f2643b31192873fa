"""The README's commands are ones that exist, and its numbers are those of the committed tables."""

import json
import re
import shlex
import subprocess

import numpy as np
import pandas as pd
import pytest
from torch import nn

from experiments.by_training import by_training
from experiments.by_training import tested as beyond_random
from experiments.folds import OTHERS, differences, permuted
from experiments.readme_tables import TABLES, searched
from lpdirs.runs import cli
from lpdirs.scores.response import holm
from tests.conftest import ROOT

METHODS = ROOT / "outputs" / "reference" / "methods"
PAGES = (
    "README.md",
    "notebooks/README.md",
    "data_manifests/README.md",
    "data_manifests/chest_ct/README.md",
    "outputs/reference/README.md",
    "outputs/reference/methods.md",
    "outputs/reference/gallery.md",
    "outputs/reference/cost.md",
    "outputs/reference/chest/README.md",
    "outputs/reference/chest/steering.md",
    "outputs/reference/chest/tables.md",
    "outputs/reference/demo/README.md",
    "outputs/reference/phantom/README.md",
    "outputs/reference/methods/README.md",
    "CONTRIBUTING.md",
)
TEXTS = {page: (ROOT / page).read_text() for page in PAGES}
README, RESULTS = TEXTS["README.md"], TEXTS["outputs/reference/README.md"]
BLOCKS = [block for text in TEXTS.values() for block in re.findall(r"(?m)(?:^    .*\n)+", text)]
LINES = [re.split(r"  +#|   +", line.strip())[0] for block in BLOCKS for line in block.splitlines()]
OURS = [line for line in LINES if line.startswith(("make ", "python -m lpdirs", "papermill ", "nohup ", "tmux "))]


def test_there_are_commands():
    assert len(OURS) >= 12 and any(line.startswith("make run") for line in OURS)


@pytest.mark.parametrize("line", [line for line in OURS if "python -m lpdirs" in line])
def test_lpdirs_takes_the_command(line, monkeypatch, tmp_path):
    """Parsed by the real command line, up to the work itself."""
    called = []
    for name in ("_run", "_fetch", "_sweep", "_settings", "_verify"):
        monkeypatch.setattr(cli, name, lambda args, name=name: called.append(name))
    ours = line[line.index("python -m lpdirs") :].split(" > ")[0].rstrip("'")
    assert cli.main(shlex.split(ours)[3:]) == 0 and len(called) == 1


@pytest.mark.parametrize("line", [line for line in OURS if line.startswith("make ")])
def test_make_has_the_target(line):
    dry = subprocess.run(["make", "-n", *shlex.split(line)[1:]], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert dry.returncode == 0, dry.stderr


def test_your_own_generator_works_as_it_says(monkeypatch, tmp_path):
    """The Python of the README, on a module and a function as a user might have; smaller."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line and not line.startswith(("#", "import"))]) <= 5, "five lines"
    monkeypatch.chdir(tmp_path)
    module = nn.Sequential(nn.Linear(32, 32 * 32), nn.Sigmoid(), nn.Unflatten(1, (1, 32, 32)))
    assert "k=32" in code
    names = {"module": module}
    exec(code.replace("k=32", "k=4").replace("latent_dim=512", "latent_dim=32"), names)
    assert len(names["named"]) == 4 and (tmp_path / "share.html").exists()


@pytest.mark.parametrize("page", PAGES)
def test_files_that_it_links_to_are_there(page):
    links = [link for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", TEXTS[page]) if "://" not in link]
    missing = [link for link in links if not ((ROOT / page).parent / link).exists()]
    assert not missing, missing


@pytest.mark.parametrize("page", PAGES)
def test_headings_that_it_links_to_are_there(page):
    anchor = lambda line: re.sub(r"[^\w -]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line.lstrip("# ").lower())).replace(" ", "-")
    for path, name in re.findall(r"\]\(([^)#]*)#([^)]*)\)", TEXTS[page]):
        target = (ROOT / page).parent / path if path else ROOT / page
        if "://" not in path and target.suffix == ".md":
            assert name in [anchor(line) for line in target.read_text().splitlines() if line.startswith("#")], (path, name)


def test_the_front_page_is_two_screens():
    prose = re.sub(r"(?s)```.*?```|^(    |[|#!]).*?$", "", README, flags=re.MULTILINE)
    sentences = re.split(r"(?<=[.:?;])\**\s+|\n\n+|\n- ", re.sub(r"\]\([^)]*\)", "]", prose))
    assert len(README.splitlines()) <= 110 and len(README.split()) <= 1300
    assert not [sentence for sentence in sentences if len(sentence.split()) > 30]


def test_the_first_findings_are_those_of_the_tables():
    chest = METHODS.parent / "chest"
    against, steered = pd.read_csv(chest / "against_chance.csv"), pd.read_csv(chest / "steering.csv")
    mean = lambda name, score: against[against["set"] == name].groupby("model")[score].mean()
    both = lambda values: f"{values['gan']:.2f} (GAN) and {values['vae']:.2f} (VAE)"
    plain = lambda values: f"{values['gan']:.2f} and {values['vae']:.2f}"
    of = steered.groupby("model")[["selectivity", "chance"]].mean()
    assert f"It is {both(of['selectivity'])} of" in README
    assert f"where `motion` reaches {plain(mean('motion32', 'selectivity'))}." in README
    second = pd.read_csv(chest / "steering_second.csv").groupby(["way", "model"])["selectivity"].mean()
    read, fed = plain(second["steered"]), plain(second["both"])
    assert f"five of the factors have {read}, `motion` {plain(second['motion'])}; fed both readings, {fed}." in README
    assert (
        f"shape have {read}, straight directions of `motion` {plain(second['motion'])}, random ones {plain(second['random'])}." in RESULTS
    )
    card, more = (TEXTS[f"outputs/reference/chest/{name}.md"] for name in ("README", "steering"))
    assert steered["selectivity"].min() > 0.7 and f"({plain(of['selectivity'])}), with no factor below 0.7" in more
    reached = (100 * steered.groupby("model")["reached"].mean()).round().astype(int)
    assert f"Of what changes, {both(of['selectivity'])} is the factor**, with no factor below 0.7" in card
    assert f"**{reached['gan']} and {reached['vae']} percent of what is asked is reached**" in card
    assert f"{fed}, and {read} when it is fed the outline alone, where `motion` has {plain(second['motion'])}." in card
    assert len(card.splitlines()) <= 80, "two screens"
    kid = pd.read_csv(chest / "steering_kid.csv").pivot_table(index="model", columns="way", values="KID")
    assert (kid["steered"] < kid["motion"]).all() and "no farther from real ones than slices that are shifted as far" in more
    found = beyond_random(by_training()).set_index(["data", "method"]).loc["real CT"]
    ours, paper = found.loc["motion"], found.loc["the paper's"]
    assert f"of a factor has {paper['mean']:.2f}, with random directions {ours['random']:.2f}, with `motion` {ours['mean']:.2f}." in README
    assert ours["holm"] < 1e-4 and ours["lowest difference"] > 0.095 and paper["p"] > 0.5 and found.loc["Jacobian", "holm"] < 0.008
    said = f"has a mean selectivity of {ours['mean']:.2f}, random sets {ours['random']:.2f}"
    assert len(RESULTS.splitlines()) <= 150 and said in RESULTS
    r = searched().query("data == 'real CT'").groupby(["configuration", "generator"])["r"].median()
    by_chance, paper = (r.loc[name].rename({"real CT, GAN": "gan", "real CT, VAE": "vae"}) for name in ("random", "lenet-unit-32"))
    each = searched().query("data == 'real CT'").groupby(["configuration", "generator"])[["rotation_r", "x_position_r"]].median()
    gan, vae = (each.xs(f"real CT, {model}", level="generator").loc[["motion", "random"]] for model in ("GAN", "VAE"))
    turns = [f"{g:.2f} and {v:.2f}" for g, v in zip(gan["rotation_r"], vae["rotation_r"], strict=True)]
    aside = " and ".join(f"{value:.2f}" for value in vae["x_position_r"])
    assert f"by rotation ({turns[0]}, random directions {turns[1]}), and in the VAE by x-position ({aside})" in RESULTS
    assert f"are on real CT {both(by_chance)} for random sets, {plain(paper)} for the paper's." in README


def test_the_front_page_says_what_the_tables_say():
    """The numbers that are words there: names earned in models that the method was not made on, and purity on real CT."""
    names = searched().query("data == 'phantom'").groupby("configuration")["factors_named"].agg(["min", "max"]).astype("Int64")
    words = ("none", "one", "two", "three", "four", "five", "six", "seven")
    ours, paper = ([words[n] for n in names.loc[method]] for method in ("motion", "lenet-unit-32"))
    theirs = paper[0] if paper[0] == paper[1] else f"{paper[0]} or {paper[1]}"
    assert f"isolate {ours[0]} to {ours[1]} of seven factors, and those of the paper's method {theirs}." in README
    real = pd.read_csv(METHODS.parent / "chest" / "against_chance.csv").query("set == 'motion32'")
    assert real.groupby("model")["selectivity"].mean().between(0.45, 0.55).all(), "about half of what such a direction does"
    beyond = real[real["selectivity_corrected"] <= 0.05].groupby("model")["factor"].agg(set)
    assert beyond["vae"] == {"rotation"} and beyond["gan"] == {"x_position"}


def test_the_model_card_says_what_is_kept_of_new_patients():
    chest = METHODS.parent / "chest"
    slices = pd.read_csv(chest / "inversion.csv").query("split == 'held out'")
    by = {how: rows["error"].to_numpy() for how, rows in slices.groupby("how")}
    assert len(by["refined"]) == 250 and (by["refined"] < by["encoder"]).all(), "every one nearer"
    kept = pd.read_csv(chest / "kept.csv").set_index(["split", "factor"])
    worse = lambda split: {name for name, row in kept.loc[split].iterrows() if row["error"] > row["error_of_mean"]}
    assert worse("held out") == {"rotation", "breast", "x_position"} and worse("held out, refined") == {"rotation", "x_position"}


def test_the_results_say_what_the_eight_sets_of_the_paper_reach():
    chest = METHODS.parent / "chest"
    paper = pd.read_csv(chest / "against_chance.csv").query("set.str.contains('lenet|resnet18')")
    alone = paper[paper["selectivity_p"] <= 0.05].groupby("model")["factor"].agg(list)
    assert len(paper) == 56 and (paper["selectivity_corrected"] > 0.05).all() and not paper["names"].any()
    assert alone["gan"] == ["z_position"] * 3 and sorted(alone["vae"]) == ["width", "x_position"]
    assert (paper[(paper["model"] == "vae") & (paper["selectivity_p"] <= 0.05)]["missing"] > 0.66).all()
    known = pd.read_csv(chest / "searches.csv").query("set.str.contains('32')").groupby(["model", "set"])["accuracy"].max()
    assert len(known) == 8 and (known >= 0.62).sum() == 5 and sorted(known)[:3] == [0.108, 0.324, 0.414]


def test_the_memory_that_the_front_page_names_is_enough():
    log = json.loads((METHODS.parent / "demo" / "run.json").read_text())
    assert max(entry["peak_memory_MiB"]["host"] for entry in log.values()) < 2048 and "2 GB of free memory" in README


def test_the_model_card_says_how_far_rotation_and_level_are_off():
    known, card = json.loads((METHODS.parent / "chest" / "summary.json").read_text()), TEXTS["outputs/reference/chest/README.md"]
    roll = known["roll"]
    assert f"by {roll['mean']:.1f} degrees on average, and by more than {roll['95 percent']:.1f} on one slice in twenty" in card
    assert f"(r {roll['r']:.2f})" in card and f"error of {known['z']['mean_absolute_error']:.3f} on" in card


def test_the_third_dimension_is_decided_as_the_pages_say():
    found = pd.read_csv(METHODS.parent / "chest" / "folds_tested.csv").set_index(["against", "gap"])
    assert list(found.index[found["holm"] > 0.05]) == [("unchanged slice", 20)], "fifteen of sixteen hold"
    better = found["difference"] < 0
    assert better["mean slice of the level"].all() and better["straight line"].all() and better["its reconstruction"].all()
    assert better["unchanged slice"].loc[40:].all()


def test_patients_with_nominal_millimetres_do_not_decide_the_third_dimension():
    """ "Without them the same fifteen comparisons hold": the seven of LCTSC left out, and Holm's correction for the sixteen again."""
    table = pd.read_csv(METHODS.parent / "chest" / "folds.csv")
    collection = pd.read_csv(ROOT / "data_manifests" / "chest_ct" / "patients.csv", dtype=str).set_index("patient")["collection"]
    others = table[table["patient"].map(collection) != "LCTSC"]
    assert table["patient"].nunique() - others["patient"].nunique() == 7
    pairs = [(other, gap) for other in OTHERS for gap in sorted(table["gap"].unique())]
    p = [permuted(differences(others, other, gap)) for other, gap in pairs]
    assert [pair for pair, value in zip(pairs, holm(np.array(p)), strict=True) if value > 0.05] == [("unchanged slice", 20)]


@pytest.mark.parametrize("page", TABLES)
def test_its_tables_are_those_of_the_committed_files(page):
    """`python -m experiments.readme_tables` writes them."""
    for lines in TABLES[page]:
        assert "\n".join(lines()) in TEXTS[page]


def test_what_was_preregistered_came_out_as_the_results_say():
    found = pd.read_csv(METHODS.parent / "trainings" / "tested.csv").set_index(["of", "group"])
    assert (found["trainings"] == 6).all() and found.loc[("motion", "shape"), "holm"] < 0.05
    assert found.loc[[("motion", "tissue"), ("paper", "shape"), ("paper", "tissue")], "holm"].min() > 0.5
    assert (found.loc["steered", "holm"] < 0.001).all() and (found.loc["steered", "lowest difference"] > 0.15).all()


def test_steering_by_the_truth_is_what_the_pages_say():
    table = pd.read_csv(METHODS.parent / "phantom" / "truth.csv").groupby(["way", "model"])["selectivity"].mean()
    steered, motion, random = (f"{table[way, 'gan']:.2f} and {table[way, 'vae']:.2f}" for way in ("steered", "motion", "random"))
    assert f"by the truth: {steered}, `motion` {motion}, random sets {random} (" in RESULTS
    assert pd.read_csv(METHODS.parent / "phantom" / "truth_reader.csv")["r2"].min() > 0.97


def test_what_steering_loses_is_what_its_page_says():
    table = pd.read_csv(METHODS.parent / "chest" / "steering_lost.csv").groupby(["way", "model"])[["lost", "held"]].sum()
    share = (100 * table["lost"] / table["held"]).round().astype(int)
    said = "{}% (GAN) and {}% (VAE) can no longer be measured at the end of a steered path, and {}% and {}% at the end of a straight one"
    said = said.format(*(share[way, model] for way in ("steered", "motion") for model in ("gan", "vae")))
    assert said in TEXTS["outputs/reference/chest/steering.md"]


def test_steering_without_anatomy_is_what_the_pages_say():
    table = pd.read_csv(METHODS.parent / "chest" / "steering_labelfree.csv").set_index(["factor", "model"])
    found = table["selectivity"].unstack()
    said = {factor: f"{found.loc[factor, 'gan']:.2f} and {found.loc[factor, 'vae']:.2f}" for factor in found.index}
    assert (
        f"for rotation have {said['rotation']}, for x-position {said['x_position']}, for y-position {said['y_position']}, all beyond"
        in RESULTS
    )
    beyond = table["selectivity_corrected"].unstack() <= 0.05
    assert set(beyond.index[beyond.all(axis=1)]) == {"rotation", "x_position", "y_position"}
    assert not beyond.loc[["thickness", "width", "z_position"]].any().any()


def test_what_others_released_reaches_what_the_page_says():
    table = pd.read_csv(METHODS.parent / "trainings" / "peers.csv").set_index(["way", "model"])["selectivity"]
    released = table[table.index.get_level_values("way").str.contains("released")]
    random, motion = (f"{table[way, 'gan']:.2f} and {table[way, 'vae']:.2f}" for way in ("random", "motion"))
    said = f"{released.min():.2f} to {released.max():.2f} on the same two models, random directions {random}, `motion` {motion}."
    assert said in TEXTS["outputs/reference/methods.md"]
