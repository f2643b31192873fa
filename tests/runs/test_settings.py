"""Settings: one definition, checked before any work on every way in, and one line for what does not fit."""

import subprocess
import sys

import nbformat
import pytest
import yaml

from lpdirs.base.errors import UserError
from lpdirs.discovery.objective import DiscoverySettings
from lpdirs.models.training import GANSettings
from lpdirs.runs.cli import main
from lpdirs.runs.settings import PLACES, help_of, resolve
from lpdirs.runs.stage import start
from tests.conftest import ROOT

# of each kind of mistake one, with what the line must say
CASES = [
    ("data_dir", "", "must not be empty"),
    ("cohort", "nobody", "unknown cohort 'nobody': choose one of phantom_demo, phantom_smoke"),
    ("size", 48, "must be 32, 64, 128 or 256, not 48"),
    ("window_low", 1000, "window_low must be less than window_high, not 1000 and 1000"),
    ("min_lung", 1.5, "less than 1"),
    ("latent_dim", 2.5, "a whole number"),
    ("latent_dim", True, "must not be true"),
    ("gan_lr", float("inf"), "finite"),
    ("gan_spectral_norm", "maybe", "true or false"),
    ("generators", ["gan", "gam"], "must be 'gan', 'vae' or FILE.py:FUNCTION"),
    ("method", "guess", "must be one of reconstructor, "),
    ("method", "pca-encoded", "needs an encoder, which a GAN has not"),
    ("start", "reconstructor", "must be one of coordinate, "),
    ("strip_columns", 4, "must be odd"),
    ("response_shifts", [1, 1, 1], "different values"),
    ("response_shifts", [-1e308, 0, 1], "at least -1000"),
    ("response_samples", 10**12, "at most 1000000"),
    ("direction_steps", 10**20, "at most 1"),
    ("augment", "wider", "augment"),
    ("scheduler", "host", "must be an address such as tcp://10.0.0.5:8786"),
    ("scheduler", "tcp://a b", "must be an address"),
    ("device", "cuda:7", "there is none here"),
]


@pytest.mark.parametrize(("name", "value", "message"), CASES, ids=[f"{name}={value}" for name, value, _ in CASES])
def test_a_value_that_makes_no_sense_is_one_line_before_any_work(name, value, message, tmp_path, capsys):
    """From the command line, which reads YAML; nothing is written."""
    if name == "device" and value == "cuda:7" and __import__("torch").cuda.is_available():
        pytest.skip("there is a GPU")
    word = yaml.safe_dump({name: value}, default_flow_style=True, width=1000).strip()[1:-1].replace(": ", "=", 1)
    assert main(["run", "--outputs", str(tmp_path), "--set", word]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("error: ") and message in said, said
    assert name in said or message.startswith("needs an encoder") or "window_low" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_directions": 100, "basis": "orthonormal"}, "n_directions must be at most latent_dim = 32 for orthonormal directions, not 100"),
        ({"n_directions": 100, "method": "sefa"}, "n_directions must be at most latent_dim = 32 with method sefa, not 100"),
        ({"n_directions": 100, "start": "jacobian"}, "n_directions must be at most latent_dim = 32 with start jacobian"),
        ({"gan_stepz": 3}, "unknown setting gan_stepz: did you mean gan_steps"),
        ({"xyzzy": 3}, "unknown setting xyzzy: settings are profile, run, outputs, seed, data_dir"),
    ],
)
def test_settings_that_do_not_go_together(given, message):
    with pytest.raises(UserError) as caught:
        resolve("demo", given)
    assert message in str(caught.value)


@pytest.mark.parametrize("way", ["notebook", "papermill", "python", "grid", "profile"])
def test_every_other_way_in_checks_too(way, tmp_path, capsys, monkeypatch):
    if way == "notebook":
        with pytest.raises(UserError, match="gan_lr must be greater than 0"):
            start("02_train_gan", {"profile": "smoke", "run": "r", "outputs": str(tmp_path), "seed": 0, "gan_lr": -1})
    elif way == "papermill":
        out = tmp_path / "out.ipynb"
        words = ["-p", "profile", "smoke", "-p", "outputs", str(tmp_path), "-p", "gan_lr", "-1", "--log-level", "CRITICAL", "-k", "python3"]
        source = ROOT / "notebooks" / "02_train_gan.ipynb"
        ran = subprocess.run([sys.executable, "-m", "papermill", source, out, *words], capture_output=True, text=True, timeout=600)
        red = [o for c in nbformat.read(out, 4).cells for o in c.get("outputs", []) if o.output_type == "error"]
        assert ran.returncode == 1 and "gan_lr must be greater than 0, not -1" in red[0].evalue and len(red[0].traceback) == 1
    elif way == "python":
        with pytest.raises(UserError, match="gan_lr must be greater than 0, not -1"):
            GANSettings(lr=-1)
        with pytest.raises(UserError, match="n_directions must be at least 2"):
            DiscoverySettings().but(n_directions=0)
    elif way == "grid":
        grid = {"profile": "smoke", "configurations": {"a": {"lr_directions": "x"}}}
        (tmp_path / "g.yaml").write_text(yaml.safe_dump(grid))
        assert main(["sweep", str(tmp_path / "g.yaml"), "--outputs", str(tmp_path / "o")]) == 1
        assert "lr_directions must be a number, not 'x'" in capsys.readouterr().err and not (tmp_path / "o").exists()
    else:
        (tmp_path / "notebooks" / "profiles").mkdir(parents=True)
        (tmp_path / "notebooks" / "profiles" / "mine.yaml").write_text("profile: mine\nsize: 50\n")
        monkeypatch.setattr("lpdirs.runs.settings.home", lambda: tmp_path)
        with pytest.raises(UserError, match="size must be 32, 64, 128 or 256, not 50"):
            resolve("mine", {})
        (tmp_path / "notebooks" / "profiles" / "mine.yaml").write_text("profile: [")
        with pytest.raises(UserError, match="mine.yaml is not YAML"):
            resolve("mine", {})


@pytest.mark.parametrize("address", ["tcp://10.0.0.5:8786", "tls://node1:8786", "node1:8786", "ucx://10.0.0.5:1"])
def test_a_scheduler_s_address_is_read(address):
    assert resolve("smoke", {"scheduler": address}).source.scheduler == address


@pytest.mark.parametrize(("given", "kept"), [(True, True), (False, False), ("wide", "wide")])
def test_augmentation_is_off_the_paper_s_or_wide(given, kept):
    settings = resolve("smoke", {"augment": given})
    assert settings.gan.augment is kept or settings.gan.augment == kept == "wide"


def test_numbers_in_words_are_read():
    """YAML takes 2e-4 for text."""
    assert resolve("phantom", {"gan_lr": "2e-4"}).gan.lr == 2e-4
    assert resolve("phantom", {"generators": "gan"}).choice.generators == ("gan",)
    assert resolve("phantom", {"compile": False}).gan.compile == "off", "as YAML reads off"


def test_epochs_that_are_asked_for_take_the_place_of_steps():
    assert resolve("phantom", {"gan_epochs": 3}).gan.steps is None and resolve("phantom", {}).gan.steps == 2000
    assert resolve("paper", {"gan_steps": 7}).gan.steps == 7


@pytest.mark.parametrize("seed", [-1, 1.5, "x", True])
def test_a_seed_is_a_whole_number(seed, tmp_path):
    with pytest.raises(UserError, match="seed must be a whole number"):
        start("02_train_gan", {"profile": "smoke", "run": "r", "outputs": str(tmp_path), "seed": seed})


@pytest.mark.parametrize("run", ["..", ".", "", "../x", "a/b", "/tmp/x", "~", ".hidden", "a\nb", "x" * 200, "a\\b"])
def test_a_run_s_name_is_a_name_on_every_way_in(run, tmp_path, capsys):
    """`run --run ..` once wrote two levels above the clone."""
    with pytest.raises(UserError, match="run must be a plain folder name"):
        start("02_train_gan", {"profile": "smoke", "run": run, "outputs": str(tmp_path / "o"), "seed": 0})
    assert main(["run", "--profile", "smoke", "--run", run, "--outputs", str(tmp_path / "o")]) == 1
    assert "run must be a plain folder name" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_all_are_listed_with_what_they_are(capsys):
    assert main(["settings"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n{name}:" in "\n" + said and help_of(name)[1] in said for name in PLACES)
