"""Mutated files: whatever is done to a valid file, it is read as a plausible slice or named in one of REASONS, in bounded time.

`make fuzz` does it 10,000 times; the tests do a few hundred.
"""

import os
import resource
import shutil
import time

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.uid import RLELossless

from lpdirs.base.errors import UserError
from lpdirs.data.build import build_dataset
from lpdirs.data.dicom import read_header
from lpdirs.data.folder import REASONS, Unusable, find_files, list_files
from lpdirs.data.pixels import read_hu
from lpdirs.data.reading import read_headers
from lpdirs.data.series import DataSettings
from lpdirs.data.stacks import arrange
from lpdirs.data.store import open_dataset
from lpdirs.phantom.cohort import Cohort, to_dicom
from lpdirs.phantom.painting import render
from lpdirs.phantom.population import sample_patients
from tests.data.files import chest, write

CASES = int(os.environ.get("LPDIRS_FUZZ", "400"))
COHORT = Cohort("fuzz", 1, 1)
VALUES = {  # tags and hostile values for them
    "Rows": [0, 1, 31, 4097, 60000, 65535, 64, 128],
    "Columns": [0, 1, 31, 4097, 60000, 65535, 64, 128],
    "BitsAllocated": [0, 1, 8, 12, 16, 32, 64],
    "BitsStored": [0, 1, 12, 16, 17],
    "PixelRepresentation": [0, 1, 7],
    "SamplesPerPixel": [0, 1, 3],
    "NumberOfFrames": [0, 1, 2, 10**6],
    "PhotometricInterpretation": ["MONOCHROME1", "RGB", "PALETTE COLOR", ""],
    "RescaleSlope": [0, 1, -1, 1e9, 1e-9, "nan"],
    "RescaleIntercept": [0, -1024, 1e9, -1e9],
    "PixelSpacing": [[0, 0], [1, 1], [-1, 1], [1e9, 1e9], [0.001, 0.001]],
    "ImagePositionPatient": [[0, 0, 0], [1e9, 0, 0]],
    "ImageOrientationPatient": [[0] * 6, [1, 0, 0, 1, 0, 0], [0.7, 0.7, 0, -0.7, 0.7, 0], [9] * 6, [1, 0, 0, 0, 0, 1]],
    "PixelPaddingValue": [0, 65535, 1024],
    "PatientID": ["", "x" * 64, "../../etc"],
    "SeriesInstanceUID": ["", "1.2.3"],
    "SOPClassUID": ["", "1.2", "1.2.840.10008.5.1.4.1.1.7"],
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A plain, a compressed and a headerless file of one slice, as bytes, and its HU."""
    folder, hu = tmp_path_factory.mktemp("originals"), render(sample_patients(1, 0)[0], 0.5, 64)[0]
    ds = to_dicom(hu, "P", 0.5, 0, COHORT)
    ds.save_as(folder / "plain", enforce_file_format=True)
    ds.compress(RLELossless)
    ds.save_as(folder / "rle", enforce_file_format=True)
    bare = pydicom.dcmread(folder / "plain")
    del bare.file_meta
    bare.save_as(folder / "bare", implicit_vr=True, little_endian=True, enforce_file_format=False)
    return [p.read_bytes() for p in sorted(folder.iterdir())], folder / "plain"


def mutate(rng: np.random.Generator, originals: list[bytes], plain, path) -> None:
    """Write one mutant of the originals to `path`."""
    kind = rng.integers(5)
    data = bytearray(originals[rng.integers(len(originals))])
    if kind == 0:  # truncated
        data = data[: rng.integers(len(data))]
    elif kind == 1:  # bytes flipped in the header
        for _ in range(rng.integers(1, 20)):
            data[rng.integers(min(2000, len(data)))] = rng.integers(256)
    elif kind == 2:  # bytes flipped anywhere
        for _ in range(rng.integers(1, 200)):
            data[rng.integers(len(data))] = rng.integers(256)
    elif kind == 3:  # a piece cut out, doubled or replaced
        a = int(rng.integers(len(data)))
        b = min(len(data), a + int(rng.integers(1, 500)))
        data[a:b] = [b"", bytes(data[a:b]) * 3, rng.bytes(b - a)][rng.integers(3)]
    else:  # tags missing or contradictory
        ds = pydicom.dcmread(plain)
        for tag in rng.choice(list(VALUES), rng.integers(1, 4), replace=False):
            if rng.random() < 0.3:
                ds.pop(tag, None)
            else:
                value = VALUES[tag][rng.integers(len(VALUES[tag]))]
                try:
                    setattr(ds, tag, value)
                except (ValueError, TypeError, OverflowError):
                    ds.pop(tag, None)
        try:
            ds.save_as(path, enforce_file_format=True)
            return
        except Exception:  # pydicom will not write it: as good as missing
            data = b""
    path.write_bytes(bytes(data))


@pytest.mark.filterwarnings("ignore")
def test_no_mutant_crashes_hangs_or_gets_through_as_nonsense(originals, tmp_path):
    data, plain = originals
    rng = np.random.default_rng(int(os.environ.get("LPDIRS_FUZZ_SEED", "0")))
    path = tmp_path / "mutant"
    outcomes, slowest = {}, 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for case in range(CASES):
        mutate(rng, data, plain, path)
        began = time.monotonic()
        try:
            hu = read_hu(read_header(path))
            assert hu.ndim == 2 and hu.dtype == np.float32 and np.isfinite(hu).all(), case
            assert -1024 <= hu.min() and 32 <= min(hu.shape) and max(hu.shape) <= 4096, case
            outcome = "read"
        except Unusable as reason:
            outcome = str(reason)
        assert outcome == "read" or outcome in REASONS, case
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 10, "a file took too long"
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < 500_000, "kB: a file filled the memory"
    assert len(outcomes) > 5 and outcomes["read"] < CASES, outcomes
    print(CASES, "mutants:", outcomes, f"slowest {slowest:.2f} s")


@pytest.mark.filterwarnings("ignore")
def test_a_folder_of_mutants_is_built_and_accounted_for(originals, tmp_path):
    data, plain = originals
    rng = np.random.default_rng(1)
    source = tmp_path / "source"
    for i in range(40):
        folder = source.joinpath(*["nested"] * (i % 3 + 1), str(i % 4))
        folder.mkdir(parents=True, exist_ok=True)
        mutate(rng, data, plain, folder / f"{i}.dcm")
    write(source / "good.dcm", chest(0.5), 0)
    (source / "loop").symlink_to(source, target_is_directory=True)
    (source / "dangling").symlink_to(source / "nowhere")
    described = build_dataset(source, tmp_path / "data", DataSettings(size=32))
    lines = (tmp_path / "data" / "rejected.csv").read_text().splitlines()[1:]
    files, others = list_files(source)
    assert described["slices"] >= 1 and described["slices"] + len(lines) == len(files) + len(others)
    assert sum(map(len, arrange(read_headers(find_files(source))[0])[0].values())) >= described["slices"]


def plant(hu: np.ndarray, who: int) -> np.ndarray:
    """A slice that says in its corner, in air, whose it is and of which stack."""
    hu = hu.copy()
    hu[:6, :6] = -990 + 15 * who
    return hu


def folder_of(rng: np.random.Generator, source) -> dict[int, int]:
    """One to three people, each with one to three stacks in one to three series, whose headers agree or contradict each other.

    Returns whose each stack is; where nothing but the position tells people apart, all are one.
    """
    persons, named = {}, False
    constant = [tag for tag in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID") if rng.random() < 0.3]
    blank = [tag for tag in ("PatientID", "PatientName", "SeriesInstanceUID", "InstanceNumber") if rng.random() < 0.15]
    same_folder, same_series, who = rng.random() < 0.5, rng.random() < 0.5, 0
    for person in range(rng.integers(1, 4)):
        gap, top = rng.choice([2.5, 5.0]), 100 + rng.choice([0, 0, 0.4, 30]) * person
        for stack in range(rng.integers(1, 4)):
            told = [{"ConvolutionKernel": f"B{stack}"}, {"AcquisitionNumber": stack}, {"TemporalPositionIdentifier": stack}, {}]
            marks = told[rng.integers(4)]
            n, first = int(rng.integers(5, 12)), int(rng.choice([0, 0, 20 * stack]))
            for i in range(n):
                names = {
                    "PatientID": f"P{person}",
                    "PatientName": f"N^{person}",
                    "StudyInstanceUID": f"1.{person + 1}",
                    "SeriesInstanceUID": f"1.{person + 1}.{1 if same_series else stack + 1}",
                    "InstanceNumber": first + i + 1,
                }
                names |= {tag: "1.9" for tag in constant} | {tag: "" if tag != "InstanceNumber" else None for tag in blank}
                if constant and rng.random() < 0.5:
                    names["PatientName"] = ""
                where = source if same_folder else source / f"{person}-{stack}"
                named |= bool(names["PatientName"])
                hu = plant(chest((i - 1) / (n - 2), noise=who), who)
                write(where / f"{rng.integers(10**12):012d}", hu, top - gap * i, i + 1, **names | marks)
            persons[who] = person
            who += 1
    alike = {"PatientID", "StudyInstanceUID", "SeriesInstanceUID"} <= {*constant, *blank} and not named and same_folder
    return dict.fromkeys(persons, 0) if alike else persons


@pytest.mark.filterwarnings("ignore")
def test_folders_that_contradict_themselves_mix_nobody_and_lose_nothing(tmp_path, monkeypatch):
    """Also after files were damaged, cut and taken away between two builds."""
    kept = refused = 0
    for case in range(max(10, CASES // 20)):
        rng = np.random.default_rng([case, int(os.environ.get("LPDIRS_FUZZ_SEED", "0"))])
        source, out = tmp_path / f"{case}" / "in", tmp_path / f"{case}" / "out"
        persons = folder_of(rng, source)
        for again in range(2):
            files = find_files(source)
            if again:
                for path in rng.choice(np.array(files, object), len(files) // 4, replace=False):
                    damaged = [None, path.read_bytes()[: rng.integers(2000)], rng.bytes(3000)][rng.integers(3)]
                    path.unlink() if damaged is None else path.write_bytes(damaged)
                files = find_files(source)
            try:
                data = build_dataset(source, out, DataSettings(size=64))
            except UserError as error:
                assert "\n" not in str(error), case
                refused += 1
                continue
            slices, listed = open_dataset(out), pd.read_csv(out / "rejected.csv")
            assert len(slices) + len(listed) == len(files) and data["slices"] == len(slices), case
            for _, part in slices.table.groupby("series"):
                hu = slices.hu[part["row"]]
                owners = list(np.round((hu[:, 1, 1] + 990) / 15).astype(int))
                assert len({persons[owner] for owner in owners}) == 1, (case, again, owners, "several people in one series")
                blocks = [a for a, b in zip(owners, [None, *owners], strict=False) if a != b]
                assert len(blocks) == len(set(blocks)), (case, again, owners, "stacks in turn in one series")
                assert (np.diff(part["z_mm"]) < 0).all() and part["patient"].nunique() == 1, case
            assert (slices.table.groupby("patient")["split"].nunique() == 1).all()
            kept += 1
        shutil.rmtree(tmp_path / f"{case}")
    assert kept > refused
    print(case + 1, "folders:", kept, "builds and", refused, "refusals")
