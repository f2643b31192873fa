"""What comes with the project is whole, and says the same when it is measured again."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import lpdirs as lp
from experiments.release import LARGEST, MOST, RUNS, draw_best
from lpdirs.discovery.directions import Directions
from lpdirs.measures.thorax import thorax
from lpdirs.models.files import load_generator
from lpdirs.runs.models import GENERATORS, explore
from lpdirs.runs.verify import verify
from lpdirs.scores.response import best_directions, respond
from tests.conftest import ROOT

REFERENCE = ROOT / "outputs" / "reference"


def test_it_is_small():
    sizes = [path.stat().st_size for path in REFERENCE.rglob("*") if path.is_file() and path.name != "live.html"]
    page = REFERENCE / "live.html"
    assert page.stat().st_size < 25_000_000, "every version of it stays in the history for good"
    assert max(sizes) <= LARGEST and sum(sizes) <= MOST


@pytest.mark.parametrize("run", RUNS)
def test_its_files_are_those_of_its_run(run):
    lines = verify(REFERENCE / run)
    assert not [str(line) for line in lines if line.broken]


def test_the_chest_models_are_those_of_their_record():
    lines = verify(REFERENCE / "chest")
    assert not [str(line) for line in lines if line.broken]
    log = json.loads((REFERENCE / "chest" / "run.json").read_text())
    named = {name for entry in log.values() for name in entry["files"]}
    assert {"gan/generator.safetensors", "vae/vae.safetensors", "directions/gan-motion32/directions.safetensors"} <= named
    assert log["02_train_gan"]["settings"]["width"] == 48 and log["03_train_vae"]["settings"]["kl_weight"] == 100


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", ["gan", "vae"])
def test_a_headline_number_comes_out_again_from_the_committed_weights(name, run):
    """Body thickness' best direction, walked again from the same starting slices."""
    (path,) = (REFERENCE / run / "directions").glob(f"{name}-*/directions.safetensors")
    table = pd.read_csv(path.with_name("responses.csv"))
    row = table[table["factor"] == "thickness"].sort_values("r", key=abs).iloc[-1]
    generator = load_generator(REFERENCE / run / GENERATORS[name])
    found = Directions.load(path)
    one = Directions(found.matrix[[int(row["direction"])]])
    log = json.loads((REFERENCE / run / "run.json").read_text())["04_discover_directions"]
    shifts = log["settings"]["response_shifts"]
    measures = thorax(generator.info.window, generator.info.pixel_mm)
    again = respond(generator, one, measures, shifts, log["settings"]["response_samples"], log["seed"])
    now = again.table(log["seed"]).set_index("factor").loc["thickness"]
    assert abs(row["r"]) >= 0.8, "the README says so"
    assert now["r"] == pytest.approx(row["r"], abs=0.005) and now["slope"] == pytest.approx(row["slope"], rel=0.01)


def test_it_opens_in_the_explorer_with_names_and_z(tmp_path):
    explorer = explore("demo", outputs=str(REFERENCE))
    assert any("y-position (" in title for title in list(explorer.titles.values())[:8])
    assert "extent" in explorer.readout.value and "body thickness" in explorer.readout.value
    before = explorer.image_values()
    explorer.sliders[explorer.order[0]].value = 3.0
    assert not np.array_equal(explorer.image_values(), before)


@pytest.mark.parametrize("name", ["gan", "vae"])
def test_the_chest_models_do_again_what_their_card_says(name):
    """Thickness along its best direction, walked again from the same starting slices; the explorer opens on them, the purest set first."""
    generator, directions = lp.load(REFERENCE / "chest")[f"{name}-motion32"]
    table = pd.read_csv(REFERENCE / "chest" / "directions" / f"{name}-motion32" / "responses.csv")
    row = best_directions(table).loc["thickness"]
    one = Directions(directions.matrix[[int(row["direction"])]])
    again = respond(generator, one, thorax(generator.info.window, generator.info.pixel_mm), samples=64).table(resamples=50)
    now = again.set_index("factor").loc["thickness"]
    assert now["r"] == pytest.approx(row["r"], abs=0.005) and now["slope"] == pytest.approx(row["slope"], rel=0.01)
    explorer = explore("chest", outputs=str(REFERENCE))
    assert explorer.image_values().shape == (128, 128) and explorer.model.value == "gan-motion32"


@pytest.mark.parametrize("run", RUNS)
def test_the_figures_are_what_the_committed_files_give(run, tmp_path):
    """Drawn again from weights, directions and tables: `draw_best` of tests/release.py makes them anew where this fails."""
    draw_best(REFERENCE / run, tmp_path)
    for path in sorted((REFERENCE / run).glob("best_*.png")):
        committed, drawn = (np.asarray(Image.open(p).convert("L").resize((400, 300)), float) for p in (path, tmp_path / path.name))
        assert np.abs(committed - drawn).mean() < 0.3, f"{path.name}: grey values of 0 to 255; one other direction makes 0.8 or more"
