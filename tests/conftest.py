"""Fixtures: a tiny cohort written as DICOM, its data set, and the folder of real CT where there is one."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from lpdirs.data.build import build_dataset
from lpdirs.data.series import DataSettings
from lpdirs.phantom.cohort import Cohort, write_cohort

ROOT = Path(__file__).parent.parent
REAL_CT = ROOT.parent / "shared" / "ct_samples"
COHORT = Cohort("tests", patients=16, slices=8, matrix=64, noise=10.0, seed=3)
SETTINGS = DataSettings(size=32, window_low=-1000, window_high=1000)


@pytest.fixture(autouse=True)
def fixed_random_state():
    torch.manual_seed(0)
    torch.set_num_threads(1)  # small tensors: a second thread waits more than it helps, on a busy machine ten times


@pytest.fixture(scope="session", autouse=True)
def private_folder(tmp_path_factory) -> Iterator[Path]:
    """Salt and tables of pseudonyms lie in a folder of the tests', also for the processes that they start."""
    folder = tmp_path_factory.mktemp("private")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LPDIRS_PRIVATE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def dicom_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dicom")
    write_cohort(COHORT, folder)
    return folder


@pytest.fixture(scope="session")
def dataset(dicom_folder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "data"
    build_dataset(dicom_folder, folder, SETTINGS)
    return folder


@pytest.fixture(scope="session")
def real_ct() -> Path:
    if not REAL_CT.is_dir():
        pytest.skip("no real CT beside the checkout")
    return REAL_CT


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
