import os

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless, RLELossless

from lpdirs.data.dicom import read_header
from lpdirs.data.folder import REASONS, Unusable, find_files
from lpdirs.data.pixels import read_hu
from lpdirs.data.reading import read_headers
from lpdirs.data.stacks import arrange
from lpdirs.phantom.cohort import Cohort, to_dicom
from lpdirs.phantom.painting import render
from lpdirs.phantom.population import sample_patients

COHORT = Cohort("test", 1, 1)
HU = render(sample_patients(1, 0)[0], 0.5, 64)[0]


def write(path, change=lambda ds: None, hu=HU, number=0, t=0.5):
    ds = to_dicom(hu, "P", t, number, COHORT)
    change(ds)
    ds.save_as(path, enforce_file_format=True)
    return path


def reason(path):
    with pytest.raises(Unusable) as caught:
        read_hu(read_header(path))
    assert str(caught.value) in REASONS
    return str(caught.value)


def test_hu_survive_the_round_trip(tmp_path):
    assert np.abs(read_hu(read_header(write(tmp_path / "a"))) - np.maximum(HU, -1024)).max() <= 0.5


def test_compressed_pixels_read_the_same(tmp_path):
    plain = read_hu(read_header(write(tmp_path / "a")))
    packed = read_hu(read_header(write(tmp_path / "b", lambda ds: ds.compress(RLELossless))))
    assert np.array_equal(plain, packed)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("where", ["upper bits", "beside an overlay", "beside an overlay, JPEG 2000", "beside an overlay, RLE"])
def test_pixels_lie_where_the_file_says(where, signed, tmp_path):
    """Twelve bits of sixteen: in the upper ones, or with the bits of an overlay above them."""
    syntax = {"JPEG 2000": JPEG2000Lossless, "RLE": RLELossless}.get(where.partition(", ")[2])

    def change(ds):
        values = np.clip(np.rint(HU), -1024, 1023).astype(int) + (0 if signed else 1024)
        drawn = (np.arange(HU.size).reshape(HU.shape) % 3 == 0).astype(int) << 13
        bits = values << 4 if where == "upper bits" else values & 0xFFF | drawn
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, 15 if where == "upper bits" else 11, int(signed)
        ds.RescaleSlope, ds.RescaleIntercept = 1, 0 if signed else -1024
        ds.PixelData = (bits & 0xFFFF).astype("<u2").tobytes()
        if where != "upper bits":
            ds.add_new((0x6000, 0x0100), "US", 16)
            ds.add_new((0x6000, 0x0102), "US", 13)
        if syntax:  # what is compressed are all sixteen bits
            ds.BitsStored, ds.HighBit = 16, 15
            ds.compress(syntax)
            ds.BitsStored, ds.HighBit = 12, 11

    assert np.abs(read_hu(read_header(write(tmp_path / "a", change))) - np.clip(HU, -1024, 1023)).max() <= 0.5


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        ([1, 0, 0, 0, 1, 0], HU),
        ([-1, 0, 0, 0, -1, 0], HU[::-1, ::-1]),
        ([0, 1, 0, 1, 0, 0], HU.T),
        ([0, 1, 0, -1, 0, 0], HU.T[::-1]),
        ([-1, 0, 0, 0, 1, 0], HU[:, ::-1]),
        ([0.9903, 0.1392, 0, -0.1392, 0.9903, 0], HU),
    ],
)
def test_slices_are_put_upright(tmp_path, orientation, stored):
    """However the file is turned, the patient's left ends up at the right and the front at the top."""
    path = write(tmp_path / "a", lambda ds: setattr(ds, "ImageOrientationPatient", orientation), hu=np.ascontiguousarray(stored))
    assert np.abs(read_hu(read_header(path)) - np.maximum(HU, -1024)).max() <= 0.5


def test_odd_numbers_are_read(tmp_path):
    def odd(ds):
        ds.RescaleSlope, ds.RescaleIntercept = "001.000000E+00", "-1.024E3"

    assert np.abs(read_hu(read_header(write(tmp_path / "a", odd))) - np.maximum(HU, -1024)).max() <= 0.5


@pytest.mark.parametrize("padding", [63536, 3000])
def test_padding_becomes_air(tmp_path, padding):
    def pad(ds):
        pixels = ds.pixel_array.astype(np.uint16).copy()
        pixels[:8] = padding
        ds.BitsStored, ds.HighBit = 16, 15
        ds.PixelData, ds.PixelPaddingValue = pixels.tobytes(), padding

    hu = read_hu(read_header(write(tmp_path / "a", pad)))
    assert (hu[:8] == -1000).all()
    assert np.abs(hu[8:] - HU[8:]).max() <= 0.5


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda ds: setattr(ds, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.1"), "not a CT image"),
        (lambda ds: setattr(ds, "ImageOrientationPatient", [1, 0, 0, 0, 0, -1]), "not axial"),
        (lambda ds: setattr(ds, "ImageOrientationPatient", [0, 1, 0, 0, 0, -1]), "not axial"),
        (lambda ds: setattr(ds, "ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), "no geometry"),
        (lambda ds: delattr(ds, "ImagePositionPatient"), "no geometry"),
        (lambda ds: setattr(ds, "PixelSpacing", [0, 0]), "no geometry"),
        (lambda ds: delattr(ds, "RescaleIntercept"), "no rescale"),
        (lambda ds: setattr(ds, "NumberOfFrames", 3), "several frames"),
        (lambda ds: setattr(ds, "SamplesPerPixel", 3), "colour"),
        (lambda ds: (setattr(ds, "Rows", 60000), setattr(ds, "Columns", 60000)), "implausible size"),
        (lambda ds: delattr(ds, "PixelData"), "damaged pixels"),
        (lambda ds: setattr(ds, "PixelData", ds.PixelData[:1000]), "damaged pixels"),
        (lambda ds: setattr(ds, "PixelData", bytes(len(ds.PixelData))), "implausible HU"),
        (lambda ds: setattr(ds, "RescaleIntercept", 9000), "implausible HU"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, change, expected):
    assert reason(write(tmp_path / "a", change)) == expected


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 200, b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" + os.urandom(300)])
def test_other_files_are_not_dicom(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert reason(tmp_path / "a") == "not DICOM"


def test_a_file_without_preamble_is_read(tmp_path):
    ds = pydicom.dcmread(write(tmp_path / "a"))
    del ds.file_meta
    ds.save_as(tmp_path / "bare", implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert np.abs(read_hu(read_header(tmp_path / "bare")) - np.maximum(HU, -1024)).max() <= 0.5


def test_series_are_ordered_by_position_not_by_name(tmp_path):
    for name, number, t in (("c", 0, 0.1), ("a", 1, 0.5), ("b", 2, 0.3), ("d", 3, 0.3)):
        write(tmp_path / name, number=number, t=t)
    series, rejected, *_ = arrange(read_headers(find_files(tmp_path))[0])
    assert [[h.path.name for h in headers] for headers in series.values()] == [["c", "b", "a"]]
    assert [(path.name, why) for path, why in rejected] == [("d", "repeated position")]


def test_one_series_a_study_where_kernels_repeat(tmp_path):
    """Of two series with the same positions the longer stays; one at other positions, or of another study, stays too."""

    def make(series, ts, study="1.1"):
        for t in ts:
            path = tmp_path / f"{study}-{series}-{t}"
            write(path, lambda ds: (setattr(ds, "SeriesInstanceUID", series), setattr(ds, "StudyInstanceUID", study)), t=t)

    make("1.2.1", (0.1, 0.3, 0.5, 0.7))
    make("1.2.2", (0.1, 0.3, 0.5, 0.7, 0.9))
    make("1.2.3", (0.2, 0.4, 0.6))
    make("1.2.4", (0.1, 0.3), study="1.9")
    series, rejected, *_ = arrange(read_headers(find_files(tmp_path))[0])
    assert sorted(group.split("\0")[-1] for group in series) == ["1.2.2", "1.2.3", "1.2.4"]
    assert [why for _, why in rejected] == ["repeated series"] * 4


def test_links_in_a_circle_end(tmp_path):
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep" / "a")
    (tmp_path / "deep" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert [p.name for p in find_files(tmp_path)] == ["a"]
