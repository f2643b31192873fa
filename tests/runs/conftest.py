"""One finished run, which several files of tests use, whichever process needs it first."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from tests.conftest import ROOT

TINY = ["size=32", "gan_steps=3", "vae_steps=3", "direction_steps=3", "n_directions=2", "response_samples=2"]


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory) -> tuple[Path, list[str], SimpleNamespace, Path]:
    """All six notebooks on a handful of slices, as a user would run them: the folder of outputs, the command's words, what it said; and a
    copy of the run, which stays as it was."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if base.name.startswith("popen-") else base  # of all processes of these tests
    outputs, said, pristine = base / "smoke", base / "smoke.json", base / "pristine"
    words = ["run", "--profile", "smoke", "--run", "tiny", "--outputs", str(outputs), "--set", *TINY]
    with FileLock(base / "smoke.lock"):
        if not said.exists():
            outputs.mkdir()
            ran = subprocess.run([sys.executable, "-m", "lpdirs", *words], cwd=ROOT, capture_output=True, text=True, timeout=1200)
            assert ran.returncode == 0, ran.stderr[-2000:]
            shutil.copytree(outputs / "tiny", pristine)
            said.write_text(json.dumps({"stdout": ran.stdout, "stderr": ran.stderr}))
    return outputs, words, SimpleNamespace(**json.loads(said.read_text())), pristine
