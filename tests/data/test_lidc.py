"""LIDC-IDRI's manifest, and fetching against a real S3 server on loopback."""

import os
import signal
import socket
import subprocess
import sys
import time

import pandas as pd
import pytest

from lpdirs.base.errors import UserError
from lpdirs.data.lidc import Incomplete, arrived, choose, fetch, folder_of, read_manifest
from lpdirs.data.store import SPLITS, split_of
from lpdirs.runs.cli import main
from tests.conftest import ROOT


def test_the_collection_adds_up():
    manifest = read_manifest()
    assert len(manifest) == manifest["series"].nunique() == 1018
    assert manifest["patient"].nunique() == 1010
    assert manifest["slices"].sum() == 243_958
    assert round(manifest["bytes"].sum() / 1e9, 1) == 128.4
    assert set(manifest["licence"]) == {"CC BY 3.0"}
    assert manifest["key"].str.fullmatch(r"idc-open-data/[0-9a-f-]{36}/").all() and manifest["key"].is_unique


def test_patients_stay_in_one_split_for_good():
    manifest = read_manifest()
    per_patient = manifest.groupby("patient")["split"]
    assert (per_patient.nunique() == 1).all()
    assert (manifest.groupby("patient").size() == 2).sum() == 8
    assert manifest["split"].tolist() == [split_of(patient) for patient in manifest["patient"]]
    shares = per_patient.first().value_counts(normalize=True)
    assert all(abs(shares[name] - share) < 0.02 for name, share in SPLITS.items())


def test_series_are_chosen_by_patient_or_by_file(tmp_path):
    manifest = read_manifest()
    assert choose(manifest, patients=3)["patient"].nunique() == 3
    (tmp_path / "series.txt").write_text("\n".join(manifest["series"][5:7]) + "\n\n")
    assert choose(manifest, series_file=tmp_path / "series.txt")["series"].tolist() == manifest["series"][5:7].tolist()
    (tmp_path / "wrong.txt").write_text("1.2.3\n")
    for words, message in (
        ({"series_file": tmp_path / "wrong.txt"}, "wrong.txt names 1 series that are not in LIDC-IDRI, such as 1.2.3"),
        ({"series_file": tmp_path / "none.txt"}, "none.txt is not a file"),
        ({"patients": 0}, "at least 1"),
        ({}, "either --patients N or --series-file"),
    ):
        with pytest.raises(UserError, match=message):
            choose(manifest, **words)


FILE = os.urandom(40_000)


@pytest.fixture(scope="module")
def server():
    """moto's S3 server in a process of its own, on a free port of loopback."""
    pytest.importorskip("moto")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(120)


@pytest.fixture
def bucket(server):
    import boto3

    return boto3.client("s3", endpoint_url=server, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")


@pytest.fixture
def series(bucket, request, monkeypatch):
    """Three small series in a bucket of their own, and the rows that a manifest would have for them."""
    name = f"open-{abs(hash(request.node.name)) % 10**8}"
    monkeypatch.setattr("lpdirs.data.lidc.KEY", rf"{name}/series-\d/")
    bucket.create_bucket(Bucket=name)
    rows = []
    for i, n in enumerate((3, 5, 60)):
        for j in range(n):
            bucket.put_object(Bucket=name, Key=f"series-{i}/{j}.dcm", Body=FILE, ACL="public-read")
        rows.append({"patient": f"P{i}", "series": f"1.2.{i}", "slices": n, "bytes": n * len(FILE), "key": f"{name}/series-{i}/"})
    return pd.DataFrame(rows)


def test_a_full_fetch_brings_every_file(server, series, tmp_path):
    seen = []
    here = fetch(series, tmp_path, server, lambda done, total: seen.append((done, total)), every=0.05)
    assert here["files_here"].tolist() == [3, 5, 60]
    assert all(p.read_bytes() == FILE for p in tmp_path.rglob("*.dcm"))
    total = int(series["bytes"].sum())
    assert seen[-1] == (total, total) and all(a[0] <= b[0] for a, b in zip(seen, seen[1:], strict=False))


def test_what_is_there_is_not_fetched_again(server, series, tmp_path):
    fetch(series, tmp_path, server)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.dcm")}
    fetch(series, tmp_path, server)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.dcm")}


SCRIPT = """
import sys, pathlib, pandas
import lpdirs.data.lidc
from lpdirs.data.lidc import fetch
lpdirs.data.lidc.KEY = ".*"  # of the bucket that the test made
fetch(pandas.read_csv(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3])
"""


def test_killed_in_the_middle_it_goes_on(server, series, tmp_path):
    series.to_csv(tmp_path / "rows.csv", index=False)
    to = tmp_path / "to"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, tmp_path / "rows.csv", to, server], start_new_session=True)
    try:
        for _ in range(600):
            if 5 < len(list(to.rglob("*.dcm"))):
                break
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(120)
    half = arrived(series, to)
    assert 0 < half["bytes_here"].sum()
    cut = next(to.rglob("*.dcm"))
    cut.write_bytes(cut.read_bytes()[:1000])  # as a file that was being written when the power went
    assert fetch(series, to, server)["bytes_here"].tolist() == series["bytes"].tolist()


def test_a_missing_and_a_truncated_object_are_named(server, bucket, series, tmp_path):
    name = series["key"][0].split("/")[0]
    bucket.delete_object(Bucket=name, Key="series-0/1.dcm")
    bucket.put_object(Bucket=name, Key="series-1/2.dcm", Body=FILE[:100], ACL="public-read")
    with pytest.raises(Incomplete, match="2 of 3 series are incomplete.*P0 series 1.2.0: 2 of 3 files.*P1 series 1.2.1: 5 of 5 files"):
        fetch(series, tmp_path, server)
    assert arrived(series, tmp_path)["files_here"].tolist() == [2, 5, 60], "what could be fetched is there"


def test_a_server_that_is_not_there_is_named(series, tmp_path):
    with pytest.raises(Incomplete, match="3 of 3 series are incomplete.*s5cmd said"):
        fetch(series, tmp_path, "http://127.0.0.1:9", retries=0)


def test_a_disk_that_is_too_small_is_said_before_anything_is_fetched(series, tmp_path):
    with pytest.raises(UserError, match="GB free, but 1000000.0 GB are missing.*fetch fewer patients"):
        fetch(series.assign(bytes=10**15 // 3 + 1), tmp_path)
    assert not list(tmp_path.rglob("*.dcm"))


def test_the_command_line_says_what_is_wrong(tmp_path, capsys):
    assert main(["fetch", "lidc", "--to", str(tmp_path)]) == 1
    assert "either --patients N or --series-file" in capsys.readouterr().err


def test_the_command_line_fetches(server, bucket, tmp_path, capsys, monkeypatch):
    """The real manifest's first patient, from a mirror that holds what the manifest says, with smaller files."""
    row = read_manifest().iloc[0]
    name, key = row["key"].split("/", 1)
    bucket.create_bucket(Bucket=name)
    bucket.put_object(Bucket=name, Key=f"{key}0.dcm", Body=FILE, ACL="public-read")
    words = ["fetch", "lidc", "--patients", "1", "--to", str(tmp_path), "--endpoint-url", server]
    assert main(words) == 1
    assert f"{row['patient']} series {row['series']}: 1 of {row['slices']} files" in capsys.readouterr().err
    assert (folder_of(row, tmp_path) / "0.dcm").read_bytes() == FILE
    assert ROOT.exists()


@pytest.mark.parametrize(
    "change", [{"patient": "../../etc"}, {"series": "a/b"}, {"key": "another-bucket/x/"}, {"key": "idc-open-data/../x/"}, {"patient": ".."}]
)
def test_a_manifest_s_row_leads_nowhere_else(change, tmp_path):
    rows = read_manifest().head(1).assign(**change)
    with pytest.raises(UserError, match="is not one of LIDC-IDRI's"):
        fetch(rows, tmp_path / "to")
    assert not (tmp_path / "to").exists()
