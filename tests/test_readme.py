"""The README's commands are ones that exist, and its numbers are those of the committed tables."""

import re
import shlex
import subprocess

import pandas as pd
import pytest
from torch import nn

from lpdirs.discovery.directions import Directions
from lpdirs.runs import cli
from tests.conftest import ROOT
from tests.readme_tables import against_chance, prediction

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"(?m)(?:^    .*\n)+", README)
LINES = [re.split(r"  +#|   +", line.strip())[0] for block in BLOCKS for line in block.splitlines()]
OURS = [line for line in LINES if line.startswith(("make ", "python -m lpdirs", "papermill ", "nohup ", "tmux "))]


def test_there_are_commands():
    assert len(OURS) >= 12 and any(line.startswith("make run") for line in OURS)


@pytest.mark.parametrize("line", [line for line in OURS if "python -m lpdirs" in line])
def test_lpdirs_takes_the_command(line, monkeypatch, tmp_path):
    """Parsed by the real command line, up to the work itself."""
    called = []
    for name in ("_run", "_fetch", "_sweep", "_settings", "_verify"):
        monkeypatch.setattr(cli, name, lambda args, name=name: called.append(name))
    ours = line[line.index("python -m lpdirs") :].split(" > ")[0].rstrip("'")
    assert cli.main(shlex.split(ours)[3:]) == 0 and len(called) == 1


@pytest.mark.parametrize("line", [line for line in OURS if line.startswith("make ")])
def test_make_has_the_target(line):
    dry = subprocess.run(["make", "-n", *shlex.split(line)[1:]], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert dry.returncode == 0, dry.stderr


def test_your_own_generator_works_as_it_says(monkeypatch, tmp_path):
    """The Python of the README, on a module and a function as a user might have; smaller."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line and not line.startswith(("#", "import"))]) <= 10, "ten lines"
    monkeypatch.chdir(tmp_path)
    module = nn.Sequential(nn.Linear(32, 32 * 32), nn.Sigmoid(), nn.Unflatten(1, (1, 32, 32)))
    function = lambda images: pd.DataFrame({"area": (images[:, 0] > 0).float().mean((1, 2)).numpy()})
    assert "k=32" in code
    exec(code.replace("k=32", "k=4").replace("latent_dim=512", "latent_dim=32"), {"module": module, "function": function})
    assert len(Directions.load(tmp_path / "directions.safetensors")) == 4
    assert (tmp_path / "strips.png").exists() and (tmp_path / "share.html").exists()


def test_files_that_it_links_to_are_there():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    missing = [link for link in links if not (ROOT / link).exists()]
    assert len(links) > 10 and not missing, missing


def test_its_tables_are_those_of_the_committed_run():
    """`python -m tests.readme_tables` prints them."""
    for lines in (against_chance(), prediction()):
        assert "\n".join(lines) in README
