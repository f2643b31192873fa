"""What an attacker of the reader found: stacks and people that alternate, values that padding hides, files that end or fill a process."""

import os
import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from lpdirs.base.errors import UserError
from lpdirs.data.build import build_dataset
from lpdirs.data.dicom import read_header
from lpdirs.data.folder import Unusable
from lpdirs.data.pixels import read_hu
from lpdirs.data.series import DataSettings
from lpdirs.data.store import open_dataset
from lpdirs.phantom.cohort import Cohort, write_cohort
from tests.data.files import SIZE, chest, series, write
from tests.data.test_odd_files import S64, build

RING = np.hypot(*(np.mgrid[:SIZE, :SIZE] - SIZE / 2 + 0.5)) > SIZE / 2


def offset(folder, a, b, n=12, gap=5.0):
    """Two stacks of one series at each other's positions' middle; the second is 60 HU brighter."""
    for i in range(n):
        for k, tags in enumerate((a, b)):
            write(folder / f"{k}-{i:02d}", chest((i - 2) / (n - 5)) + 60 * k, 100 - gap * (i + k / 2), n * k + i + 1, **tags)


def brightness(slices):
    return [round(float(np.median(hu[hu > -50]))) for hu in slices.hu]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}),
        ({"SliceThickness": 1}, {"SliceThickness": 5}),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}, {"ImageType": ["DERIVED", "SECONDARY", "MIP"]}),
        ({"KVP": 80}, {"KVP": 140}),
        ({"PixelSpacing": [3, 3]}, {"PixelSpacing": [2, 2]}),
        ({}, {"ImageOrientationPatient": [-1, 0, 0, 0, -1, 0]}),
        ({}, {"ImageOrientationPatient": [1, 0, 0, 0, 0.9659, -0.2588]}),
        ({"FrameOfReferenceUID": "1.1"}, {"FrameOfReferenceUID": "1.2"}),
        ({"StudyDate": "20200101"}, {"StudyDate": "20210101"}),
    ],
)
def test_stacks_that_alternate_along_z_are_not_one(tmp_path, a, b):
    offset(tmp_path / "in", a, b)
    data, slices = build(tmp_path)
    assert data["slices"] == 12 and np.ptp(brightness(slices)) < 20


def test_two_people_in_two_folders_with_one_name_are_not_one(tmp_path):
    blank = dict(PatientID="A", PatientName="", StudyInstanceUID="9.9", SeriesInstanceUID="9.9.9", InstanceNumber=None)
    series(tmp_path / "in" / "one", **blank)
    series(tmp_path / "in" / "two", shift=30, top=102.5, noise=1, **blank)
    data, slices = build(tmp_path)
    centres = [np.average(np.arange(64), weights=(hu > -300).sum(0)) for hu in slices.hu]
    assert data["slices"] == 12 and np.ptp(centres) < 1


def test_a_constant_instance_uid_mixes_nobody(tmp_path, rng):
    for i in range(12):
        for k in range(2):
            name = f"{rng.random():.9f}"
            write(tmp_path / "in" / name, chest((i - 2) / 7) + 60 * k, 100 - 5.0 * i, 12 * k + i + 1, SOPInstanceUID="1.2.3")
    data, slices = build(tmp_path)
    assert data["slices"] == 12 and np.ptp(brightness(slices)) < 20


def test_a_stack_ends_where_z_turns_back(tmp_path):
    """Two phases, numbered on and on, of which the second begins 20 mm higher; and a bolus that is tracked before the scan."""
    for i in range(12):
        for k in range(2):
            write(tmp_path / "in" / f"{k}{i:02d}", chest((i - 2) / 7) + 60 * k, 100 + 20 * k - 5.0 * i, 12 * k + i + 1)
    _, slices = build(tmp_path)
    assert np.ptp(brightness(slices)) < 20 and len(slices) == 12
    for i in range(10):
        write(tmp_path / "bolus" / f"a{i:02d}", chest(0.5, noise=i) + 60, 70.0, i + 1)
    for i in range(12):
        write(tmp_path / "bolus" / f"b{i:02d}", chest((i - 2) / 7), 100 - 5.0 * i, 11 + i)
    build_dataset(tmp_path / "bolus", tmp_path / "bolus out", S64)
    slices = open_dataset(tmp_path / "bolus out")
    assert len(slices) == 12 and np.ptp(brightness(slices)) < 20


def test_kernels_of_two_stretches_are_two_series(tmp_path):
    for i in range(12):
        kernel = "soft" if i < 6 else "sharp"
        write(tmp_path / "in" / f"{i}", chest((i - 2) / 7), 100 - 5.0 * i, i + 1, ConvolutionKernel=kernel)
    data, slices = build(tmp_path)
    assert data["slices"] == 12 and data["series"] == 2 and data["patients"] == 1
    assert slices.table.groupby("series").size().tolist() == [6, 6]


@pytest.mark.parametrize("blocks", [2, 3, 6])
def test_a_scan_in_blocks_that_count_anew_is_one_series(tmp_path, blocks):
    n = 12 // blocks
    for i in range(12):
        folder = tmp_path / "in" / f"S{i // n}"
        write(folder / f"{i}", chest((i - 2) / 7), 100 - 5.0 * i, i % n + 1, AcquisitionNumber=i // n + 1)
    data, _ = build(tmp_path)
    assert data["slices"] == 12 and data["series"] == 1


@pytest.mark.parametrize("name", ["Doe^Jane^M", "DOE^JANE"])
def test_a_name_that_goes_on_is_the_same_person(tmp_path, name):
    for i in range(12):
        write(tmp_path / "in" / f"{i}", chest((i - 2) / 7), 100 - 5.0 * i, i + 1, PatientName="Doe^Jane" if i % 2 else name)
    assert build(tmp_path)[0]["slices"] == 12


# values that padding hides


def test_padding_is_not_the_air_that_a_slice_needs(tmp_path):
    hu = chest(0.5)
    cases = {
        "padded, intercept lost": dict(raw=np.where(RING, -2000, hu + 1024), RescaleIntercept=0),
        "tagged, intercept lost": dict(raw=np.where(RING, 0, hu + 1024), RescaleIntercept=0, PixelPaddingValue=0),
        "twelve bits, wrong sign": dict(raw=np.where(RING, 63536, hu.astype(int) & 0xFFF), RescaleIntercept=0),
        "intercept twice": dict(raw=np.where(hu > 0, hu + 900, hu), RescaleIntercept=-1024),
    }
    for i, (name, tags) in enumerate(cases.items()):
        write(tmp_path / "in" / name, hu, 5.0 * i, SeriesInstanceUID=f"1.2.{i + 1}", **tags)
    write(tmp_path / "in" / "good", hu, 0, StudyInstanceUID="1.3", SeriesInstanceUID="1.3.1")
    data, _ = build(tmp_path)
    assert data["rejected"] == {"implausible HU": len(cases)} and data["slices"] == 1


@pytest.mark.parametrize(
    ("ring", "tags"),
    [
        (3000 + np.arange(SIZE) % 100, {"PixelPaddingValue": 3000, "PixelPaddingRangeLimit": 3100}),
        (4095, {}),
        (1024, {}),
    ],
)
def test_a_ring_of_padding_is_air_also_where_nothing_says_so(tmp_path, ring, tags):
    hu = chest(0.5)
    write(tmp_path / "in" / "a", hu, 0, raw=np.where(RING, ring, hu + 1024), **tags)
    _, slices = build(tmp_path, DataSettings(size=128))
    assert (slices.hu[0][RING] == -1000).all() and np.abs(slices.hu[0][~RING] - hu[~RING]).max() <= 1


# files that end, fill or stop a process


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_damaged_codestreams_end_no_build(tmp_path, rng, syntax):
    pytest.importorskip("jpeg_ls" if syntax == JPEGLSLossless else "openjpeg")
    series(tmp_path / "in" / "good", n=6)
    path = write(tmp_path / "packed", chest(0.5), 0, StudyInstanceUID="1.7", SeriesInstanceUID="1.7.1")
    ds = pydicom.dcmread(path)
    ds.compress(syntax)
    ds.save_as(path, enforce_file_format=True)
    content = path.read_bytes()
    start = content.index(b"\xe0\x7f\x10\x00")
    for i in range(40):
        damaged = bytearray(content)
        for place in [start + 74] if i == 0 else rng.integers(start, len(content), rng.integers(1, 30)):
            damaged[place] = 255 if i == 0 else rng.integers(256)
        (tmp_path / "in" / f"{i}.dcm").write_bytes(bytes(damaged))
    data, _ = build(tmp_path)
    assert data["slices"] >= 6


def test_jpeg_lossless_is_decoded_beside(tmp_path):
    """Files that come with pydicom: JPEG lossless as it is stored, JPEG-LS as its uncompressed twin."""
    from lpdirs.data.decoder import decode

    plain, packed = (get_testdata_file(name, download=False) for name in ("MR_small.dcm", "MR_small_jpeg_ls_lossless.dcm"))
    assert np.array_equal(decode(Path(packed)), pydicom.dcmread(plain).pixel_array)
    lossless = Path(get_testdata_file("SC_rgb_jpeg_gdcm.dcm", download=False))
    assert decode(lossless).shape == pydicom.dcmread(lossless).pixel_array.shape


def test_a_decoder_that_does_not_end_is_ended(tmp_path, monkeypatch):
    from lpdirs.data import decoder

    os.mkfifo(tmp_path / "endless")  # opening it waits for ever, as decoders of damaged files do
    monkeypatch.setattr(decoder, "LONGEST", 0.5)
    with pytest.raises(Unusable, match="decoding hangs"):
        decoder.decode(tmp_path / "endless")
    monkeypatch.undo()
    assert decoder.decode(Path(get_testdata_file("MR_small_jp2klossless.dcm", download=False))).shape == (64, 64)


def test_frames_and_fields_that_would_fill_the_memory(tmp_path):
    thin = np.tile(chest(0.5)[:, 48:80], (4096 // SIZE, 1))
    write(tmp_path / "in" / "thin", thin, 0, PixelSpacing=[10, 0.051])
    write(tmp_path / "in" / "fine", chest(0.5), 0, PixelSpacing=[0.06, 0.06])
    data, _ = build(tmp_path, DataSettings(size=64, fov_mm=2000))
    assert data["rejected"] == {"no geometry": 1} and data["slices"] == 1


@pytest.mark.parametrize("how", ["no preamble", "a length that lies", "a long header"])
def test_deflate_bombs_are_refused_whatever_their_header_says(tmp_path, how):
    import zlib

    path = write(tmp_path / "in" / "bomb", chest(0.5), 0)
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    if how == "a long header":
        ds.file_meta.PrivateInformationCreatorUID, ds.file_meta.PrivateInformation = "1.2", bytes(2000)
    ds.save_as(path, enforce_file_format=True)
    data = path.read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = zlib.decompress(data[start:], -zlib.MAX_WBITS)
    bomb = data[:start] + packer.compress(body) + b"".join(packer.compress(bytes(2**24)) for _ in range(20)) + packer.flush()
    if how == "no preamble":
        bomb = bomb[132:]
    if how == "a length that lies":
        bomb = bomb[:140] + (10).to_bytes(4, "little") + bomb[144:]
    path.write_bytes(bomb)
    write(tmp_path / "in" / "good", chest(0.5), 0)
    data, _ = build(tmp_path)
    assert data["slices"] == 1 and sum(data["rejected"].values()) == 1


def test_zeros_are_not_parsed_for_hours(tmp_path):
    good = write(tmp_path / "in" / "good", chest(0.5), 0)
    (tmp_path / "in" / "copy that failed.img").write_bytes(bytes(30_000_000))
    content = good.read_bytes()
    (tmp_path / "in" / "more").write_bytes(content + bytes(30_000_000))
    with open(tmp_path / "in" / "sparse", "wb") as file:
        file.write(content[:400])
        file.truncate(10**10)
    began = time.monotonic()
    data, _ = build(tmp_path)
    assert data["slices"] == 1 and time.monotonic() - began < 20


# names, and the surroundings


@pytest.mark.parametrize("beside", ["nothing", "synthetic", "public"])
def test_a_private_file_is_listed_under_a_pseudonym_whatever_lies_beside_it(tmp_path, beside):
    source = tmp_path / "in"
    write(source / "DOE^Jane" / "MRN777.dcm", chest(0.5), 0, Modality="MR", PatientID="DOE")
    (source / "DOE^Jane report.txt").write_text("x")
    if beside == "synthetic":
        write_cohort(Cohort("c", 2, 6, 64), source)
    elif beside == "public":
        series(source / "LIDC", PatientID="LIDC-IDRI-0001")
    try:
        build_dataset(source, tmp_path / "out", S64)
    except UserError as error:
        assert beside == "nothing" and "DOE" not in str(error)
    listed = pd.read_csv(tmp_path / "out" / "rejected.csv")
    assert len(listed) >= 2 and not listed["file"].str.contains("DOE|MRN").any()
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert b"DOE" not in written


def test_a_data_folder_inside_the_output_is_not_named(tmp_path):
    series(tmp_path / "out" / "DOE^Jane", PatientID="DOE")
    build_dataset(tmp_path / "out" / "DOE^Jane", tmp_path / "out", S64)
    assert "DOE" not in "".join(path.read_text(errors="replace") for path in (tmp_path / "out").iterdir() if path.is_file())


def test_what_comes_or_goes_between_two_builds_is_listed(tmp_path, monkeypatch):
    series(tmp_path / "in")
    build(tmp_path)
    (tmp_path / "in" / ".x").write_text("x")
    assert build(tmp_path)[0]["rejected"] == {"hidden": 1}
    monkeypatch.chdir(tmp_path)
    from pathlib import Path

    once = build_dataset(Path("in"), Path("in/out"), S64)
    (tmp_path / "link").symlink_to(tmp_path / "in", target_is_directory=True)
    again = build_dataset(tmp_path / "link", tmp_path / "in" / "out", S64)
    assert once == again, "the same folder by another way; its own output is no input"


def test_the_surroundings_are_a_line(tmp_path, monkeypatch):
    series(tmp_path / "in")
    (tmp_path / "file").write_text("x")
    for target in (tmp_path / "file", tmp_path / "in"):
        with pytest.raises(UserError, match="choose another folder|a folder of its own"):
            build_dataset(tmp_path / "in", target, S64)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dataset.json").write_text('{"settings": 3}')
    with pytest.raises(UserError, match="damaged: delete it"):
        build_dataset(tmp_path / "in", tmp_path / "out", S64)
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "salt").write_bytes(b"\xff\xfe" * 40)
    monkeypatch.setenv("LPDIRS_PRIVATE", str(tmp_path / "private"))
    with pytest.raises(UserError, match="cannot be read as text"):
        build_dataset(tmp_path / "in", tmp_path / "other", S64)
    with pytest.raises(UserError, match="a folder of its own"):
        build_dataset(tmp_path / "in", tmp_path / "private", S64)


def test_a_file_that_vanishes_during_the_build_is_no_traceback(tmp_path, monkeypatch):
    from lpdirs.data import build as module

    series(tmp_path / "in")
    listed = module.list_files

    def vanish(source):
        found = listed(source)
        os.unlink(tmp_path / "in" / "003.dcm")
        return found

    monkeypatch.setattr(module, "list_files", vanish)
    assert build(tmp_path)[0]["rejected"] == {"cannot be read": 1}


def test_run_lengths_that_hold_more_than_their_frame_are_not_inflated(tmp_path):
    """Two bytes that say 128: 3 MB would be 192 MB, and 50 MB three times a GB."""
    path = write(tmp_path / "a.dcm", chest(0.5), 0.0)
    ds = pydicom.dcmread(path)
    ds.compress(RLELossless)
    segment = bytes([0x81, 7]) * (3 << 19)
    frame = struct.pack("<16L", 2, 64, 64 + len(segment), *[0] * 13) + segment + bytes([0x81, 0]) * 256
    ds.PixelData = encapsulate([frame])
    ds.save_as(path)
    tracemalloc.start()
    with pytest.raises(Unusable, match="implausible size"):
        read_hu(read_header(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**25


def test_run_lengths_of_a_large_frame_are_read(tmp_path):
    """A frame whose runs are worth counting, since it may hold much: noise of 1,024 pixels a side."""
    hu = np.kron(chest(0.5), np.ones((8, 8), np.float32))
    hu += np.random.default_rng(0).integers(-8, 9, hu.shape).astype(np.float32)
    path = write(tmp_path / "a.dcm", hu, 0.0, PixelSpacing=[0.4, 0.4])
    plain = read_hu(read_header(path))
    ds = pydicom.dcmread(path)
    ds.compress(RLELossless)
    assert len(ds.PixelData) * 64 > 2**26
    ds.save_as(path)
    assert np.array_equal(read_hu(read_header(path)), plain)
