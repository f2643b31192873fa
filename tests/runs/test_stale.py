"""Nothing stale: what is done is done again exactly when something that it depends on has changed."""

import json
import os
import shutil
import subprocess
import sys

import nbformat
import pandas as pd
import pytest
import torch

import lpdirs as lp
import lpdirs.base.code
from lpdirs.base.checkpoints import NOT_MATHEMATICS
from lpdirs.base.code import code_alone, fingerprint_of_code
from lpdirs.base.errors import UserError
from lpdirs.data.build import build_dataset
from lpdirs.discovery.closed_form import random
from lpdirs.discovery.directions import Directions, DirectionsInfo
from lpdirs.discovery.methods import discover
from lpdirs.discovery.objective import Discovery, DiscoverySettings
from lpdirs.measures.thorax import thorax
from lpdirs.models.files import load_generator, save_model
from lpdirs.models.networks import VAE, GeneratorNetwork
from lpdirs.phantom.cohort import Cohort, write_cohort
from lpdirs.runs import notebooks
from lpdirs.runs.models import open_models
from lpdirs.runs.notebooks import is_done, key
from lpdirs.runs.records import files_of, write_log
from lpdirs.runs.search import score_run
from lpdirs.runs.stage import NOTEBOOKS, open_run
from lpdirs.runs.verify import verify
from lpdirs.scores.response import respond
from tests.conftest import ROOT, SETTINGS
from tests.toys import lively

REFERENCE = ROOT / "outputs" / "reference" / "demo"


@pytest.fixture
def folder(tmp_path):
    """A run whose first two notebooks are stamped as done."""
    run = tmp_path / "r"
    for part, name in (
        ("data", "dataset.json"),
        ("gan", "generator.safetensors"),
        ("vae", "vae.safetensors"),
        ("directions", "directions.safetensors"),
        ("notebooks", "x"),
    ):
        (run / part).mkdir(parents=True)
        (run / part / name).write_text("1")
    return run


def stamp(name, folder, given=None, seed=0):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    log = json.loads((folder / "run.json").read_text()) if (folder / "run.json").exists() else {}
    part = NOTEBOOKS[name]
    log[name] = {"files": files_of(folder, name, (part,), {})}
    write_log(folder, log)
    notebook.metadata["lpdirs_key"] = key(name, "smoke", folder, given or {}, seed)
    nbformat.write(notebook, folder / "notebooks" / f"{name}.ipynb")
    assert is_done(name, "smoke", folder, given or {}, seed)


def touch(path, text):
    path.write_text(text)
    os.utime(path, (1, 1))


def test_another_setting_or_seed_counts_and_one_of_another_notebook_does_not(folder):
    stamp("02_train_gan", folder)
    assert not is_done("02_train_gan", "smoke", folder, {"gan_lr": 0.1}) and not is_done("02_train_gan", "smoke", folder, {}, 1)
    assert is_done("02_train_gan", "smoke", folder, {"vae_lr": 0.1}), "the VAE's settings are not the GAN's"
    assert not is_done("03_train_vae", "smoke", folder, {})


@pytest.mark.parametrize("path", ["data/dataset.json", "gan/generator.safetensors", "vae/vae.safetensors"])
def test_what_earlier_notebooks_wrote_counts(folder, path):
    stamp("04_discover_directions", folder)
    touch(folder / path, "2")
    assert not is_done("04_discover_directions", "smoke", folder, {})


def test_files_of_dicom_that_were_added_or_changed_count(folder, tmp_path):
    source = tmp_path / "dicom"
    source.mkdir()
    (source / "a").write_text("one")
    given = {"data_dir": str(source)}
    (folder / "data" / "dataset.json").write_text("x")
    stamp("01_data_preparation", folder, given)
    touch(source / "a", "two")  # the same name and size
    assert not is_done("01_data_preparation", "smoke", folder, given)
    stamp("01_data_preparation", folder, given)
    (source / "b").write_text("more")
    assert not is_done("01_data_preparation", "smoke", folder, given)


def test_the_code_that_a_notebook_imports_counts_and_other_code_does_not(folder, tmp_path, monkeypatch):
    package = tmp_path / "lpdirs"
    shutil.copytree(ROOT / "lpdirs", package, ignore=shutil.ignore_patterns("__pycache__"))

    monkeypatch.setattr(lpdirs.base.code, "ROOT", package)
    stamp("02_train_gan", folder)
    edit = lambda path, a, b: (package / path).write_text((package / path).read_text().replace(a, b, 1))
    edit("models/networks.py", '"""The networks of', '"""Other words for the networks of')
    edit("show/share.py", "LARGEST = ", "LARGEST = 1 + ")
    assert is_done("02_train_gan", "smoke", folder, {}), "docstrings, and modules that it does not import"
    edit("models/networks.py", "0.0, 0.02)", "0.0, 0.03)")
    assert not is_done("02_train_gan", "smoke", folder, {}), "imported through models.training"


def test_the_front_door_s_names_are_followed_to_their_modules():
    plain = fingerprint_of_code("import lpdirs.discovery.methods")
    for way in (
        "import lpdirs as lp\nlp.discover(g)",
        "import lpdirs as L\nL.discover",
        "from lpdirs import discover",
        "import lpdirs\nlpdirs.discover",
    ):
        assert fingerprint_of_code(way) == plain
    assert plain != fingerprint_of_code("import lpdirs as lp\nlp.share(m)")


def test_code_is_compared_without_comments_docstrings_and_layout():
    one = 'def f(a):\n    """What it does."""\n    return a + "# no comment"  # why\n'
    other = 'def f(a):\n    """Other words,\n    in two lines."""\n\n    # another remark\n    return a + "# no comment"\n'
    assert code_alone(one) == code_alone(other) != code_alone(one.replace("a +", "a *"))


def test_a_gan_s_configuration_does_not_wait_for_the_vae(folder):
    given = {"generators": ["gan"]}
    stamp("04_discover_directions", folder, given)
    touch(folder / "vae" / "vae.safetensors", "2")
    assert is_done("04_discover_directions", "smoke", folder, given)
    touch(folder / "gan" / "generator.safetensors", "2")
    assert not is_done("04_discover_directions", "smoke", folder, given)


def test_weights_that_were_deleted_are_made_again(folder):
    stamp("02_train_gan", folder)
    (folder / "gan" / "generator.safetensors").unlink()
    assert (folder / "gan").is_dir() and not is_done("02_train_gan", "smoke", folder, {})


def test_outputs_below_the_data_folder_are_no_input(tmp_path):
    run = tmp_path / "outputs" / "r"
    (run / "data").mkdir(parents=True)
    (run / "notebooks").mkdir()
    (tmp_path / "a.dcm").write_text("x")
    given = {"data_dir": str(tmp_path)}
    (run / "data" / "dataset.json").write_text("made by it")
    stamp("01_data_preparation", run, given)
    (run / "data" / "slices.npy").write_text("made by it")
    (tmp_path / ".DS_Store").write_text("hidden")
    assert is_done("01_data_preparation", "smoke", run, given)
    assert is_done("01_data_preparation", "smoke", run, given | {"workers": 3}), "which changes nothing"


def test_magics_of_a_notebook_are_no_obstacle(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("%matplotlib inline\n!ls\nimport lpdirs.show.plots")])
    nbformat.write(notebook, tmp_path / "n.ipynb")
    assert fingerprint_of_code("\n".join(notebooks.code_of(tmp_path / "n.ipynb"))) == fingerprint_of_code("import lpdirs.show.plots")


def test_a_smaller_cohort_and_other_code_of_the_phantom_leave_nothing_behind(tmp_path, monkeypatch):
    four, two = (Cohort("t", patients=n, slices=2, matrix=64) for n in (4, 2))
    write_cohort(four, tmp_path)
    write_cohort(two, tmp_path)
    assert sorted(p.name for p in tmp_path.glob("P*")) == ["P0000", "P0001"]
    before = (tmp_path / "P0000" / "000.dcm").stat().st_mtime_ns
    write_cohort(two, tmp_path)
    assert (tmp_path / "P0000" / "000.dcm").stat().st_mtime_ns == before
    monkeypatch.setattr("lpdirs.phantom.cohort.fingerprint_of_code", lambda source: "other")
    write_cohort(two, tmp_path)
    assert (tmp_path / "P0000" / "000.dcm").stat().st_mtime_ns != before


def test_an_unmounted_folder_leaves_the_data_set(dicom_folder, tmp_path):
    source = tmp_path / "dicom"
    shutil.copytree(dicom_folder / "P0000", source)
    made = build_dataset(source, tmp_path / "data", SETTINGS)
    shutil.rmtree(source)
    source.mkdir()
    with pytest.raises(UserError, match="holds no files"):
        build_dataset(source, tmp_path / "data", SETTINGS)
    assert json.loads((tmp_path / "data" / "dataset.json").read_text()) == made


def test_a_generator_s_fingerprint_knows_its_further_inputs_and_range():
    module = torch.nn.Sequential(torch.nn.Linear(4, 1024), torch.nn.Sigmoid(), torch.nn.Unflatten(1, (1, 32, 32)))

    class Conditional(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module

        def forward(self, z, c):
            return self.inner(z) * c

    prints = {lp.as_generator(Conditional(), 4, inputs={"c": torch.full((1, 1, 1, 1), c)}).info.fingerprint for c in (0.5, 1.0)}
    prints |= {lp.as_generator(Conditional(), 4, value_range=(0, 1), inputs={"c": torch.ones(1, 1, 1, 1)}).info.fingerprint}
    assert len(prints) == 3


def test_what_a_search_began_at_is_part_of_its_checkpoint():
    generator = lp.as_generator(torch.nn.Sequential(torch.nn.Linear(4, 1024), torch.nn.Unflatten(1, (1, 32, 32))), 4)
    starts = [None, *(Directions(random(3, 4, seed)) for seed in (0, 1))]
    identities = [Discovery(generator, DiscoverySettings(n_directions=3), start).identity() for start in starts]
    assert len({json.dumps(identity) for identity in identities}) == 3 and "direction_batch" in identities[0]


def test_changed_cells_and_torn_notebooks_are_not_done(folder, monkeypatch):
    stamp("02_train_gan", folder)
    path = folder / "notebooks" / "02_train_gan.ipynb"
    whole = path.read_text()
    for torn in ("", "{", whole[: len(whole) // 2], "[]", '{"metadata": 3}'):
        path.write_text(torn)
        assert not is_done("02_train_gan", "smoke", folder, {})
    path.write_text(whole)
    cells = notebooks.code_of
    monkeypatch.setattr(notebooks, "code_of", lambda source: [*cells(source), "x = 1"])
    assert not is_done("02_train_gan", "smoke", folder, {})


def test_a_folder_that_was_deleted_is_not_done(folder):
    stamp("02_train_gan", folder)
    shutil.rmtree(folder / "gan")
    assert not is_done("02_train_gan", "smoke", folder, {})


def test_files_rewritten_in_place_are_read_again(dicom_folder, tmp_path):
    """Same names and sizes, other pixels, and the times put back."""
    source = tmp_path / "dicom"
    shutil.copytree(dicom_folder / "P0000", source)
    first = build_dataset(source, tmp_path / "data", SETTINGS)["fingerprint"]
    path = source / "003.dcm"
    content, times = path.read_bytes(), path.stat()
    path.write_bytes(content[:-64] + bytes(64))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size and build_dataset(source, tmp_path / "data", SETTINGS)["fingerprint"] != first


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The run that comes with the project, with one set of directions of its VAE."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    for part in ("data", "vae"):
        shutil.copytree(REFERENCE / part, folder / part)
    shutil.copy(REFERENCE / "run.json", folder)
    return folder


def found(run, seed=0):
    """A generator of the run, and directions of it, with what was measured along them beside their file."""
    generator, path = load_generator(run / "vae" / "vae.safetensors"), run / "directions" / "vae-mine" / "directions.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    directions = discover(generator, "random", 4, seed=seed)
    measures = thorax(generator.info.window, generator.info.pixel_mm)
    table = respond(generator, directions, measures, (-1, 0, 1), 4).table()
    table.to_csv(path.with_name("responses.csv"), index=False)
    placed = {"r_chance": 0.5, "selectivity_chance": 0.3, "selectivity_corrected": 1.0}
    pd.DataFrame(placed, index=pd.Index(measures.factors, name="factor")).to_csv(path.with_name("chance.csv"))
    return generator, directions


def test_what_discover_saves_is_all_that_the_rest_needs(run, capsys):
    """open_models, verify and score take the file as it is; one such file once broke them with a KeyError."""
    path = run / "directions" / "vae-mine" / "directions.safetensors"
    generator, directions = found(run)
    directions.save(path)
    assert directions.info.generator == "vae" and directions.info.generator_fingerprint == generator.info.fingerprint
    models = open_models(open_run(run))
    assert list(models) == ["vae-mine"] and torch.equal(models["vae-mine"][1].matrix, directions.matrix)
    assert not [line for line in verify(run) if line.broken and "directions/vae-mine" in line.text]
    (scored,) = score_run(run, 2, 0)
    assert json.loads(scored.read_text())["K"] == 4


def test_scores_are_those_of_the_directions_that_lie_there(run):
    path = run / "directions" / "vae-mine" / "directions.safetensors"
    found(run, 0)[1].save(path)
    first = json.loads(score_run(run, 2, 0)[0].read_text())
    generator, replaced = found(run, 1)
    replaced.save(path)
    second = json.loads(score_run(run, 2, 0)[0].read_text())
    assert first["directions_fingerprint"] != second["directions_fingerprint"] and first["mig"] != second["mig"]
    before = path.with_name("scores.json").stat().st_mtime_ns
    score_run(run, 2, 0)
    assert path.with_name("scores.json").stat().st_mtime_ns == before, "and are left alone where nothing has changed"


def test_scores_follow_the_responses_that_lie_beside(run):
    path = run / "directions" / "vae-mine" / "directions.safetensors"
    generator, directions = found(run)
    directions.save(path)
    measures = thorax(generator.info.window, generator.info.pixel_mm)
    first = json.loads(score_run(run, 2, 0)[0].read_text())
    respond(generator, directions, measures, (-4, 0, 4), 8).table().to_csv(path.with_name("responses.csv"), index=False)
    assert json.loads(score_run(run, 2, 0)[0].read_text())["selectivity"] != first["selectivity"]


def test_directions_of_a_generator_that_the_run_has_not_are_left_out_with_a_line(run, capsys):
    own = run / "directions" / "somebody" / "directions.safetensors"
    own.parent.mkdir(parents=True)
    try:
        Directions(random(3, 16), DirectionsInfo(generator="theirs")).save(own)
        path = run / "directions" / "vae-mine" / "directions.safetensors"
        path.parent.mkdir(exist_ok=True)
        found(run)[1].save(path)
        assert list(open_models(open_run(run))) == ["vae-mine"]
        assert "left out: directions/somebody belongs to a generator 'theirs', which this run has not" in capsys.readouterr().out
    finally:
        shutil.rmtree(own.parent)


def test_directions_of_another_training_are_refused(run, tmp_path):
    other = tmp_path / "mine"
    shutil.copytree(run, other)
    path = other / "directions" / "vae-mine" / "directions.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    found(other)[1].save(path)
    torch.manual_seed(5)
    save_model(
        VAE(64, 32, 8), other / "vae" / "vae.safetensors", "vae", {"model": "vae", "window": [-1000, 1000]}, size=64, latent_dim=32, width=8
    )
    with pytest.raises(UserError, match="directions/vae-mine belongs to another vae than the run has now"):
        open_models(open_run(other))
    assert [line for line in verify(other) if line.broken and "belongs to another vae" in line.text]


def test_a_run_of_an_earlier_version_is_converted_by_the_example(tmp_path):
    """As version 0.1 wrote it: it then opens, is whole, and is explored."""
    run = tmp_path / "run_1"
    shutil.copytree(ROOT / "tests" / "old" / "run_1", run)
    with pytest.raises(UserError, match="convert it with examples/convert.py"):
        lp.load(run)
    subprocess.run([sys.executable, ROOT / "examples" / "convert.py", run], check=True, capture_output=True, timeout=600)
    (model,) = lp.load(run).values()
    assert len(model[1]) == 3 and model[1].info.generator == "vae" and model[1].id.label == "vae-unit3-lenet"
    assert not [str(line) for line in verify(run) if line.broken]
    explorer = lp.explore(run)
    assert "rotation" in explorer.readout.value and "length" in explorer.readout.value


def test_a_newer_or_unknown_format_is_a_line(tmp_path, monkeypatch):
    directions = Directions(random(3, 8))
    for written, message in (
        ("lpdirs.directions/9", "holds no directions .format 'lpdirs.directions/9'"),
        ("something/1", "holds no directions"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr("lpdirs.discovery.directions.FORMAT", written)
            directions.save(tmp_path / "d.safetensors")
        with pytest.raises(UserError, match=message) as caught:
            Directions.load(tmp_path / "d.safetensors")
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="unknown setting colour"):
        DirectionsInfo(colour="red")


def test_a_change_in_show_or_in_a_method_does_no_training_again(tmp_path, monkeypatch):
    package = tmp_path / "lpdirs"
    shutil.copytree(ROOT / "lpdirs", package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(lpdirs.base.code, "ROOT", package)
    generator = lively(GeneratorNetwork(32, 6, 8))
    known = lambda: (
        Discovery(generator, DiscoverySettings(n_directions=3)).identity()["code"],
        fingerprint_of_code("import lpdirs.models.training, lpdirs.base.checkpoints", without=NOT_MATHEMATICS),
    )
    before = known()
    for path in ("show/plots.py", "show/explorer.py", "discovery/motion.py", "discovery/others.py", "runs/report.py", "scores/steering.py"):
        (package / path).write_text((package / path).read_text() + "\nCHANGED = 1\n")
        assert known() == before, path
    (package / "models/networks.py").write_text((package / "models/networks.py").read_text() + "\nCHANGED = 1\n")
    assert known()[1] != before[1]
