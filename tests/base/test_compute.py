"""How it is computed: memory that is kept."""

import ctypes
import os
import subprocess
import sys

import pytest

FAULTS = """import resource, torch
from lpdirs.base.compute import keep_memory
keep_memory()
of = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for i in range(30):
    before = of() if i == 20 else before if i else 0  # by then all that is kept has been used once
    torch.ones(16_000_000)
print(of() - before)"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="malloc is not glibc's")
def test_freed_memory_is_kept_for_the_next_tensor_unless_it_is_told_not_to():
    """64 MB are 15,625 pages, which a process that gives them back must fetch again each time."""
    faults = {}
    for wish in ("1", "0"):
        environment = os.environ | {"LPDIRS_KEEP_MEMORY": wish}
        ran = subprocess.run([sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, check=True, timeout=600)
        faults[wish] = int(ran.stdout)
    assert faults["1"] < 1_000 and faults["0"] > 100_000, faults
