"""Files are whole or absent, readable by those meant from their first byte, and a disk that takes no more is said in one line."""

import errno
import os
import resource
import stat
import subprocess
import sys

import numpy as np
import pytest

from lpdirs.base.errors import UserError
from lpdirs.base.files import write_array, write_atomic

TORCH = """import resource, sys
from pathlib import Path
import torch
from lpdirs.base.checkpoints import _save_checkpoint
from lpdirs.base.errors import UserError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    _save_checkpoint(Path(sys.argv[1]), {"a": torch.zeros(100_000)})
except UserError as error:
    print(error)"""


@pytest.mark.parametrize(("number", "said"), [(errno.EDQUOT, "your share of it"), (errno.EFBIG, "ulimit"), (errno.EROFS, "read-only")])
@pytest.mark.parametrize("kind", ["text", "array"])
def test_a_disk_that_takes_no_more_costs_nothing_and_is_one_line(kind, number, said, tmp_path, monkeypatch):
    def full(_):
        raise OSError(number, os.strerror(number))

    path = tmp_path / "a"
    path.write_bytes(b"before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=said) as caught:
        write_atomic(path, "new") if kind == "text" else write_array(path, np.zeros(9))
    assert "\n" not in str(caught.value) and os.listdir(tmp_path) == ["a"] and path.read_bytes() == b"before"


def test_a_limit_met_by_a_checkpoint_is_not_said_in_torch_s_words(tmp_path):
    ran = subprocess.run([sys.executable, "-c", TORCH, str(tmp_path)], capture_output=True, text=True, check=True, timeout=600)
    assert "cannot be written: a limit on the size of files is in force (ulimit -f): raise it" in ran.stdout, ran
    assert not os.listdir(tmp_path)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100_000


def test_what_is_private_is_so_from_its_first_byte(tmp_path, monkeypatch):
    seen = []
    replace = os.replace

    def look(source, target):
        seen.append(stat.S_IMODE(os.stat(source).st_mode))
        replace(source, target)

    monkeypatch.setattr(os, "replace", look)
    (tmp_path / "salt.partial").write_text("left by a process that was killed, readable by all")
    write_atomic(tmp_path / "salt", "secret", 0o600)
    assert seen == [0o600] and stat.S_IMODE((tmp_path / "salt").stat().st_mode) == 0o600
