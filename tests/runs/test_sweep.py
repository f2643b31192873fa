"""A sweep: each thing once, whatever is killed or interrupted; and what went wrong in one line."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest
import yaml

from lpdirs.base.compute import cluster
from lpdirs.base.errors import UserError
from lpdirs.models.files import fingerprint
from lpdirs.runs.cli import main
from lpdirs.runs.comparison import collect
from lpdirs.runs.grid import DISCOVER, Grid
from lpdirs.runs.notebooks import is_done
from lpdirs.runs.records import digest_of_text, read_log
from lpdirs.runs.sweep import Outcome, do
from tests.conftest import ROOT

PROFILES = ROOT / "notebooks" / "profiles"
TINY = {
    "profile": "smoke",
    "generators": ["gan"],
    "settings": {"size": 32, "gan_steps": 3, "n_directions": 2, "response_samples": 4, "direction_steps": 200, "direction_batch": 4},
    "configurations": {"unit": {}, "orthonormal": {"basis": "orthonormal"}},
}


def write(folder: Path, content: dict, name: str = "grid_tiny") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"configurations": {"a": {"gan_stepz": 3}}}, "unknown setting gan_stepz"),
        ({"configurations": {"a/b": {}}}, "the name of a configuration must be a plain folder name of letters, digits, - and _, not 'a/b'"),
        ({"generators": ["gam"]}, "generators must be some of gan, vae"),
        ({"train": "twice"}, "train must be"),
        ({"seeds": [1, 1]}, "seeds must hold different values"),
        ({"profile": "huge"}, "unknown profile 'huge'"),
        ({"settings": {"data_dir": "/nowhere"}}, "data folder /nowhere does not exist"),
        ({"seed": [1]}, "unknown setting seed: did you mean seeds?"),
        ({"configurations": {"a": {"generators": ["vae"]}}}, "generators must be some of gan, not 'vae'"),
        ({"configurations": {"a": 3}}, "must be a mapping of settings"),
        ({"configurations": {}}, "configurations must hold at least 1"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"seeds": [-1]}, "seeds must be at least 0"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused_in_one_line(change, message, tmp_path, capsys):
    assert main(["sweep", str(write(tmp_path, TINY | change)), "--outputs", str(tmp_path)]) == 1
    captured = capsys.readouterr().err
    assert message in captured and captured.startswith("error: ") and captured.count("\n") == 1
    assert main(["sweep", str(tmp_path / "none.yaml")]) == 1 and "there is no grid" in capsys.readouterr().err


def test_the_paper_s_grid_has_its_twelve_configurations():
    jobs = Grid.read(PROFILES / "grid_paper.yaml").jobs()
    found = [job for job in jobs if job.notebook == DISCOVER]
    told = {(*job.given["generators"], job.given["reconstructor"], job.given["basis"], job.given["n_directions"]) for job in found}
    assert len(found) == len(told) == 12 and len(jobs) == 15, "data, GAN and VAE once"
    assert {k for _, _, basis, k in told if basis == "orthonormal"} == {32} and {k for *_, k in told} == {32, 100}


@pytest.mark.parametrize("path", sorted(PROFILES.glob("grid_*.yaml")), ids=lambda path: path.stem)
def test_every_grid_can_be_read(path):
    grid = Grid.read(path)
    jobs = grid.jobs()
    assert len({job.name for job in jobs}) == len(jobs)
    trained = len({training for training, _ in grid.pairs})
    assert sum(job.notebook != DISCOVER for job in jobs) == 1 + 2 * trained
    before = [job.name for job in jobs]
    assert all(before.index(name) < before.index(job.name) for job in jobs for name in job.after)


def call(path: Path, outputs: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "lpdirs", "sweep", str(path), "--outputs", str(outputs), *more]


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """The tiny grid by one worker, undisturbed."""
    outputs = tmp_path_factory.mktemp("serial")
    path = write(outputs, TINY)
    result = subprocess.run(call(path, outputs, "--workers", "1"), cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-3000:]
    return path, outputs / "grid_tiny", result


def results(folder: Path) -> dict:
    weights = {path.relative_to(folder).as_posix(): fingerprint(path) for path in folder.glob("gan-*/directions/*/*.safetensors")}
    return weights | {path.relative_to(folder).as_posix(): json.loads(path.read_text()) for path in folder.rglob("scores.json")}


def test_a_sweep_gives_executed_notebooks_scores_and_their_comparison(serial):
    _, folder, result = serial
    assert result.stdout.strip().endswith(f"compared in: {folder / 'notebooks' / '07_compare_runs.ipynb'}")
    rows = collect(folder)
    assert list(rows["configuration"]) == ["unit", "orthonormal"] and rows["kappa_fresh"].notna().all()
    for run in rows["run"]:
        notebook = nbformat.read(folder / run / "notebooks" / f"{DISCOVER}.ipynb", 4)
        assert all(cell.get("execution_count") for cell in notebook.cells if cell.cell_type == "code")
        assert (folder / run / "data").resolve() == (folder / "seed-0" / "data").resolve(), "shared, not copied"
        entry = read_log(folder / run)[DISCOVER]
        assert entry["peak_memory_MiB"]["host"] > 100 and entry["device"] in ("cpu", "cuda") and entry["provenance"]["threads"] == 1
        own = [p for p in (folder / run).glob("directions/*/*") if p.name in ("directions.safetensors", "responses.csv", "chance.csv")]
        named = {p.relative_to(folder / run).as_posix() for p in own} | {f"notebooks/{DISCOVER}.ipynb"}
        assert set(entry["files"]) == named
    page = nbformat.read(folder / "notebooks" / "07_compare_runs.ipynb", 4)
    text = json.dumps(page)
    assert "this sweep" in text and f"../{rows['run'][0]}/notebooks/{DISCOVER}.ipynb" in text
    written = folder / "comparison"
    assert len(pd.read_csv(written / "scores.csv")) == 2 and "\\begin{tabular}" in (written / "scores.tex").read_text()


def test_what_is_done_is_not_done_again(serial):
    path, folder, _ = serial
    for job in Grid.read(path).jobs():
        assert is_done(job.notebook, job.profile, folder / job.run, job.given, job.seed)
        assert not do(job, folder, 1).again


@pytest.fixture
def popen():
    """Begins processes in groups of their own, and ends what is left of them when the test has ended."""
    begun = []

    def begin(*words, **how):
        begun.append(subprocess.Popen(*words, cwd=ROOT, start_new_session=True, **how))
        return begun[-1]

    yield begin
    for process in begun:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(600)
        if process.stdout is not None:
            process.stdout.close()


def until(condition, seconds: float = 900):
    """What `condition` says, as soon as it says something; a machine that is busy with other things takes long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("waited too long")


def training(process: subprocess.Popen, folder: Path, least: int):
    """The kernel of this sweep that has trained directions for `least` steps, and the sweep's own processes."""

    def look():
        assert process.poll() is None, process.returncode
        for path in folder.glob(f"gan-*/.{DISCOVER}.json"):
            try:
                said = json.loads(path.read_text())
            except ValueError:
                continue
            if said["doing"].startswith("directions of") and least <= said["done"] < said["total"]:
                kernels = [p for p in psutil.Process(process.pid).children(recursive=True) if "ipykernel" in " ".join(p.cmdline())]
                return kernels[0] if kernels else None

    return until(look)


def test_killed_and_interrupted_it_ends_bit_for_bit_like_an_undisturbed_one(serial, tmp_path, popen):
    path, undisturbed, _ = serial
    folder = tmp_path / "grid_tiny"
    told = lambda: (tmp_path / "log").read_text()

    def begin() -> subprocess.Popen:
        with open(tmp_path / "log", "a") as log:
            return popen(call(path, tmp_path, "--workers", "2"), stdout=log, stderr=log)

    process = begin()  # a worker is killed: its configuration goes on elsewhere
    kernel = training(process, folder, 20)
    worker = kernel.parent()
    worker.kill()
    until(lambda: not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE, 120)
    training(process, folder, 20)
    started = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C reaches all processes of the terminal
    assert process.wait(600) == 130, told()
    assert told().strip().endswith("interrupted: what was done is kept, and the same command goes on")
    gone = lambda p: not p.is_running() or p.status() == psutil.STATUS_ZOMBIE
    until(lambda: all(gone(p) for p in started), 120)  # nothing is left running
    assert list(folder.glob("gan-*/directions/*/checkpoint.pt")), "what was interrupted was saved"

    assert begin().wait(900) == 0, told()
    assert results(folder) == results(undisturbed)


def test_whoever_asks_again_and_again_gets_a_line_and_no_log_of_dask(serial, tmp_path, popen):
    path, *_ = serial
    process = popen(call(path, tmp_path, "--workers", "2"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    training(process, tmp_path / "grid_tiny", 5)
    started = psutil.Process(process.pid).children(recursive=True)
    for _ in range(4):
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.3)
    out, _ = process.communicate(timeout=600)
    said = [line for line in out.strip().splitlines() if not line.startswith("seed-0/")]
    assert process.returncode == 130 and said == ["interrupted: what was done is kept, and the same command goes on"], out
    gone = lambda p: not p.is_running() or p.status() == psutil.STATUS_ZOMBIE
    until(lambda: all(gone(p) for p in started), 120)


def test_one_that_fails_keeps_its_red_cell_and_stops_no_other(serial, tmp_path, capsys):
    path, undisturbed, _ = serial
    content = TINY | {
        "configurations": {"bad": {"method": "pca", "n_directions": 3000}, "random": {"method": "random", "direction_steps": 2}}
    }
    (tmp_path / "grid_tiny").mkdir()
    for part in ("data", "gan"):  # what the sweep above has made
        (tmp_path / "grid_tiny" / "seed-0").mkdir(exist_ok=True)
        (tmp_path / "grid_tiny" / "seed-0" / part).symlink_to(undisturbed / "seed-0" / part)
    for name in ("notebooks", "run.json"):
        (tmp_path / "grid_tiny" / "seed-0" / name).symlink_to(undisturbed / "seed-0" / name)
    assert main(["sweep", str(write(tmp_path, content)), "--outputs", str(tmp_path), "--workers", "2"]) == 1
    captured = capsys.readouterr()
    assert "seed-0/02_train_gan: done before" in captured.out and "fewer than the 3000 directions asked for" in captured.out
    last = captured.err.strip().splitlines()[-1]
    assert last.startswith("error: 1 of 4 notebooks did not end well: gan-bad-seed0/04_discover_directions;")
    red = nbformat.read(tmp_path / "grid_tiny" / "gan-bad-seed0" / "notebooks" / f"{DISCOVER}.ipynb", 4)
    assert any(output.output_type == "error" for cell in red.cells for output in cell.get("outputs", []))
    assert list(collect(tmp_path / "grid_tiny")["configuration"]) == ["random"]


def test_a_grid_whose_seeds_change_links_to_the_right_generators(tmp_path):
    """Once seed 1's configurations kept the link to seed 0's generator, and counted as done."""
    grid = Grid(name="g", profile="smoke", configurations={"a": {}}, generators=("gan",), seeds=(0, 1))
    grid.lay_out(tmp_path / "g")
    assert (tmp_path / "g" / "gan-a-seed1" / "gan").readlink() == Path("../seed-0/gan")
    grid.but(train="each seed").lay_out(tmp_path / "g")
    assert (tmp_path / "g" / "gan-a-seed1" / "gan").readlink() == Path("../seed-1/gan")
    (tmp_path / "g" / "seed-0" / "data").mkdir(parents=True)
    with pytest.raises(UserError, match="is a folder of a sweep with other seeds"):
        grid.but(seeds=(5, 0), train="each seed").lay_out(tmp_path / "g")


def test_only_what_notebook_04_last_wrote_is_compared(tmp_path):
    run = tmp_path / "gan-a-seed0"
    for name, kappa in (("gan-unit32", 0.2), ("gan-unit16", 0.8)):
        (run / "directions" / name).mkdir(parents=True)
        (run / "directions" / name / "directions.safetensors").write_text("")
        (run / "directions" / name / "scores.json").write_text(json.dumps({"kappa": kappa, "digest": digest_of_text({"kappa": kappa})}))
    (run / "run.json").write_text(json.dumps({DISCOVER: {"results": {"sets": ["gan-unit16"]}}}))
    (tmp_path / "grid.json").write_text(json.dumps({"profile": "smoke", "generators": ["gan"], "configurations": {"a": {}}, "seeds": [0]}))
    assert collect(tmp_path)["kappa"].tolist() == [0.8]


def test_what_needs_a_failed_one_is_not_begun(tmp_path):
    job = Grid.read(PROFILES / "grid_smoke.yaml").jobs()[-1]
    outcome = do(job, tmp_path, 1, Outcome("seed-0/02_train_gan", error="no"))
    assert outcome.error == "not begun, since seed-0/02_train_gan failed" and not list(tmp_path.iterdir())


def test_a_full_disk_stops_it_with_one_line(tmp_path, capsys, monkeypatch):
    path = write(tmp_path, TINY)
    usage = type("Usage", (), {"free": 2**20})
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda folder: usage)
        assert main(["sweep", str(path), "--outputs", str(tmp_path)]) == 1
    assert "less than 256 MiB are free" in capsys.readouterr().err
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a small disk can only be mounted by root")
    try:
        monkeypatch.setattr("lpdirs.runs.grid.LEAST_FREE", 0)
        assert main(["sweep", str(path), "--outputs", str(disk), "--workers", "1"]) == 1
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: the disk is full at ") and last.endswith("free some, then run the same command again")


def test_each_worker_sees_a_gpu_of_its_own():
    with cluster(3, devices=["0", "5"]) as client:
        seen = client.run(lambda: __import__("os").environ["CUDA_VISIBLE_DEVICES"])
    assert sorted(seen.values()) == ["0", "0", "5"]


def test_nobody_at_the_scheduler_s_address_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("distributed.Client", lambda *a, **k: (_ for _ in ()).throw(OSError("refused")))
    assert main(["sweep", str(write(tmp_path, TINY)), "--outputs", str(tmp_path), "--scheduler", "tcp://127.0.0.1:9"]) == 1
    assert capsys.readouterr().err == (
        "error: no Dask scheduler answers at tcp://127.0.0.1:9: start one with `dask scheduler`, or leave it out\n"
    )


def test_verify_says_what_no_longer_matches(serial, tmp_path, capsys):
    _, folder, _ = serial
    assert main(["verify", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "BROKEN" not in told and "seed-0: " in told
    copy = tmp_path / "seed-0"
    subprocess.run(["cp", "-rL", folder / "seed-0", copy], check=True)
    table = copy / "data" / "slices.csv"
    table.write_text(table.read_text().replace("patient", "Patient", 1))
    (copy / "gan" / "generator.safetensors").write_bytes(b"torn")
    assert main(["verify", str(copy)]) == 1
    told = capsys.readouterr().out
    assert "BROKEN seed-0: data/slices.csv is not what notebook 01_data_preparation wrote" in told
    assert "BROKEN seed-0: gan/generator.safetensors is not what notebook 02_train_gan wrote" in told
    (copy / "gan" / "generator.safetensors").unlink()
    assert main(["verify", str(copy)]) == 1 and "gan/generator.safetensors is missing" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "nothing")]) == 1 and "holds no run.json" in capsys.readouterr().err


def test_the_slurm_script_asks_for_what_a_worker_needs():
    words = [sys.executable, "notebooks/cluster/slurm.py", "--partition", "gpu", "--hours", "7", "--gpus", "2", "--print"]
    script = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert script.returncode == 0, script.stderr
    asked = [line.removeprefix("#SBATCH ") for line in script.stdout.splitlines() if line.startswith("#SBATCH")]
    assert {"-p gpu", "-t 7:00:00", "--gres=gpu:2", "--cpus-per-task=4"} <= set(asked)
    assert "dask_worker tcp://" in script.stdout and "--nthreads 1" in script.stdout


def test_the_kubernetes_example_starts_what_dask_has():
    documents = list(yaml.safe_load_all((ROOT / "notebooks" / "cluster" / "kubernetes.yaml").read_text()))
    assert [d["kind"] for d in documents] == ["Service", "Deployment", "Deployment"]
    for document in documents[1:]:
        (container,) = document["spec"]["template"]["spec"]["containers"]
        program, role, *rest = container["command"]
        known = subprocess.run([Path(sys.executable).with_name(program), role, "--help"], capture_output=True, text=True, timeout=60)
        assert known.returncode == 0
        assert all(word in known.stdout for word in rest if word.startswith("--")), rest
    assert documents[2]["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": 1}


def test_profiles_and_grids_do_not_mix():
    from lpdirs.runs.settings import load_profile

    with pytest.raises(UserError, match="choose one of chest, chest_gpu, demo, paper, phantom, smoke, or"):
        load_profile("grid_demo")


@pytest.mark.parametrize("damage", ["link gone", "link elsewhere", "run gone", "scores torn", "scores forged", "grid torn", "table"])
def test_verify_finds_what_is_damaged_in_a_sweep(damage, serial, tmp_path, capsys):
    _, folder, _ = serial
    copy = tmp_path / folder.name
    subprocess.run(["cp", "-a", folder, copy], check=True)
    run = next(path for path in sorted(copy.iterdir()) if path.name.startswith("gan-"))
    scores = next(run.glob("directions/*/scores.json"))
    if damage.startswith("link"):
        (run / "gan").unlink()
        if damage == "link elsewhere":
            (run / "gan").symlink_to("../seed-0/data", target_is_directory=True)
    elif damage == "run gone":
        subprocess.run(["rm", "-r", run], check=True)
    elif damage == "scores torn":
        scores.write_text("{")
    elif damage == "scores forged":
        scores.write_text(json.dumps(json.loads(scores.read_text()) | {"kappa": 0.99}))
    elif damage == "grid torn":
        (copy / "grid.json").write_text("[]")
    else:
        table = copy / "comparison" / "scores.csv"
        table.write_text(table.read_text().replace("unit", "Unit", 1))
    assert main(["verify", str(copy)]) == 1
    said = capsys.readouterr()
    assert "BROKEN" in said.out and not said.err
    if damage.startswith("scores"):
        with pytest.raises(UserError, match="scores.json"):
            collect(copy)


def test_seeds_are_searched_in_every_training_and_some_configurations_take_fewer():
    content = {"lenet-unit-4": {"n_directions": 4}, "jacobian": {"method": "jacobian", "n_directions": 4, "seeds": 1}}
    grid = Grid(name="g", profile="smoke", configurations=content, generators=("gan",), seeds=(0, 1), train=(5, 7))
    names = [job.name for job in grid.jobs()]
    assert [name for name in names if "02_train" in name] == ["seed-5/02_train_gan", "seed-7/02_train_gan"]
    searched = [name.partition("/")[0] for name in names if "04_" in name]
    assert sorted(searched) == sorted(
        [f"gan-lenet-unit-4-train{t}-seed{s}" for t in (5, 7) for s in (0, 1)] + [f"gan-jacobian-train{t}-seed0" for t in (5, 7)]
    )
    links = grid.links()
    assert links["gan-jacobian-train7-seed0/gan"] == "../seed-7/gan" and links["gan-jacobian-train7-seed0/data"] == "../seed-5/data"
    assert links["gan-jacobian-train7-seed0/directions/chance"] == "../../seed-7/directions/chance"
