"""What holds the house together: imports run one way, dependencies stand in one place, notebooks are as a reader expects."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from lpdirs.runs.settings import COMMON, PLACES, profile_names, resolve
from lpdirs.runs.stage import NOTEBOOKS
from tests.conftest import ROOT
from tests.notebooks.refresh import parameters, sources

ROOMS = ["base", "phantom", "data", "measures", "models", "discovery", "scores", "show", "runs"]
REFERENCE = ROOT / "tests" / "notebooks" / "reference"


def imports(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def test_imports_run_one_way():
    """base <- phantom <- data <- measures <- models <- discovery <- scores <- show <- runs; only the two doors open on all."""
    for path in (ROOT / "lpdirs").glob("*/*.py"):
        room = ROOMS.index(path.parent.name)
        for name in imports(path):
            if name.startswith("lpdirs."):
                assert ROOMS.index(name.split(".")[1]) <= room, f"{path.parent.name}/{path.name} imports {name}"
    assert {path.name for path in (ROOT / "lpdirs").glob("*.py")} == {"__init__.py", "__main__.py"}


def test_nothing_below_runs_knows_notebooks_profiles_or_the_clone():
    for path in (ROOT / "lpdirs").glob("*/*.py"):
        if path.parent.name not in ("runs",) and path.name != "places.py":
            text = path.read_text()
            assert "papermill" not in text and not re.search(r"0[1-7]_[a-z]+_", text), path
            assert "base.places" not in text or path.name == "lidc.py", path


def test_modules_are_one_idea_each():
    lengths = {path.name: len(path.read_text().splitlines()) for path in (ROOT / "lpdirs").rglob("*.py")}
    assert max(lengths.values()) <= 400, max(lengths, key=lengths.get)
    assert "utils.py" not in lengths


LOCKS = ("requirements.lock", "requirements-test.lock")  # what running needs, and what the tests add


def locked(*files: str) -> dict[str, Version]:
    text = "\n".join((ROOT / name).read_text() for name in files or LOCKS)
    lines = [line.split(";")[0].strip() for line in text.splitlines()]
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", name).lower(): Version(version) for name, version in pins}


def test_lock_environment_and_pyproject_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = locked()
    for text in project["dependencies"] + sum(project["optional-dependencies"].values(), []):
        requirement = Requirement(text)
        if requirement.name == "lpdirs":
            continue
        version = pins[re.sub(r"[-_.]+", "-", requirement.name).lower()]
        assert requirement.specifier.contains(version), f"{requirement} is locked at {version}"
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert environment["channels"] == ["conda-forge"] and pip == ["-r requirements.lock", "-e ."]
    assert sorted(re.split("[=<>]", d)[0] for d in conda) == ["pip", "python"]
    python = next(d for d in conda if d.startswith("python")).split("=")[1]
    assert Requirement(f"python{project['requires-python']}").specifier.contains(python)


def test_running_needs_nothing_of_the_tests():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    only = {Requirement(text).name for text in project["optional-dependencies"]["test"]} - {"lpdirs", "packaging", "setuptools"}
    assert not {re.sub(r"[-_.]+", "-", name).lower() for name in only} & set(locked("requirements.lock"))


@pytest.mark.parametrize("name", LOCKS)
def test_the_locks_name_no_address(name):
    text = (ROOT / name).read_text()
    assert "://" not in text and "@" not in text and "--" not in text


def test_installed_is_what_is_locked():
    from importlib.metadata import version

    for name in ("torch", "numpy", "pydicom", "papermill", "nbval"):
        assert Version(version(name).split("+")[0]) == locked()[name]


def test_every_import_is_declared():
    """What the package imports is a dependency; what only some of it needs is one of an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [Requirement(t).name for t in project["dependencies"] + sum(project["optional-dependencies"].values(), [])]
    called = {
        "pillow": "PIL",
        "python-gdcm": "gdcm",
        "scikit-image": "skimage",
        "scikit-learn": "sklearn",
        "pyyaml": "yaml",
        "ipython": "IPython",
    }
    modules = {called.get(name, name.replace("-", "_")) for name in declared} | {"lpdirs", *sys.stdlib_module_names}
    used = {name.split(".")[0] for path in (ROOT / "lpdirs").rglob("*.py") for name in imports(path)}
    assert used <= modules, used - modules
    unix = {"fcntl", "resource", "pwd", "grp", "termios"}
    at_start = {a for path in (ROOT / "lpdirs").rglob("*.py") for node in ast.parse(path.read_text()).body
                for a in ([n.name for n in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None)])}  # fmt: skip
    assert not unix & at_start


def test_profiles_hold_differences_only():
    defaults = resolve("phantom", {}).flat()
    assert profile_names() == ["chest", "chest_gpu", "demo", "paper", "phantom", "smoke"]
    for name in profile_names():
        values = yaml.safe_load((ROOT / "notebooks" / "profiles" / f"{name}.yaml").read_text())
        assert values.pop("profile") == name
        resolved = resolve(name, {}).flat()
        assert not [key for key in values if resolved[key] == defaults[key]], "what is at its default is not written again"


def test_the_paper_profile_is_the_recipe():
    """The table of the specification, line by line."""
    recipe = {
        **{"size": 128, "window_low": -1000, "window_high": 2000, "latent_dim": 32, "augment": True},
        **{"gan_width": 128, "gan_batch": 128, "gan_epochs": 50, "gan_lr": 2e-4, "gan_steps": None},
        **{"gan_noise": 0, "gan_ema": 0, "gan_spectral_norm": False},
        **{"vae_width": 64, "vae_batch": 128, "vae_epochs": 50, "vae_lr": 1e-4, "vae_steps": None},
        **{"vae_loss": "paper", "vae_kl_weight": 0.01},
        **{"n_directions": 32, "basis": "unit", "reconstructor": "lenet", "direction_steps": 3000, "direction_batch": 128},
        **{"lr_directions": 1e-4, "lr_reconstructor": 1e-4, "shift_scale": 6, "min_shift": 0.5, "shift_weight": 0.25},
    }
    profile = resolve("paper", {}).flat()
    assert {name: profile[name] for name in recipe} == recipe


def read(name: str, folder: Path = ROOT / "notebooks"):
    return nbformat.read(folder / f"{name}.ipynb", 4)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_are_as_a_reader_expects(name):
    notebook = read(name)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert notebook.cells[0].source.startswith(f"# {name[:2]} · ") and "**Question.**" in notebook.cells[0].source
    (parameters_cell,) = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run once, from top to bottom"
    names = [node.target.id for node in ast.parse(parameters_cell.source).body]
    assert names[: len(COMMON)] == list(COMMON) and set(names) - set(COMMON) <= set(PLACES)
    assert parameters(ROOT / "notebooks" / f"{name}.ipynb") == parameters_cell.source, "make parameters writes it"
    sources = "".join(cell.source for cell in notebook.cells)  # pictures are letters too
    assert "PARAM" not in sources and "FIND_" not in sources
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error" and output.get("name") != "stderr", cell.source
            text = "".join(output.get("text", "")) + str({k: v for k, v in output.get("data", {}).items() if not k.startswith("image/")})
            assert not re.search(r"(/work/|/root/|/home/|/tmp/|[Ww]arning)", text), text[:300]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_words_about_the_demo_are_marked_as_such(name):
    """So that they say of themselves, in anybody else's run, that they are not about it."""
    for cell in nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4).cells:
        about = re.search(r"(?im)\bin the demo\b(?! profile)|\*\*Answer|^## What we (found|have)", cell.source)
        if cell.cell_type == "markdown" and about:
            assert "demo" in cell.metadata.get("tags", []), cell.source[:80]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_each_opens_with_the_answer_of_the_run_that_is_shown(name):
    shown = ["".join(output["data"].get("text/markdown", "")) for output in read(name).cells[2].outputs if "data" in output]
    assert shown[0].startswith("**Answer of this run.** "), "computed, below the title"


def test_every_setting_belongs_to_a_notebook():
    declared = set()
    for name in NOTEBOOKS:
        (cell,) = [c for c in read(name).cells if "parameters" in c.metadata.get("tags", [])]
        declared |= {node.target.id for node in ast.parse(cell.source).body}
    assert declared - set(COMMON) == set(PLACES)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_nbval_ignores_says_why(name):
    cells = [cell for cell in read(name).cells if cell.cell_type == "code"]
    ignored = [cell for cell in cells if "nbval-ignore-output" in cell.metadata.get("tags", [])]
    assert all(cell.source.startswith("# not compared by nbval: ") for cell in ignored) and len(ignored) <= 9
    assert not any("not compared" in cell.source for cell in cells if cell not in ignored)
    assert len(cells) - len(ignored) >= 5
    assert not any("nbval-skip" in cell.metadata.get("tags", []) for cell in cells)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_nbval_s_references_are_the_notebooks_at_smoke_scale(name):
    """If this fails: make reference."""
    source = [(c.cell_type, c.source, c.metadata.get("tags", [])) for c in read(name).cells]
    reference = [(c.cell_type, c.source, c.metadata.get("tags", [])) for c in read(name, REFERENCE).cells]
    injected = [c for c in reference if "injected-parameters" in c[2]]
    assert injected and 'profile = "smoke"' in injected[0][1]
    assert [c for c in reference if c not in injected] == source


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_committed_outputs_are_of_the_cells_that_stand_there(name):
    """If this fails: make notebooks. If it is skipped, the package's code has changed since: make notebooks, before a release."""
    notebook = read(name)
    now = sources(ROOT / "notebooks" / f"{name}.ipynb")
    assert notebook.metadata["lpdirs"]["cells"] == now["cells"], f"{name}: the outputs are of other cells"
    if notebook.metadata["lpdirs"]["code"] != now["code"]:
        pytest.skip(f"out of date: {name} was executed with other code of the package")
