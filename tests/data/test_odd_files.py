"""What real folders do: each case is read rightly, or left out with the reason that a reader would give."""

import errno
import os
import zipfile
import zlib

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, EnhancedCTImageStorage, MediaStorageDirectoryStorage

from lpdirs.data import dicom, pixels
from lpdirs.data.build import NoSlices, build_dataset, read_slices
from lpdirs.data.series import DataSettings
from lpdirs.data.store import open_dataset
from tests.data.files import MM, SIZE, chest, series, write

S64 = DataSettings(size=64)


def build(tmp_path, settings=S64, out="out"):
    data = build_dataset(tmp_path / "in", tmp_path / out, settings)
    listed = pd.read_csv(tmp_path / out / "rejected.csv")
    assert len(listed) == sum(data["rejected"].values())
    return data, open_dataset(tmp_path / out)


# who is a series?


def test_four_patients_whose_uids_an_anonymiser_made_constant_stay_four(tmp_path):
    for k in range(4):
        same = dict(PatientID=f"Q{k}", StudyInstanceUID="9.9", SeriesInstanceUID="9.9.9", PatientName="")
        series(tmp_path / "in" / str(k), noise=k, **same)
    data, slices = build(tmp_path)
    assert (data["patients"], data["series"], data["slices"]) == (4, 4, 48)
    assert set(slices.table["split"]) == {"train", "validation", "test"}, "with few patients each part has one"
    assert (slices.table.groupby("patient")["split"].nunique() == 1).all()


def test_a_series_of_two_people_is_refused(tmp_path):
    same = dict(PatientID="ANON", StudyInstanceUID="9.9", SeriesInstanceUID="9.9.9")
    series(tmp_path / "in" / "a", PatientName="", PatientBirthDate="19500101", **same)
    series(tmp_path / "in" / "b", PatientName="", PatientBirthDate="19700101", noise=1, top=101, **same)
    series(tmp_path / "in" / "c", PatientID="Q", StudyInstanceUID="1.1", SeriesInstanceUID="1.1.1", noise=2)
    data, _ = build(tmp_path)
    assert data["rejected"] == {"contradiction": 24} and data["slices"] == 12


def test_people_told_apart_by_their_folders_alone_are_not_mixed(tmp_path):
    """Everything is constant: one of the two is taken, whole."""
    for k in range(2):
        blank = dict(PatientID="", PatientName="", StudyInstanceUID="9.9", SeriesInstanceUID="9.9.9")
        series(tmp_path / "in" / f"person{k}", noise=k, shift=30.0 * k, **blank)
    data, slices = build(tmp_path)
    assert data["rejected"] == {"another stack": 12}
    centres = [np.average(np.arange(64), weights=(hu > -300).sum(0)) for hu in slices.hu]
    assert np.ptp(centres) < 1, "slices of one person"


# several stacks in one series


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"}),
        ({"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}),
        ({"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}, {"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}),
    ],
)
@pytest.mark.parametrize("interleaved", [False, True])
def test_of_two_stacks_one_is_taken_whole(tmp_path, rng, a, b, interleaved):
    """Named in an order that mixes them, with the same numbers or in turn; the second is 60 HU brighter."""
    for i in range(12):
        for k, tags in enumerate((a, b)):
            name, number = f"{rng.random():.9f}", 2 * i + k if interleaved else i
            write(tmp_path / "in" / name, chest((i - 2) / 7) + 60 * k, 100 - 5.0 * i, number + 1, **tags)
    data, slices = build(tmp_path)
    assert data["slices"] == 12 and data["rejected"] == {"another stack": 12}
    assert np.ptp([np.median(hu[hu > -50]) for hu in slices.hu]) < 20, "one stack, not a mixture"


@pytest.mark.parametrize("interleaved", [False, True])
def test_stacks_that_only_their_numbers_tell_apart(tmp_path, rng, interleaved):
    for i in range(12):
        for k in range(3):
            number = 3 * i + k if interleaved else 12 * k + i
            write(tmp_path / "in" / f"{rng.random():.9f}", chest((i - 2) / 7) + 60 * k, 100 - 5.0 * i, number + 1)
    data, slices = build(tmp_path)
    assert data["slices"] == 12 and data["rejected"] == {"another stack": 24}
    assert np.ptp([np.median(hu[hu > -50]) for hu in slices.hu]) < 20


def test_stacks_that_nothing_tells_apart_are_refused(tmp_path, rng):
    for i in range(12):
        for k in range(2):
            write(tmp_path / "in" / f"{rng.random():.9f}", chest((i - 2) / 7) + 60 * k, 100 - 5.0 * i, 1)
    with pytest.raises(NoSlices, match="24 mixed stacks"):
        build(tmp_path)


def test_a_kernel_between_the_positions_of_another_is_a_stack_of_its_own(tmp_path):
    series(tmp_path / "in" / "a", ConvolutionKernel="soft")
    series(tmp_path / "in" / "b", ConvolutionKernel="sharp", n=10, top=97.5, noise=1)
    data, _ = build(tmp_path)
    assert data["slices"] == 12 and data["rejected"] == {"another stack": 10}


def test_acquisitions_one_after_the_other_are_one_stack(tmp_path):
    """A scan in steps counts its acquisitions, slice by slice or block by block."""
    for i in range(12):
        write(tmp_path / "in" / f"{i}", chest((i - 2) / 7), 100 - 5.0 * i, i + 1, AcquisitionNumber=i // 2)
    assert build(tmp_path)[0]["slices"] == 12


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ({"ConvolutionKernel": "B70f"}, "repeated series"),
        ({"AcquisitionTime": "101500"}, "another acquisition"),
        ({"SeriesDescription": "THORAX EXPIRATION"}, "another acquisition"),
        ({"ImageOrientationPatient": [-1, 0, 0, 0, -1, 0]}, "another acquisition"),
    ],
)
def test_two_series_of_a_study_say_what_they_are(tmp_path, tags, why):
    first = dict(StudyInstanceUID="1.1", SeriesInstanceUID="1.1.1", AcquisitionTime="101000", SeriesDescription="THORAX INSPIRATION")
    series(tmp_path / "in" / "a", **first)
    series(tmp_path / "in" / "b", n=14, noise=1, **first | {"SeriesInstanceUID": "1.1.2", "SeriesDescription": "INSPIRATION"} | tags)
    data, _ = build(tmp_path)
    prone = "ImageOrientationPatient" in tags
    assert data["rejected"] == {why: 14 if prone else 12}, "the longest stays, a supine one before a prone one"


# what is CT?


@pytest.mark.parametrize("sop_class", ["", None])
def test_a_blank_sop_class_falls_back_to_the_meta_header(tmp_path, sop_class):
    series(tmp_path / "in", SOPClassUID=sop_class)
    assert build(tmp_path)[0]["slices"] == 12


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ({"Modality": "SEG"}, "not a CT image"),
        ({"SOPClassUID": EnhancedCTImageStorage, "NumberOfFrames": 3}, "several frames"),
        ({"SOPClassUID": MediaStorageDirectoryStorage}, "DICOMDIR"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "not axial"),
        ({"RescaleType": "Z_EFF"}, "no rescale"),
    ],
)
def test_what_is_no_ct_slice_is_said_by_its_name(tmp_path, tags, why):
    series(tmp_path / "in" / "good")
    write(tmp_path / "in" / "odd", chest(0.5), 0, **tags)
    assert build(tmp_path)[0]["rejected"] == {why: 1}


# a body in air


def test_implausible_values_are_left_out_or_read_rightly(tmp_path, rng):
    hu, odd = chest(0.5), np.zeros((SIZE, SIZE))
    odd[rng.random(odd.shape) < 0.001] = 1
    dots = np.where(rng.random(odd.shape) < 0.01, 32767 - rng.integers(0, 50, odd.shape), hu + 1024)
    stripe = np.where(np.arange(SIZE) == 70, -32768 + rng.integers(0, 9, odd.shape), hu)
    cases = {
        "intercept lost": dict(raw=hu + 1024, RescaleIntercept=0),
        "mask": dict(raw=odd, RescaleIntercept=0),
        "test pattern": dict(raw=np.tile(np.arange(SIZE) * 2, (SIZE, 1)), RescaleIntercept=0),
        "dots": dict(raw=dots),
        "stripe": dict(raw=stripe, RescaleIntercept=0),
    }
    for i, (name, tags) in enumerate(cases.items()):
        write(tmp_path / "in" / name, hu, 5.0 * i, SeriesInstanceUID=f"1.2.{i + 1}", **tags)
    write(tmp_path / "in" / "good", hu, 0, StudyInstanceUID="1.3", SeriesInstanceUID="1.3.1")
    data, _ = build(tmp_path)
    assert data["rejected"] == {"implausible HU": len(cases)} and data["slices"] == 1


@pytest.mark.parametrize(("value", "intercept"), [(63536, -1024), (32767, 0), (-32768, 0), (-2000, 0)])
def test_untagged_padding_is_air(tmp_path, value, intercept):
    hu = chest(0.5)
    ring = np.hypot(*(np.mgrid[:SIZE, :SIZE] - SIZE / 2 + 0.5)) > SIZE / 2
    raw = np.where(ring, value, hu - intercept)
    write(tmp_path / "in" / "a", hu, 0, raw=raw, RescaleIntercept=intercept)
    _, slices = build(tmp_path, DataSettings(size=128))
    assert (slices.hu[0][ring] == -1000).all() and np.abs(slices.hu[0][~ring] - hu[~ring]).max() <= 1


def test_a_padding_value_that_tissue_has_too_makes_no_holes(tmp_path):
    hu = chest(0.5)
    hu[0] = 40  # the padded row
    write(tmp_path / "in" / "a", hu, 0, PixelPaddingValue=1064)
    _, slices = build(tmp_path, DataSettings(size=128))
    assert (slices.hu[0][0] == -1000).all() and np.abs(slices.hu[0][1:] - hu[1:]).max() <= 1


def test_metal_of_the_extended_scale_is_kept(tmp_path):
    hu = chest(0.5)
    hu[64, 64] = 30_000
    write(tmp_path / "in" / "a", hu, 0, raw=hu + 1024)
    assert build(tmp_path, DataSettings(size=128))[1].hu[0][64, 64] == 1000, "clipped to the window's top"


# geometry in mm


def test_pixels_that_are_not_square_do_not_squeeze_the_chest(tmp_path):
    for i in range(12):
        twice = np.repeat(chest((i - 2) / 7), 2, 0)
        write(tmp_path / "in" / f"{i}", twice, 100 - 5.0 * i, i + 1, PixelSpacing=[MM / 2, MM])
        write(tmp_path / "square" / f"{i}", chest((i - 2) / 7), 100 - 5.0 * i, i + 1)
    _, slices = build(tmp_path)
    build_dataset(tmp_path / "square", tmp_path / "other", S64)
    other = open_dataset(tmp_path / "other")
    assert np.abs(slices.hu - other.hu).max() <= 1 and np.allclose(slices.table["pixel_mm"], other.table["pixel_mm"])


# every file is accounted for


def test_links_hidden_files_and_foreign_files_are_all_listed(tmp_path):
    series(tmp_path / "elsewhere")
    source = tmp_path / "in"
    (source / ".cache").mkdir(parents=True)
    (source / "patient").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (source / "again").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (source / "loop").symlink_to(source, target_is_directory=True)
    (source / "gone").symlink_to(tmp_path / "nowhere")
    write(source / ".cache" / "a.dcm", chest(0.5), 0)
    (source / ".DS_Store").write_bytes(b"x")
    os.mkfifo(source / "pipe")
    for name in ("volume.nii.gz", "volume.mhd", "photo.PNG"):
        (source / name).write_bytes(b"x")
    with zipfile.ZipFile(source / "archive.zip", "w") as file:
        file.writestr("a", "x")
    os.makedirs(os.fsencode(source) + b"/Bef\xfcnde")
    with open(os.fsencode(source) + b"/Bef\xfcnde/=liesmich.txt", "w") as text:
        text.write("x")
    data, _ = build(tmp_path)
    kinds = {"linked again": 2, "hidden": 2, "not a file": 1, "damaged pixels": 3, "not DICOM": 1, "cannot be read": 1, "archive": 1}
    assert data["slices"] == 12 and data["rejected"] == kinds
    assert any("could not be opened" in note for note in data["notes"])


def test_what_could_not_be_opened_is_read_when_it_can_be(tmp_path, monkeypatch):
    """Rights and memory come back; only what lies in the file itself is remembered."""
    series(tmp_path / "in")
    for trouble, module in ((PermissionError(errno.EACCES, "denied"), dicom), (MemoryError(), pixels)):
        read = module.read_partial

        def refuse(file, *args, trouble=trouble, read=read, **kwargs):
            if file.name.endswith("005.dcm"):
                raise trouble
            return read(file, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(module, "read_partial", refuse)
            data, _ = build(tmp_path)
        assert data["slices"] == 11 and data["rejected"] == {"cannot be read": 1}
        data, _ = build(tmp_path)
        assert data["slices"] == 12 and not data["rejected"]
        os.utime(tmp_path / "in" / "005.dcm")  # so that the next build looks again


def test_a_folder_that_cannot_be_opened_is_listed(tmp_path, monkeypatch):
    series(tmp_path / "in" / "open")
    series(tmp_path / "in" / "closed", SeriesInstanceUID="1.2.7", StudyInstanceUID="1.2.8", noise=1)
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert build(tmp_path)[0]["rejected"] == {"cannot be read": 1}
    monkeypatch.setattr(os, "scandir", scan)
    assert build(tmp_path)[0]["slices"] == 24


def test_a_deflate_bomb_is_refused_before_it_is_inflated(tmp_path):
    path = write(tmp_path / "in" / "bomb", chest(0.5), 0)
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    ds.save_as(path, enforce_file_format=True)
    data = path.read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    body = zlib.decompress(data[start:], -zlib.MAX_WBITS)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = packer.compress(body) + b"".join(packer.compress(bytes(2**24)) for _ in range(40)) + packer.flush()
    (tmp_path / "in" / "bomb").write_bytes(data[:start] + bomb)
    write(tmp_path / "in" / "good", chest(0.5), 0)
    assert build(tmp_path)[0]["rejected"] == {"not DICOM": 1}


# who is left?


@pytest.mark.parametrize(("patients", "parts"), [(1, {"train"}), (2, {"train", "test"}), (3, {"train", "validation", "test"})])
def test_with_few_patients_each_part_has_one_where_it_can(tmp_path, patients, parts):
    for k in range(patients):
        series(tmp_path / "in" / str(k), noise=k, PatientID=f"Q{k}", StudyInstanceUID=f"1.{k + 1}", SeriesInstanceUID=f"1.{k + 1}.1")
    data, slices = build(tmp_path)
    assert set(slices.table["split"]) == parts
    assert any("one patient" in note for note in data["notes"]) == (patients == 1)
    assert any("slices to train on" in note for note in data["notes"])


def test_one_patient_id_for_several_studies_is_said(tmp_path):
    for k in range(5):
        series(tmp_path / "in" / str(k), noise=k, PatientID="ANON", StudyInstanceUID=f"1.{k + 1}", SeriesInstanceUID=f"1.{k + 1}.1")
    data, _ = build(tmp_path)
    assert "of 5 studies" in data["notes"][0] and "PatientID" in data["notes"][0]


def test_where_nothing_can_be_used_the_line_names_the_list_of_reasons(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("x")
    with pytest.raises(NoSlices, match=r"no usable slice: 1 not DICOM .*; rejected.csv in data says why, file by file$"):
        build_dataset(tmp_path / "in", tmp_path / "data", DataSettings(size=32))
    assert "notes" not in str(tmp_path) and (tmp_path / "data" / "rejected.csv").exists()
    with pytest.raises(NoSlices, match=r"rejected.csv \(give folder= to keep it\) says why, file by file$"):
        read_slices(tmp_path / "in")
