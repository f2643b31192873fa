"""A user's own generator in a run: made by a function in a file, searched, scored, opened; and what is said where that cannot be."""

import contextlib
import html
import json
import re
from pathlib import Path

import pytest
import torch

import lpdirs as lp
from lpdirs.base.errors import UserError
from lpdirs.discovery.directions import DirectionsInfo
from lpdirs.runs.comparison import collect
from lpdirs.runs.grid import Grid
from lpdirs.runs.models import measures_of, open_models
from lpdirs.runs.notebooks import is_done, run_notebooks
from lpdirs.runs.own import keep, make_generator
from lpdirs.runs.report import write_report
from lpdirs.runs.search import score_run, steering_of
from lpdirs.runs.stage import open_run
from lpdirs.runs.sweep import sweep
from lpdirs.runs.verify import verify
from lpdirs.show.explorer import Explorer

FACTORY = """
import pandas as pd
import torch
from torch import nn
import lpdirs as lp

class Patches(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed({seed})
        self.net = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 3 * 16 * 16))

    def forward(self, z):
        return torch.sigmoid(self.net(z)).view(-1, 3, 16, 16)

def read(images):
    return pd.DataFrame({{"red": images[:, 0].mean((1, 2)).numpy(), "bright": images.mean((1, 2, 3)).numpy()}})

def make():
    measures, display = lp.Measures(read, {{"red": "", "bright": ""}}), lp.Display((0, 1), noun="patch")
    return lp.as_generator(Patches(), 8, value_range=(0, 1), name="kidney", channels="keep", measures=measures, display=display)

def other():
    return lp.Measures(read, {{"bright": "lm"}})

def broken():
    raise RuntimeError("no weights here")

def nothing():
    return 3

def called_gan():
    return lp.as_generator(Patches(), 8, value_range=(0, 1), name="gan")
"""


GIVEN = {"n_directions": 4, "response_samples": 6, "score_steps": 4, "score_seeds": [0]}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("patient-Smith")
    (folder / "my_gan.py").write_text(FACTORY.format(seed=0))
    return folder


@pytest.fixture(scope="module")
def factory(home):
    return f"{home}/my_gan.py:make"


@pytest.fixture(scope="module")
def run(home, factory):
    """Notebooks 04 to 06 on an own generator alone, without any data."""
    return run_notebooks("smoke", "mine", GIVEN | {"generators": [factory]}, 0, home / "out")


def test_one_call_makes_a_run_of_ones_own_generator_with_its_report(run, factory, home):
    assert {path.stem for path in (run / "notebooks").glob("*.ipynb")} == {
        "04_discover_directions",
        "05_qualitative_analysis",
        "06_quantitative_analysis",
    }
    assert (run / "directions" / "kidney-unit4-lenet" / "directions.safetensors").exists()
    report, answers = (
        write_report(run),
        [entry["answer"] for entry in json.loads((run / "run.json").read_text()).values() if "answer" in entry],
    )
    assert all("kidney: " in answer for answer in answers) and len(answers) == 3
    assert all(html.escape(answer) in report.read_text() for answer in answers), "what each notebook found is on the report"
    first = json.loads((run / "notebooks" / "04_discover_directions.ipynb").read_text())["cells"]
    shown = [text for cell in first for out in cell.get("outputs", []) for text in out.get("data", {}).get("text/markdown", [])]
    assert answers[0] in "".join(shown), "and below the notebook's title"
    assert (run / "analysis" / "explore.html").exists() and "<h2>What was found</h2>" in report.read_text()
    pages = [path.read_text() for path in report.parent.glob("0*.html")]
    assert pages and all("back to the report" in page and "No description" not in page for page in pages)
    assert not any(re.search(r"<(script|link|img)[^>]+(src|href)=.https?:", page) for page in pages), "nothing is fetched"
    assert not any(line.broken for line in verify(run))
    written = "".join(path.read_text() for path in [run / "run.json", *run.rglob("*.ipynb"), *(run / "own").glob("*.json")])
    assert "Smith" not in written and str(home) not in written


def test_what_was_learned_for_steering_is_kept_and_learned_again_for_other_measures(run, monkeypatch):
    stage = open_run(run, trust=True)
    ((generator, _),) = open_models(stage).values()
    kept = steering_of(stage, generator, fit=False)
    assert kept is not None and list(lp.explore(run, trust=True).scene.learned.values())[0].r2 == kept.r2
    monkeypatch.setattr("lpdirs.runs.search.fit_steering", None)  # nobody learns what is there
    assert steering_of(stage, generator).r2 == kept.r2
    other = lp.Measures(lambda images: {"dark": -images.mean((1, 2, 3)).numpy()}, {"dark": ""})
    assert steering_of(stage, generator.but(measures=other), fit=False) is None
    (path,) = (stage.folder / "analysis").glob("steering-*.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert steering_of(stage, generator, fit=False) is None, "a damaged one is learned again"
    path.write_bytes(content)


def test_it_is_opened_shown_and_scored_with_its_own_measures(run):
    stage = open_run(run, trust=True)
    (generator, directions), *others = open_models(stage).values()
    assert not others and directions.info.generator == "kidney" and generator.info.channels == 3
    assert measures_of(stage, generator).factors == ("red", "bright")
    explorer = lp.explore(run, trust=True)
    assert isinstance(explorer, Explorer) and "red" in explorer.readout.value and explorer.image_values().shape == (16, 16, 3)
    (scores,) = score_run(run, 3, 0, trust=True)
    assert json.loads(scores.read_text())["generator"] == "kidney" and "red_r" in json.loads(scores.read_text())


def test_what_a_run_names_is_not_executed_unless_it_is_trusted(tmp_path, capsys, monkeypatch):
    """A stranger's run: functions that its own/, run.json and directions name are left alone, whoever opens it."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "shared"
    (run / "own").mkdir(parents=True)
    (tmp_path / "make.py").write_text("open('PWNED', 'w').close()\ndef make(): raise ValueError('no generator')\n")
    lp.Directions(torch.eye(4), DirectionsInfo(generator="x")).save(run / "directions" / "x-motion" / "directions.safetensors")
    for factory in ("make.py:make", "os:getpid"):
        (run / "own" / "x.json").write_text(json.dumps({"factory": factory, "fingerprint": "0"}))
        entry = {"profile": "smoke", "seed": 0, "settings": {"measures": "make.py:make", "generators": ["make.py:make"]}}
        (run / "run.json").write_text(json.dumps({"04_discover_directions": entry}))
        for opened in (lambda: lp.load(run), lambda: lp.explore(str(run)), lambda: verify(run)):
            with contextlib.suppress(UserError):
                opened()
            assert not (tmp_path / "PWNED").exists()
        assert "was not run: trust=True opens it" in capsys.readouterr().out


def test_a_sweep_of_a_stranger_executes_nothing_either(tmp_path, monkeypatch):
    """Even to look for a module in a package imports the package."""
    monkeypatch.chdir(tmp_path)
    sweep = tmp_path / "theirs"
    (sweep / "evil").mkdir(parents=True)
    (sweep / "evil" / "__init__.py").write_text("open('PWNED', 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    named = {"measures": "theirs.evil.sub:make", "generators": ["theirs.evil.sub:make"]}
    for one in ({"method": "random"} | named, {"settings": {"method": "random"} | named}):
        (sweep / "grid.json").write_text(json.dumps({"profile": "smoke", "configurations": {"x": one}, "settings": named}))
        with contextlib.suppress(UserError):
            verify(sweep)
        assert not (tmp_path / "PWNED").exists()


def test_it_is_done_again_when_its_file_changes_and_never_opened_with_other_weights(run, factory, home):
    given = GIVEN | {"generators": [factory]}
    from lpdirs.runs.settings import with_hidden_paths

    given = with_hidden_paths(given)
    assert is_done("04_discover_directions", "smoke", run, given)
    (home / "my_gan.py").write_text(FACTORY.format(seed=1))
    try:
        assert not is_done("04_discover_directions", "smoke", run, given)
        with pytest.raises(UserError, match="makes another kidney than the one that the run mine knows"):
            open_models(open_run(run, trust=True))
    finally:
        (home / "my_gan.py").write_text(FACTORY.format(seed=0))
    assert open_models(open_run(run, trust=True))


def test_other_measures_are_one_setting(home, factory, tmp_path):
    given = {"generators": [factory], "measures": f"{home}/my_gan.py:other", "n_directions": 2, "response_samples": 4}
    folder = run_notebooks("smoke", "other", given, 0, tmp_path, names=["04_discover_directions"])
    text = (folder / "directions" / "kidney-unit2-lenet" / "responses.csv").read_text()
    assert "bright" in text and "red" not in text


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("missing", "holds no function 'missing'"),
        ("broken", r"my_gan.py:broken failed \(RuntimeError: no weights here\)"),
        ("nothing", "must return what lp.as_generator"),
        ("called_gan", "give as_generator another name="),
        ("other", "must return what lp.as_generator"),
    ],
)
def test_what_cannot_be_made_is_one_line(home, function, says):
    with pytest.raises(UserError, match=says) as error:
        make_generator(f"{home}/my_gan.py:{function}")
    assert "\n" not in str(error.value) and "Smith" not in str(error.value)


def test_a_package_that_fails_as_it_is_imported_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "broken_package").mkdir()
    (tmp_path / "broken_package" / "__init__.py").write_text("raise RuntimeError('no licence')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"broken_package.made:make.*RuntimeError: no licence"):
        make_generator("broken_package.made:make")


def test_a_file_that_is_not_there_is_said_before_any_work(tmp_path):
    with pytest.raises(UserError, match="there is no file nowhere.py"):
        run_notebooks("smoke", "x", {"generators": ["nowhere.py:make"]}, 0, tmp_path)
    for name in (":", "nopkg.module:make", "json.nothing:make"):
        with pytest.raises(UserError, match="there is no module|generators must be"):
            run_notebooks("smoke", "x", {"generators": ["gan", name]}, 0, tmp_path)
    with pytest.raises(UserError, match="there is no file nowhere.py"):
        run_notebooks("smoke", "x", {"method": "nowhere.py:mine"}, 0, tmp_path)
    for measures in ("subprocess:Popen", "json:dumps"):
        with pytest.raises(UserError, match=f"{measures} failed"):
            run_notebooks("smoke", "x", {"measures": measures}, 0, tmp_path)
    assert not (tmp_path / "x").exists()
    with pytest.raises(UserError, match="generators must be 'gan', 'vae' or"):
        run_notebooks("smoke", "x", {"generators": ["my gan"]}, 0, tmp_path)


def test_a_sweep_takes_it_beside_no_training(home, factory, tmp_path):
    path = tmp_path / "grid_own.yaml"
    content = f"profile: smoke\ngenerators: ['{factory}']\nseeds: [0, 1]\nthreads: 1\n"
    content += "settings: {response_samples: 4, score_steps: 2}\n"
    content += "configurations:\n  jacobian: {method: jacobian, n_directions: 3, direction_steps: 2}\n"
    path.write_text(content)
    grid = Grid.read(path)
    assert [job.notebook for job in grid.jobs()] == ["04_discover_directions"] * 2
    folder = sweep(grid, tmp_path, workers=1, report=lambda line: None)
    table = collect(folder)
    assert list(table["generator"]) == ["my_gan.make"] * 2 and table["red_r"].notna().all()
    assert not any(line.broken for line in verify(folder))


def test_a_generator_is_kept_beside_gan_and_vae(factory, tmp_path):
    keep(tmp_path, factory)
    assert json.loads((Path(tmp_path) / "own" / "kidney.json").read_text())["factory"].startswith("folder-")


def test_files_with_siblings_of_one_name_are_not_mixed_up_and_a_library_s_name_takes_no_library_s_place(tmp_path):
    import random

    for folder, seed in (("a", 0), ("b", 1)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.py").write_text(FACTORY.format(seed=seed).replace('name="kidney"', f'name="of_{folder}"'))
        (tmp_path / folder / "random.py").write_text("from net import make\n")
    one, other = (make_generator(f"{tmp_path}/{folder}/random.py:make") for folder in "ab")
    assert one.info.name == "of_a" and other.info.name == "of_b" and one.info.fingerprint != other.info.fingerprint
    import sys

    assert sys.modules["random"] is random and "net" not in sys.modules


def test_two_generators_of_one_name_are_refused(home, factory, tmp_path):
    (tmp_path / "again.py").write_text(FACTORY.format(seed=5))
    given = GIVEN | {"generators": [factory, f"{tmp_path}/again.py:make"]}
    with pytest.raises(UserError, match="two generators of the run are called 'kidney'"):
        run_notebooks("smoke", "two", given, 0, tmp_path / "out", names=["04_discover_directions"])
