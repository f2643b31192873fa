"""Running notebooks: one clear line for what is wrong, and nothing done twice."""

import subprocess
import sys

import nbformat
import papermill
import pytest
import torch
import yaml

from lpdirs.base.errors import MissingInput, UserError
from lpdirs.discovery.directions import Directions
from lpdirs.models.files import fingerprint
from lpdirs.runs.cli import main
from lpdirs.runs.models import explore
from lpdirs.runs.notebooks import ABOUT_THE_DEMO, parameter_names, run_notebooks
from lpdirs.runs.records import read_log
from lpdirs.runs.settings import resolve
from lpdirs.runs.stage import NOTEBOOKS, SINGLE, start
from tests.conftest import ROOT
from tests.notebooks.conftest import near
from tests.runs.conftest import TINY

COMMON = {"profile": "smoke", "run": "r", "seed": 0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--profile", "huge"], "unknown profile 'huge': choose one of chest, chest_gpu, demo, paper, phantom, smoke"),
        (["--set", "gan_step=3"], "unknown setting gan_step: did you mean gan_steps"),
        (["--set", "a=[1"], "--set a=[1: the value cannot be read"),
        (["--set", "gan_steps"], "--set takes NAME=VALUE"),
        (["--data", "nowhere"], "data folder nowhere does not exist"),
        (["--data", ""], "data folder given to --data does not exist"),
        (["--measures", "moment"], "measures must be thorax, inner, tissue, moments or FILE.py:FUNCTION, not 'moment'"),
        (["--set", "seed=3"], "setting seed is given apart, as --seed"),
        (["--set", "method="], "--set takes NAME=VALUE, not 'method='; method=null is the default"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(words, message, tmp_path, capsys):
    assert main(["run", "--outputs", str(tmp_path), *words]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {message}") and captured.err.count("\n") == 1


def test_settings_that_are_none_come_from_the_profile():
    mine = resolve("smoke", {"gan_steps": None, "gan_lr": 1.0})
    assert mine.flat() == resolve("smoke", {}).flat() | {"gan_lr": 1.0} and mine.gan.steps == 30


def test_a_notebook_reads_its_parameters(tmp_path):
    stage = start("02_train_gan", COMMON | {"outputs": str(tmp_path), "gan_steps": 7, "gan_width": None, "something": 1})
    assert stage.settings.gan.steps == 7 and stage.settings.gan.width == resolve("smoke", {}).gan.width == 8
    assert stage.folder == tmp_path / "r" and stage.own == tmp_path / "r" / "gan"
    shown = stage._repr_html_()
    assert "<td>gan_steps</td><td>7</td><td>this notebook</td><td>optimiser steps</td>" in shown
    assert "<td>gan_width</td><td>8</td><td>smoke</td>" in shown


def test_papermill_s_unknown_parameters_are_refused(tmp_path):
    cells = ["", "# Parameters\nprofile = 'smoke'\ngan_stepz = 3\n"]
    with pytest.raises(UserError, match="unknown setting gan_stepz"):
        start("02_train_gan", COMMON | {"outputs": str(tmp_path), "In": cells})


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_papermill_from_the_shell_takes_the_paper_profile_s_file(name, tmp_path):
    """papermill notebooks/<name>.ipynb out.ipynb -f notebooks/profiles/paper.yaml -p run mine, up to the notebook's own work."""
    source, target = ROOT / "notebooks" / f"{name}.ipynb", tmp_path / "out.ipynb"
    words = ["-f", str(ROOT / "notebooks" / "profiles" / "paper.yaml"), "-p", "run", "mine", "-p", "outputs", str(tmp_path)]
    words += ["--prepare-only", "--log-level", "ERROR"]
    assert subprocess.run([sys.executable, "-m", "papermill", source, target, *words], cwd=ROOT, timeout=600).returncode == 0
    names, cells = {}, []
    for cell in nbformat.read(target, 4).cells:
        if {"parameters", "injected-parameters"} & set(cell.metadata.get("tags", [])):
            exec(cell.source, names)
            cells.append(cell.source)
    stage = start(name, names | {"In": cells})
    assert stage.folder == tmp_path / "mine" and stage.settings == resolve("paper", {})


def test_a_missing_stage_names_the_notebook_to_run(tmp_path):
    stage = start("04_discover_directions", COMMON | {"outputs": str(tmp_path)})
    with pytest.raises(MissingInput, match=r"r/gan/generator.safetensors is missing: run notebooks/02_train_gan.ipynb with run = 'r'"):
        stage.need("gan/generator.safetensors")


def test_mistakes_show_as_one_line_in_a_notebook():
    assert UserError("do this")._render_traceback_() == ["UserError: do this"]


def test_what_was_run_is_written_down(tmp_path):
    stage = start("02_train_gan", COMMON | {"outputs": str(tmp_path), "gan_steps": 7})
    stage.done("It fell.", loss=1.5)
    entry = read_log(tmp_path / "r")["02_train_gan"]
    assert entry["settings"]["gan_steps"] == 7 and entry["results"] == {"loss": 1.5} and entry["seed"] == 0
    assert {"packages", "git", "git_dirty", "machine"} <= entry["provenance"].keys()


def test_notebooks_declare_their_parameters():
    assert "gan_steps" in parameter_names(ROOT / "notebooks" / "02_train_gan.ipynb")


@pytest.fixture(scope="module")
def tiny_run(smoke_run):
    """The finished run, which these tests run again."""
    return smoke_run[:3]


def test_a_run_ends_with_the_report(tiny_run):
    outputs, _, first = tiny_run
    index = outputs / "tiny" / "report" / "index.html"
    assert first.stdout.strip().endswith(f"report: {index}")
    assert all(f'href="{name}.html"' in index.read_text() and (index.parent / f"{name}.html").exists() for name in SINGLE)
    assert set(read_log(outputs / "tiny")) == {*SINGLE, "report"}
    assert first.stderr.count("Executing: 100%") >= len(SINGLE)


def test_the_explorer_of_a_run_starts_from_its_held_out_slices(tiny_run):
    explorer = explore("tiny", outputs=str(tiny_run[0]))
    assert {*explorer.scene.starts} == {*explorer.scene.models}
    explorer.real.click()
    put = explorer.scene.starts[explorer.scene.label]
    explorer.keep.value = True
    assert explorer.scene.seed == -1 and torch.allclose(explorer.scene.both()[1], put.slices[0], atol=1e-5)


def test_words_about_the_demo_say_so_in_every_other_run(tiny_run):
    told = 0
    for name in SINGLE:
        here, there = (nbformat.read(path / f"{name}.ipynb", 4).cells for path in (tiny_run[0] / "tiny" / "notebooks", ROOT / "notebooks"))
        for cell in here:
            tagged = cell.cell_type == "markdown" and "demo" in cell.metadata.get("tags", [])
            assert (ABOUT_THE_DEMO in cell.source) == tagged, cell.source[:80]
            told += tagged
        assert not any(ABOUT_THE_DEMO in cell.source for cell in there)
    assert told >= len(SINGLE)


def test_a_second_call_redoes_nothing(tiny_run):
    outputs, words, _ = tiny_run
    work = [p for p in (outputs / "tiny").rglob("*") if p.is_file() and "report" not in p.parts]
    before = {p: p.stat().st_mtime_ns for p in work}
    again = subprocess.run([sys.executable, "-m", "lpdirs", *words], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0 and again.stdout.count("done before") == len(SINGLE)
    assert before == {p: p.stat().st_mtime_ns for p in work}


def test_running_again_keeps_what_was_trained(tiny_run):
    """As when a reader runs all cells of a notebook a second time: of the one that trains, and of the one that searches."""
    outputs, _, _ = tiny_run
    weights = [p for p in (outputs / "tiny").rglob("*.safetensors") if p.parent.name != "analysis"]
    before = {p: fingerprint(p) for p in weights}
    given = dict(yaml.safe_load("{" + word.replace("=", ": ", 1) + "}").popitem() for word in TINY)
    run_notebooks("smoke", "tiny", given, outputs=outputs, again=True, names=("03_train_vae", "04_discover_directions"))
    assert len(before) == 4 and before == {p: fingerprint(p) for p in weights}


def test_other_settings_in_the_same_run_are_refused_in_one_line(tiny_run):
    outputs, words, _ = tiny_run
    changed = [w.replace("gan_steps=3", "gan_lr=0.5") for w in words]
    result = subprocess.run([sys.executable, "-m", "lpdirs", *changed], cwd=ROOT, capture_output=True, text=True, timeout=300)
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 1 and "SettingsDiffer" in last and "lr was 0.0004 and is now 0.5" in last


def test_nbval_bites():
    """A guarded number, changed in a copy of a reference, must fail; the copy as it is must not."""
    name = "01_data_preparation.ipynb"
    text = (ROOT / "tests" / "notebooks" / "reference" / name).read_text()
    text = text.replace('run = \\"nbval\\"', 'run = \\"nbval-bites\\"').replace("run nbval,", "run nbval-bites,")
    changed = text.replace("144 slices used", "145 slices used")
    assert changed != text
    for content, expected in ((text, 0), (changed, 1)):
        path = ROOT / "outputs" / "nbval-bites" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.notebooks.conftest", "--nbval"]
        result = subprocess.run([*words, "--nbval-current-env", str(path)], cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert result.returncode == expected, result.stdout[-3000:]
    assert "145 slices used" in result.stdout


def test_numbers_within_the_tolerance_pass_and_others_and_other_words_do_not():
    reference = "gan  0.50  [0.4, 0.6]\nvae  120"
    assert near("gan  0.55  [0.4, 0.6]\nvae  110", reference) and near("gan 0.50 [0.4, 0.6] vae 120", reference)
    assert not near("gan  0.80  [0.4, 0.6]\nvae  120", reference) and not near("gan  0.50  [0.4, 0.6]\nvae  NaN", reference)
    assert not near("vae  0.50  [0.4, 0.6]\nvae  120", reference)


def test_a_scheduler_on_the_command_line_is_the_setting_of_that_name(monkeypatch, tmp_path):
    seen = {}

    def pretend(profile, run, given, seed, outputs, again):
        seen.update(given)
        return tmp_path

    monkeypatch.setattr("lpdirs.runs.notebooks.run_notebooks", pretend)
    monkeypatch.setattr("lpdirs.runs.report.write_report", lambda folder: folder)
    assert main(["run", "--scheduler", "tcp://host:8786", "--data", str(tmp_path), "--set", "workers=3"]) == 0
    assert seen == {"scheduler": "tcp://host:8786", "data_dir": str(tmp_path), "workers": 3}


def test_notebook_04_takes_any_method(tiny_run):
    outputs, _, _ = tiny_run
    source = ROOT / "notebooks" / "04_discover_directions.ipynb"
    common = {
        "profile": "smoke",
        "run": "tiny",
        "outputs": str(outputs),
        "generators": ["vae"],
        "direction_steps": 2,
        "response_samples": 4,
    }
    for method, first, label in (("pca-encoded", "random", "pca-encoded6"), ("reconstructor", "sefa", "unit6-lenet-from-sefa")):
        given = common | {"method": method, "start": first}
        where = {"kernel_name": "python3", "cwd": str(source.parent), "progress_bar": False}
        papermill.execute_notebook(str(source), str(outputs / "04.ipynb"), given, **where)
        found = Directions.load(outputs / "tiny" / "directions" / f"vae-{label}" / "directions.safetensors")
        assert (
            found.info.method == method
            and found.id.label == f"vae-{label}"
            and found.info.settings["freeze"] == (method != "reconstructor")
        )
        assert len(found.info.words) == len(found) == 6 and found.info.cotrained_accuracy is not None
