"""What comes with the project is whole, and says the same when it is measured again."""

import json

import numpy as np
import pandas as pd
import pytest

import lpdirs as lp
from lpdirs.discovery.directions import Directions
from lpdirs.measures.thorax import thorax
from lpdirs.models.files import load_generator
from lpdirs.runs.explore import explore
from lpdirs.runs.models import GENERATORS
from lpdirs.runs.verify import verify
from lpdirs.scores.response import best_directions, respond
from tests.conftest import ROOT
from tests.notebooks.refresh import sources
from tests.release import LARGEST, MOST, RUNS

REFERENCE = ROOT / "outputs" / "reference"


def test_it_is_small():
    sizes = [path.stat().st_size for path in REFERENCE.rglob("*") if path.is_file()]
    assert max(sizes) <= LARGEST and sum(sizes) <= MOST


@pytest.mark.parametrize("run", RUNS)
def test_its_files_are_those_of_its_run(run):
    lines = verify(REFERENCE / run)
    assert not [str(line) for line in lines if line.broken] and "11 files are what they were" in lines[0].text


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
    shifts = log["settings"].get("response_shifts") or log["settings"]["response_steps"]  # as it was called
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


def test_every_figure_says_what_made_it_and_which_are_out_of_date():
    """If figures are named here: make notebooks and make release (of sweeps: after the sweeps)."""
    made = json.loads((REFERENCE / "sources.json").read_text())
    figures = {
        p.relative_to(REFERENCE).as_posix()
        for p in REFERENCE.rglob("*")
        if p.suffix in (".png", ".gif") and (p.parent == REFERENCE or not (p.parent / "README.md").exists())
    }
    assert set(made) == figures
    now = {name: sources(ROOT / "notebooks" / f"{name}.ipynb") for name in {entry["notebook"] for entry in made.values()}}
    old = [figure for figure, entry in made.items() if {k: entry[k] for k in ("cells", "code")} != now[entry["notebook"]]]
    if old:
        pytest.skip(f"out of date, made by other cells or code: {', '.join(old)}")
