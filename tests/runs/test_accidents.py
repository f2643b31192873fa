"""What happens to runs: kernels that are killed, terminals that are closed, files that are damaged, two commands at once."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import yaml

import lpdirs as lp
from lpdirs.base.checkpoints import load_checkpoint
from lpdirs.base.errors import UserError
from lpdirs.base.files import only_one
from lpdirs.models.files import load_model
from lpdirs.runs.cli import main
from lpdirs.runs.notebooks import is_done, run_notebooks
from lpdirs.runs.records import read_log, write_log
from lpdirs.runs.stage import SINGLE, start
from tests.conftest import ROOT
from tests.runs.conftest import TINY

GIVEN = dict(yaml.safe_load("{" + word.replace("=", ": ", 1) + "}").popitem() for word in TINY)


@pytest.fixture(scope="module")
def finished(smoke_run, tmp_path_factory):
    """A finished run without its report, of which tests damage copies."""
    run = tmp_path_factory.mktemp("outputs") / "tiny"
    shutil.copytree(smoke_run[3], run, ignore=shutil.ignore_patterns("report"))
    log = read_log(run)
    del log["report"]
    write_log(run, log)
    return run


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A run whose data are prepared."""
    outputs = tmp_path_factory.mktemp("outputs")
    return run_notebooks("smoke", "tiny", GIVEN, outputs=outputs, names=SINGLE[:1])


def begin(outputs, *words, largest=None, **kwargs):
    """The command in a process of its own; no file of it becomes larger than `largest` bytes."""
    command = [
        sys.executable,
        "-m",
        "lpdirs",
        "run",
        "--profile",
        "smoke",
        "--run",
        "tiny",
        "--outputs",
        str(outputs),
        "--set",
        *TINY,
        *words,
    ]

    def prepare():
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests that run under nohup hand on that it is ignored
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=prepare, **kwargs)


def until(what, process, seconds=120):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end and process.poll() is None, process.stdout.read()[-2000:]
        time.sleep(0.05)


def kernels(process):
    return [child for child in psutil.Process(process.pid).children(recursive=True) if any("ipykernel" in w for w in child.cmdline())]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_run_that_is_told_to_end_saves_first(number, prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "tiny")
    checkpoint = tmp_path / "tiny" / "gan" / "checkpoint.pt"
    process = begin(tmp_path, "gan_steps=100000", start_new_session=True)
    until(lambda: (tmp_path / "tiny" / ".02_train_gan.json").exists() and checkpoint.exists(), process)
    before = len(load_checkpoint(checkpoint.parent)["history"])
    time.sleep(0.5)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # a terminal's Ctrl-C reaches the kernel by itself
    else:
        process.send_signal(number)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 130 and "interrupted: what was done is kept" in out and "Traceback" not in out
    assert len(load_checkpoint(checkpoint.parent)["history"]) % 200 or len(load_checkpoint(checkpoint.parent)["history"]) > before


def test_a_killed_kernel_is_one_line_and_the_same_command_goes_on(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "tiny")
    process = begin(tmp_path, "gan_steps=100000")
    until(lambda: (tmp_path / "tiny" / "gan" / "checkpoint.pt").exists(), process)
    for kernel in kernels(process):
        kernel.kill()
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 1 and "Traceback" not in out
    assert out.strip().splitlines()[-1].startswith("error: 02_train_gan: its kernel ended without a word")


def test_ctrl_c_while_a_kernel_starts_is_no_lack_of_memory(tmp_path, monkeypatch, capsys):
    def starting(*args, **given):
        os.kill(os.getpid(), signal.SIGINT)
        raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setattr("papermill.execute_notebook", starting)
    assert main(["run", "--profile", "smoke", "--outputs", str(tmp_path)]) == 130
    said = capsys.readouterr()
    assert "interrupted: what was done is kept" in said.out + said.err and "memory" not in said.out + said.err


def test_a_second_run_in_the_same_folder_says_who_is_there(tmp_path, capsys):
    (tmp_path / "smoke").mkdir()
    with only_one(tmp_path / "smoke"):
        assert main(["run", "--profile", "smoke", "--outputs", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: smoke is being worked on by process {os.getpid()} on ") and "since" in said and said.count("\n") == 1
    with only_one(tmp_path / "smoke"):
        pass


def test_a_limit_on_files_is_one_line_and_leaves_no_torn_file(prepared, tmp_path):
    """The same path as a full disk: the array of slices does not fit."""
    process = begin(tmp_path, largest=250_000)
    out, _ = process.communicate(timeout=600)
    last = out.strip().splitlines()[-1]
    assert process.returncode == 1 and "Traceback" not in last and "cannot be written" in last and "ulimit" in last
    assert not (tmp_path / "tiny" / "data" / "slices.npy").exists()


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_damage_to_any_file_that_results_stand_on_is_found_and_mended(damage, finished, tmp_path, capsys):
    names = [name for entry in read_log(finished).values() for name in entry["files"]]
    assert len(names) >= 12
    run = tmp_path / "tiny"
    shutil.copytree(finished, run)
    assert main(["verify", str(run)]) == 0
    for name in names:
        content = (run / name).read_bytes()
        middle = len(content) // 2
        if damage == "gone":
            (run / name).unlink()
        else:
            (run / name).write_bytes(
                content[:-1] if damage == "cut" else content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            )
        capsys.readouterr()
        assert main(["verify", str(run)]) == 1, name
        assert f"BROKEN tiny: {name} is " in capsys.readouterr().out
        writer = next(notebook for notebook, entry in read_log(run).items() if name in entry["files"])
        assert not is_done(writer, "smoke", run, GIVEN), "it is made again"
        (run / name).write_bytes(content)
    assert main(["verify", str(run)]) == 0


def test_nothing_is_built_on_damaged_files(finished, tmp_path):
    """A bit of the slices, and a window in the weights' header that would change every HU."""
    shutil.copytree(finished, tmp_path / "tiny")
    common = {"profile": "smoke", "run": "tiny", "outputs": str(tmp_path), "seed": 0}
    weights = tmp_path / "tiny" / "gan" / "generator.safetensors"
    content = weights.read_bytes()
    assert content.count(b"-1000.0") == 1
    weights.write_bytes(content.replace(b"-1000.0", b"-2000.0"))
    start("03_train_vae", common)  # does not read it
    with pytest.raises(UserError, match="gan/generator.safetensors is not what 02_train_gan wrote.*run notebooks/02_train_gan.ipynb"):
        start("04_discover_directions", common)
    run_notebooks("smoke", "tiny", GIVEN, outputs=tmp_path, names=("02_train_gan",))
    assert load_model(weights)[1]["window"] == [-1000.0, 1000.0]
    slices = tmp_path / "tiny" / "data" / "slices.npy"
    slices.write_bytes(slices.read_bytes()[:-1] + b"\1")
    with pytest.raises(UserError, match="data/slices.npy is not what 01_data_preparation wrote"):
        start("02_train_gan", common)
    run_notebooks("smoke", "tiny", GIVEN, outputs=tmp_path, names=SINGLE[:2])


@pytest.mark.parametrize("name", ["run.json", "data/dataset.json", "data/slices.csv", "data/slices.npy"])
def test_torn_files_are_one_line_at_the_next_use(name, finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "tiny")
    (tmp_path / "tiny" / name).write_bytes(b'{"torn": ')
    assert main(["verify", str(tmp_path / "tiny")]) == 1
    assert "BROKEN" in capsys.readouterr().out
    with pytest.raises(UserError) as caught:
        start("04_discover_directions", {"profile": "smoke", "run": "tiny", "outputs": str(tmp_path), "seed": 0})
    assert "\n" not in str(caught.value) and name.split("/")[-1] in str(caught.value)


@pytest.mark.parametrize("changed", [{"window": None}, {"window": [5, 5]}, {"pixel_mm": []}, {"fingerprint": []}, {"unit": 1}, None])
def test_a_data_set_that_says_nonsense_of_itself_is_one_line(changed, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "tiny")
    described = tmp_path / "tiny" / "data" / "dataset.json"
    described.write_text(json.dumps(json.loads(described.read_text()) | changed if changed else {}))
    for opened in (lp.load, lp.explore):
        with pytest.raises(UserError, match="tiny/data/dataset.json is damaged: run notebook 01 again"):
            opened(tmp_path / "tiny")


@pytest.mark.parametrize("change", ["answer", "results", "seconds", "digest"])
def test_whatever_is_changed_in_run_json_is_found(change, finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "tiny")
    assert main(["verify", str(tmp_path / "tiny")]) == 0
    log = json.loads((tmp_path / "tiny" / "run.json").read_text())
    entry = log["04_discover_directions"]
    entry[change] = {"answer": entry["answer"] + "1", "results": entry["results"] | {"sets": []}, "seconds": 1.0, "digest": ""}[change]
    (tmp_path / "tiny" / "run.json").write_text(json.dumps(log))
    assert main(["verify", str(tmp_path / "tiny")]) == 1
    assert "run.json is not what notebook 04_discover_directions wrote" in capsys.readouterr().out
    assert not is_done("04_discover_directions", "smoke", tmp_path / "tiny", GIVEN)


def test_a_gan_is_trained_further(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "tiny")
    more = GIVEN | {"gan_steps": 5}
    run_notebooks("smoke", "tiny", more, outputs=tmp_path, names=("02_train_gan",))
    assert len(load_checkpoint(tmp_path / "tiny" / "gan")["history"]) == 5


def test_what_run_json_does_not_speak_of_is_not_done_and_not_built_upon(finished, tmp_path, capsys):
    run = tmp_path / "tiny"
    shutil.copytree(finished, run)
    log = read_log(run)
    for change in ({"files": {}}, None):
        changed = {name: entry for name, entry in log.items() if name != "02_train_gan" or change is not None}
        if change is not None:
            changed["02_train_gan"] = log["02_train_gan"] | change
        (run / "run.json").write_text(json.dumps(changed))
        assert not is_done("02_train_gan", "smoke", run, GIVEN) and is_done("03_train_vae", "smoke", run, GIVEN)
        capsys.readouterr()
        assert main(["verify", str(run)]) == 1 and "02_train_gan" in capsys.readouterr().out
    with pytest.raises(UserError, match="run.json says nothing of gan/.*run notebooks/02_train_gan.ipynb"):
        start("04_discover_directions", {"profile": "smoke", "run": "tiny", "outputs": str(tmp_path), "seed": 0})
    (run / "run.json").unlink()
    assert not any(is_done(name, "smoke", run, GIVEN) for name in SINGLE)


@pytest.mark.parametrize(
    "entry", [5, None, [], {"files": None}, {"files": {"a": 5}}, {"files": {"a" * 400: "x"}}, {"provenance": None}, {"results": 5}]
)
def test_a_run_json_of_an_odd_shape_is_a_line(entry, finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "tiny")
    (tmp_path / "tiny" / "run.json").write_text(json.dumps({"02_train_gan": entry}))
    assert main(["verify", str(tmp_path / "tiny")]) == 1
    said = capsys.readouterr()
    assert "BROKEN tiny: " in said.out and "run.json is damaged" in said.out and not said.err
    with pytest.raises(UserError, match="run.json is damaged"):
        start("04_discover_directions", {"profile": "smoke", "run": "tiny", "outputs": str(tmp_path), "seed": 0})


@pytest.mark.parametrize("content", ['{"cells": []}', '{"cells": 3}', '{"cells": [5], "metadata": {}, "nbformat": 4}', "[" * 100_000])
def test_a_damaged_executed_notebook_is_not_done(content, finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "tiny")
    (tmp_path / "tiny" / "notebooks" / "03_train_vae.ipynb").write_text(content)
    assert not is_done("03_train_vae", "smoke", tmp_path / "tiny", GIVEN)
    assert main(["verify", str(tmp_path / "tiny")]) == 1
    assert "BROKEN tiny: notebooks/03_train_vae.ipynb cannot be read: run it again" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["2024-13-45", "!!int abc", "!!float x", "0x_", "!!timestamp foo", "[" * 3000, "[1"])
def test_values_that_no_parser_takes_are_a_line(value, tmp_path, capsys):
    assert main(["run", "--profile", "smoke", "--outputs", str(tmp_path), "--set", f"gan_steps={value}"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: --set gan_steps=") and said.count("\n") == 1


def test_no_folder_is_named_in_what_a_run_writes(finished, tmp_path):
    """Of the data, however it is given; and of the outputs, which may lie in a patient's folder or a user's home."""
    patient = tmp_path / "DOE^Jane"
    patient.mkdir()
    stage = start("01_data_preparation", {"profile": "smoke", "run": "r", "outputs": str(tmp_path), "seed": 0, "data_dir": str(patient)})
    assert stage.settings.source.data_dir.startswith("folder-") and "DOE" not in stage._repr_html_()
    written = [path for path in finished.rglob("*") if path.is_file() and path.suffix in (".json", ".ipynb", ".html", ".csv")]
    assert len(written) > 20
    named = [path for path in written if str(finished.parent) in path.read_text(encoding="utf-8", errors="replace")]
    assert not named
