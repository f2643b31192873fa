"""Builds that are spread over processes, killed, repeated and extended: the same data set comes out."""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pydicom
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from lpdirs.base.compute import cluster, each
from lpdirs.base.errors import UserError
from lpdirs.data.build import STAMP, build_dataset
from lpdirs.data.dicom import Header
from lpdirs.data.private import pseudonym
from lpdirs.data.series import LUNG_SHOWS, DataSettings, cut_lungs, resample, z_fractions
from lpdirs.data.stacks import arrange
from lpdirs.data.store import open_dataset, split_of
from tests.conftest import COHORT, ROOT, SETTINGS
from tests.data.test_build import as_if_real

FILES = ("slices.npy", "slices.csv", "rejected.csv", "dataset.json")


def contents(folder):
    assert {p.name for p in folder.iterdir()} - {".lock"} == {*FILES, STAMP}, "nothing else is left behind"
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.mark.filterwarnings("ignore")  # of Dask's own
def test_two_dask_workers_and_a_running_cluster_give_the_same_bytes(dicom_folder, dataset, tmp_path):
    build_dataset(dicom_folder, tmp_path / "two", SETTINGS, workers=2)
    assert contents(tmp_path / "two") == contents(dataset)
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, scheduler_kwargs={"dashboard": False}) as running:
        build_dataset(dicom_folder, tmp_path / "running", SETTINGS, scheduler=running.scheduler_address)
    assert contents(tmp_path / "running") == contents(dataset)


def test_an_address_where_nobody_answers_says_so(monkeypatch):
    import distributed

    def refuse(*_, **__):
        raise OSError("Timed out")

    monkeypatch.setattr(distributed, "Client", refuse)
    with pytest.raises(UserError, match="no Dask scheduler answers at tcp://nowhere:1"), cluster(1, "tcp://nowhere:1"):
        pass


def test_without_a_cluster_the_work_is_done_here():
    with cluster(1) as client:
        assert client is None and list(each(client, pow, [(2, 3), (3, 2)])) == [8, 9]


BUILD = """
import sys, time
from pathlib import Path
import lpdirs.data.series as series, lpdirs.data.build as build
from tests.conftest import SETTINGS
whole = series.write_part
def slow(*words):
    time.sleep(0.05)
    return whole(*words)
build.write_part = slow
build.build_dataset(Path(sys.argv[1]), Path(sys.argv[2]), SETTINGS)
"""


def test_a_build_that_was_killed_goes_on_and_ends_the_same(dicom_folder, dataset, tmp_path):
    folder, parts = tmp_path / "data", tmp_path / "data" / "parts"
    for wanted in (3, 9):  # killed twice, with so many series done
        process = subprocess.Popen([sys.executable, "-c", BUILD, str(dicom_folder), str(folder)], cwd=ROOT)
        until = time.monotonic() + 60
        while len(list(parts.glob("*.json"))) < wanted and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(120)
        done = {p.name: p.stat().st_mtime_ns for p in parts.glob("*.json")}
        assert wanted <= len(done) < COHORT.patients and not (folder / "dataset.json").exists()
    reported = []
    build_dataset(dicom_folder, folder, SETTINGS, lambda done, total: reported.append(done))
    assert reported[0] > 9 * COHORT.slices, "what was done is not done again"
    assert contents(folder) == contents(dataset)


def test_a_patient_who_is_added_adds_only_their_slices(dicom_folder, tmp_path):
    source, folder = tmp_path / "source", tmp_path / "data"
    for key in ("P0001", "P0004", "P0009"):
        shutil.copytree(dicom_folder / key, source / key)
    before = build_dataset(source, folder, SETTINGS)
    old = open_dataset(folder)
    old_table, old_hu = old.table.drop(columns="row"), np.array(old.hu)
    shutil.copytree(dicom_folder / "P0006", source / "P0006")
    after = build_dataset(source, folder, SETTINGS)
    new = open_dataset(folder)
    stayed = new.table["patient"].isin(old_table["patient"])
    assert after["slices"] == before["slices"] + COHORT.slices and after["patients"] == 4
    assert new.table[stayed].drop(columns="row").reset_index(drop=True).equals(old_table)
    assert np.array_equal(new.hu[new.table["row"][stayed]], old_hu)
    shutil.rmtree(source)
    assert build_dataset(source, folder, SETTINGS) == after, "a data set outlives the files that it was made of"


def test_input_may_lie_in_the_output_s_folder_and_the_other_way_round(dicom_folder, tmp_path):
    shutil.copytree(dicom_folder / "P0001", tmp_path / "data" / "dicom")
    within = build_dataset(tmp_path / "data" / "dicom", tmp_path / "data", SETTINGS)
    shutil.copytree(dicom_folder / "P0001", tmp_path / "source")
    for _ in range(2):
        around = build_dataset(tmp_path / "source", tmp_path / "source" / "out", SETTINGS)
        assert around["slices"] == within["slices"] == COHORT.slices and not around["rejected"]


def test_another_salt_gives_other_pseudonyms_and_is_not_written_down(dicom_folder, tmp_path, monkeypatch):
    source = tmp_path / "clinic"
    shutil.copytree(dicom_folder / "P0001", source)
    as_if_real(source)
    keys = []
    for salt in ("one secret" * 4, "another secret" * 4):
        folder, private = tmp_path / salt, tmp_path / f"private {salt}"
        private.mkdir()
        (private / "salt").write_text(salt)
        monkeypatch.setenv("LPDIRS_PRIVATE", str(private))
        build_dataset(source, folder, SETTINGS)
        keys.append(set(open_dataset(folder).table["patient"]))
        assert all(salt.encode() not in content for content in contents(folder).values())
    assert keys[0].isdisjoint(keys[1])


def test_a_fixed_field_of_view_has_the_same_scale_for_every_patient(dicom_folder, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(dicom_folder / "P0001", source / "a")
    shutil.copytree(dicom_folder / "P0002", source / "b")
    for path in (source / "b").iterdir():  # a scanner with larger pixels
        ds = pydicom.dcmread(path)
        ds.PixelSpacing = [float(mm) * 1.25 for mm in ds.PixelSpacing]
        ds.save_as(path)
    whole, fixed = DataSettings(size=32, min_lung=0.0), DataSettings(size=32, min_lung=0.0, fov_mm=384.0)
    build_dataset(source, tmp_path / "whole", whole)
    build_dataset(source, tmp_path / "fixed", fixed)
    assert open_dataset(tmp_path / "whole").table["pixel_mm"].nunique() == 2
    assert np.allclose(open_dataset(tmp_path / "fixed").table["pixel_mm"], 384 / 32, rtol=0.01)


@limits(deadline=None, max_examples=60)
@given(st.integers(32, 160), st.integers(32, 160), st.floats(0.5, 1.5), st.sampled_from([16, 32, 64]), st.floats(60, 400) | st.none())
def test_resampling_keeps_a_disc_where_it_is_and_as_large_as_it_is(rows, columns, mm, size, fov):
    """Whatever the frame and the field: a disc of 20 mm in the frame's centre has its area and its place in mm."""
    y, x = (np.arange(n) + 0.5 - n / 2 for n in (rows, columns))
    hu = np.where(np.hypot(y[:, None], x) * mm < 12, 0, -1000).astype(np.float32)
    small, pixel = resample(hu, (mm, mm), size, fov)
    assert small.shape == (size, size) and small.min() >= -1000 and small.max() <= 0
    weight = small.astype(float) + 1000
    area = weight.sum() / 1000 * pixel**2
    assert area == pytest.approx((hu == 0).sum() * mm**2, rel=0.12)
    centre = (weight.sum(0) * (np.arange(size) + 0.5 - size / 2)).sum() / weight.sum() * pixel
    assert abs(centre) < 0.75 * mm + 0.05 * pixel


def header(series: str, z: float, number: int) -> Header:
    place, shape = dict(orientation=(1, 0, 0, 0, 1, 0), position=(0, 0, z), spacing=(1, 1)), (64, 64)
    names = dict(path=Path(f"{series}/{number:03d}"), patient="p", study=series, series=series, instance=f"{series}.{number}")
    return Header(**names, **place, number=number, slope=1, intercept=0, padding=None, shape=shape)


@given(st.permutations([(s, z) for s in ("1.1", "1.2") for z in (0.0, 1.5, 3.0, 3.0, 7.0)]))
def test_the_order_of_files_does_not_matter(order):
    headers = [header(s, z, int(z * 10)) for s, z in order]
    series, rejected, *_ = arrange(headers)
    assert {group.split("\0")[-1]: [h.z_mm for h in members] for group, members in series.items()} == {
        u: [7.0, 3.0, 1.5, 0.0] for u in ("1.1", "1.2")
    }
    assert [why for _, why in rejected] == ["repeated position"] * 2


@given(st.lists(st.floats(0, 0.6), min_size=5, max_size=60), st.floats(0.5, 5), st.floats(-500, 500))
def test_z_fractions_fall_with_z_and_do_not_depend_on_the_origin(lung, step, origin):
    z = origin - step * np.arange(len(lung))
    fractions = z_fractions(z, np.array(lung))
    if np.isfinite(fractions).all():
        assert (np.diff(fractions) > 0).all() and np.allclose(fractions, z_fractions(z + 100, np.array(lung)))
        assert 0 <= fractions[np.array(lung) > LUNG_SHOWS].min() < 1e-9 and fractions[np.array(lung) > LUNG_SHOWS].max() == pytest.approx(1)
    else:
        assert (np.array(lung) > LUNG_SHOWS).sum() < 5 or cut_lungs(z, np.array(lung))


@given(st.text(max_size=40), st.binary(max_size=64))
def test_pseudonyms_are_steady_and_say_nothing(identifier, salt):
    key = pseudonym(identifier, salt, "patient-")
    assert key == pseudonym(identifier, salt, "patient-") and len(key) == 18
    assert split_of(key) in ("train", "validation", "test")


def test_nothing_of_a_local_cluster_listens_to_other_machines_or_other_accounts():
    """Whoever reaches a Dask port runs code as the user: they listen on loopback, and to holders of the cluster's certificate."""
    with cluster(2) as client:
        assert client.submit(pow, 2, 3).result() == 8
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        listening = [c.laddr for p in processes for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        stranger = ssl.create_default_context()
        stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
        for address in listening:
            with socket.create_connection(address, timeout=10) as plain, pytest.raises((ssl.SSLError, ConnectionError)):
                with stranger.wrap_socket(plain) as secure:
                    assert secure.recv(1) == b"", "a stranger is told nothing"
                    raise ConnectionError
    assert len(listening) >= 3 and {address.ip for address in listening} == {"127.0.0.1"}
