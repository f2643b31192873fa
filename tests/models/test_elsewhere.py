"""Models on another device than the data. The cases run in a process of their own: a device must be there before the first gradient."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.elsewhere import setup


@pytest.mark.skipif(setup is None, reason="torch is too old to make a device of its own")
def test_all_that_meets_a_model_is_moved_to_it():
    cases = Path(__file__).with_name("elsewhere_cases.py")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=short", str(cases)]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=1400)
    assert ran.returncode == 0 and "passed" in ran.stdout and "failed" not in ran.stdout, ran.stdout[-4000:]
