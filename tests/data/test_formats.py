"""Volumes, pictures, arrays and enhanced CT: read as the same slices as the DICOM that they could have been."""

import json
import os
import sys
import zipfile

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedCTImageStorage

import lpdirs as lp
from lpdirs.base.errors import UserError
from lpdirs.data import volumes
from lpdirs.data.build import build_dataset
from lpdirs.data.series import DataSettings
from lpdirs.data.store import open_dataset
from tests.data.files import MM, chest, series, write

sitk = pytest.importorskip("SimpleITK")
N, TOP, GAP = 12, 100.0, 5.0
SETTINGS = DataSettings(size=64)


def body(i):
    """The i-th slice of a chest from head to feet that is not the same at the left and the right, the front and the back."""
    hu = chest((i - 2) / (N - 5))
    hu[70:90, 30:40] = 300  # bone at the patient's right, behind
    return hu


def built(tmp_path, settings=SETTINGS, name="data"):
    described = build_dataset(tmp_path / "in", tmp_path / name, settings)
    return described, open_dataset(tmp_path / name)


@pytest.fixture(scope="module")
def of_dicom(tmp_path_factory):
    """What the same chest gives as DICOM."""
    folder = tmp_path_factory.mktemp("dicom")
    for i in range(N):
        write(folder / "in" / f"{i:03d}.dcm", body(i), TOP - GAP * i, i + 1)
    return built(folder)


def volume():
    """The chest as an image with feet first, as most are: patient coordinates of left, back and head."""
    image = sitk.GetImageFromArray(np.stack([body(i).astype(np.int16) for i in range(N)][::-1]))
    image.SetSpacing((MM, MM, GAP))
    image.SetOrigin((0.0, 0.0, TOP - GAP * (N - 1)))
    return image


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha", "a.mhd", "a.nrrd", "b.NII.GZ"])
@pytest.mark.parametrize("axes", ["LPS", "RAS", "LAS", "SRP", "RPI"])
def test_a_volume_gives_the_slices_that_its_dicom_gives(tmp_path, of_dicom, name, axes):
    (tmp_path / "in").mkdir()
    sitk.WriteImage(sitk.DICOMOrient(volume(), axes), str(tmp_path / "in" / name.lower()))
    (tmp_path / "in" / name.lower()).rename(tmp_path / "in" / name)
    described, slices = built(tmp_path)
    expected, told = of_dicom[1], of_dicom[0]
    assert described["unit"] == "HU" and np.array_equal(slices.hu, expected.hu)
    assert np.allclose(slices.table["z_mm"], expected.table["z_mm"]) and slices.table["patient"].nunique() == 1
    assert described["pixel_mm"] == pytest.approx(told["pixel_mm"])
    assert np.allclose(slices.table["z_fraction"], expected.table["z_fraction"])
    assert described["rejected"] == ({"read with its header": 1} if name.endswith(".mhd") else {})


def test_an_oblique_volume_and_a_film_of_volumes_are_named(tmp_path):
    (tmp_path / "in").mkdir()
    tilted = volume()
    tilted.SetDirection((1, 0, 0, 0, np.cos(0.7), -np.sin(0.7), 0, np.sin(0.7), np.cos(0.7)))
    sitk.WriteImage(tilted, str(tmp_path / "in" / "tilted.nii"))
    sitk.WriteImage(sitk.JoinSeries([volume(), volume()]), str(tmp_path / "in" / "film.nii"))
    sitk.WriteImage(volume(), str(tmp_path / "in" / "good.nii"))
    (tmp_path / "in" / "cut.nii").write_bytes((tmp_path / "in" / "good.nii").read_bytes()[:5000])
    described, _ = built(tmp_path)
    assert described["slices"] == N and described["rejected"] == {"not axial": 1, "several frames": 1, "damaged pixels": 1}


def test_another_modality_has_its_own_range_and_says_so(tmp_path):
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        image = sitk.GetImageFromArray(rng.integers(0, 900, (5, 40, 40)).astype(np.uint16) * (i + 1))
        sitk.WriteImage(image, str(tmp_path / "in" / f"mr{i}.nii.gz"))
    described, slices = built(tmp_path)
    assert described["unit"] == "" and described["slices"] == 20 and described["patients"] == 4
    assert any("no HU" in note for note in described["notes"])
    assert np.abs(slices.hu).max() > 900  # each file fills the window, whatever its largest value is
    assert slices.table["lung_fraction"].isna().all() and described["z_length_mm"] is None


def test_pictures_belong_to_folders_where_there_are_several_and_else_to_files(tmp_path):
    rng = np.random.default_rng(0)
    for person in "abc":
        (tmp_path / "in" / person).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(rng.integers(0, 256, (50, 40), dtype=np.uint8)).save(tmp_path / "in" / person / f"{i}.png")
    Image.fromarray(rng.integers(0, 60000, (64, 64)).astype(np.uint16)).save(tmp_path / "in" / "a" / "x.tif")
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "in" / "b" / "colour.jpg")
    (tmp_path / "in" / "b" / "broken.png").write_bytes(b"x" * 100)
    described, slices = built(tmp_path)
    assert (described["slices"], described["patients"], described["pixel_mm"]) == (11, 3, None)
    assert described["rejected"] == {"damaged pixels": 1}
    assert built(tmp_path, SETTINGS.but(patients="file"), "files")[0]["patients"] == 11
    picture = np.asarray(Image.open(tmp_path / "in" / "a" / "0.png")).astype(float)
    assert slices.hu[0].min() == -1000  # the sides of what is not square are black
    assert abs(slices.hu[0][:, 8:56].mean() - (picture.mean() / 255 * 2000 - 1000)) < 40


@pytest.mark.parametrize("shape", [(30, 48, 48), (30, 1, 48, 48), (30, 48, 48, 3), (48, 48)])
def test_arrays(tmp_path, shape):
    (tmp_path / "in").mkdir()
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.save(tmp_path / "in" / "x.npy", x)
    described, _ = built(tmp_path, SETTINGS.but(patients="image"))
    assert described["slices"] == described["patients"] == (30 if len(shape) > 2 else 1)


def test_an_array_with_its_slices_behind_is_not_cut_into_stripes(tmp_path):
    (tmp_path / "in").mkdir()
    x = np.random.default_rng(0).normal(size=(48, 48, 30)).astype(np.float32)
    np.save(tmp_path / "in" / "behind.npy", x)
    np.save(tmp_path / "in" / "before.npy", np.moveaxis(x, 2, 0))
    described, _ = built(tmp_path, SETTINGS.but(patients="image"))
    assert described["slices"] == 30 and list(pd.read_csv(tmp_path / "data" / "rejected.csv")["reason"]) == ["array axes"]


def test_pictures_that_differ_in_brightness_alone_are_not_the_same(tmp_path):
    (tmp_path / "in").mkdir()
    y, x = np.mgrid[:40, :40]
    disc = np.where((x - 20) ** 2 + (y - 20) ** 2 < 144, 200, 10)
    for scale in (10, 20, 100, 300, 10.0):
        Image.fromarray((disc * scale).astype(np.uint16)).save(tmp_path / "in" / f"{scale}.png")
    described, _ = built(tmp_path, SETTINGS.but(patients="image"))
    assert described["slices"] == 4


@pytest.mark.parametrize("window", [(0, 1), (-1, 1)])
def test_a_window_too_narrow_for_whole_numbers_is_refused(tmp_path, window):
    with pytest.raises(UserError, match="the window must be at least 50 wide"):
        lp.read_slices(tmp_path, 32, window=window)


def test_arrays_that_are_none_are_named(tmp_path):
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "objects.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "in" / "words.npy", np.array(["a", "b"]))
    np.save(tmp_path / "in" / "nan.npy", np.full((3, 40, 40), np.nan))
    np.save(tmp_path / "in" / "flat.npy", np.ones((3, 40, 40)))
    np.savez(tmp_path / "in" / "two.npz", a=np.ones((3, 40, 40)), b=np.ones((3, 40, 40)))
    with pytest.raises(UserError, match="no usable slice"):
        built(tmp_path)
    reasons = pd.read_csv(tmp_path / "data" / "rejected.csv")["reason"]
    assert reasons.value_counts().to_dict() == {"no picture": 5, "damaged pixels": 1, "not finite": 1}


@pytest.mark.parametrize("name", ["one.zip", "one.tar.gz", "one.7z", "zip.dcm"])
def test_archives_are_to_be_unpacked(tmp_path, name):
    series(tmp_path / "loose")
    series(tmp_path / "in")
    with zipfile.ZipFile(tmp_path / "in" / name, "w") as file:
        for path in sorted((tmp_path / "loose").iterdir()):
            file.write(path, path.name)
    assert rejected(tmp_path) == {"archive": 1, "used": 12}


def test_pictures_beside_ct_are_named(tmp_path):
    series(tmp_path / "in")
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(tmp_path / "in" / "preview.png")
    described, _ = built(tmp_path)
    assert described["unit"] == "HU" and described["slices"] == 12 and described["rejected"] == {"no HU": 1}


def enhanced(path, left_out=()):
    """The chest as one enhanced CT, feet first, with all that differs in functional groups."""
    write(path, body(0), 0)
    ds = pydicom.dcmread(path)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    ds.NumberOfFrames = N
    for tag in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept", "RescaleType"):
        if tag in ds:
            delattr(ds, tag)

    def groups(**items):
        out = Dataset()
        for name, content in items.items():
            if name not in left_out:
                part = Dataset()
                for tag, value in content.items():
                    setattr(part, tag, value)
                setattr(out, name, Sequence([part]))
        return out

    ds.SharedFunctionalGroupsSequence = Sequence(
        [
            groups(
                PlaneOrientationSequence={"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
                PixelMeasuresSequence={"PixelSpacing": [MM, MM]},
                PixelValueTransformationSequence={"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "HU"},
            )
        ]
    )
    order = list(range(N))[::-1]
    each = [groups(PlanePositionSequence={"ImagePositionPatient": [0, 0, TOP - GAP * i]}) for i in order]
    ds.PerFrameFunctionalGroupsSequence = Sequence(each)
    ds.PixelRepresentation = 0
    ds.PixelData = np.stack([(body(i) + 1024).round().astype("<u2") for i in order]).tobytes()
    ds.save_as(path, enforce_file_format=True)


def test_enhanced_ct_gives_the_slices_that_single_files_give(tmp_path, of_dicom):
    enhanced(tmp_path / "in" / "all.dcm")
    described, slices = built(tmp_path)
    assert described["unit"] == "HU" and np.array_equal(slices.hu, of_dicom[1].hu)
    assert np.allclose(slices.table["z_mm"], of_dicom[1].table["z_mm"])


@pytest.mark.parametrize(
    "left_out, why",
    [
        ("PlanePositionSequence", "no geometry"),
        ("PixelMeasuresSequence", "no geometry"),
        ("PlaneOrientationSequence", "no geometry"),
        ("PixelValueTransformationSequence", "no rescale"),
    ],
)
def test_enhanced_ct_that_does_not_say_where_it_lies_is_named(tmp_path, left_out, why):
    enhanced(tmp_path / "in" / "all.dcm", (left_out,))
    with pytest.raises(UserError, match=f"1 {why}"):
        built(tmp_path)
    assert json.loads(json.dumps(pd.read_csv(tmp_path / "data" / "rejected.csv")["reason"].tolist())) == [why]


def rejected(tmp_path, settings=SETTINGS):
    """What becomes of a folder: {reason: files}, and how many slices are used."""
    try:
        described, _ = built(tmp_path, settings)
        return described["rejected"] | {"used": described["slices"]}
    except UserError:
        reasons = pd.read_csv(tmp_path / "data" / "rejected.csv")["reason"]
        return reasons.value_counts().to_dict() | {"used": 0}


def poke(path, at, content):
    data = bytearray(path.read_bytes())
    data[at : at + len(content)] = content
    path.write_bytes(data)


def nifti(folder, name="a.nii", image=None):
    folder.mkdir(exist_ok=True)
    sitk.WriteImage(image or volume(), str(folder / name))
    return folder / name


def with_nan():
    array = sitk.GetArrayFromImage(volume()).astype(np.float32)
    array[:, :20] = np.nan
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((MM, MM, GAP))
    return image


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda f: poke(nifti(f), 108, bytes(4)), "damaged pixels"),  # its values would begin in its header
        (lambda f: poke(nifti(f), 252, bytes(4)), "no geometry"),  # neither qform nor sform
        (lambda f: poke(nifti(f), 80, np.array([1.0], "<f4").tobytes()), "no geometry"),  # another spacing than its sform's
        (lambda f: poke(nifti(f), 280, np.array([np.nan], "<f4").tobytes()), "no geometry"),
        (lambda f: nifti(f, image=with_nan()), "not finite"),
        (lambda f: nifti(f, image=sitk.GetImageFromArray(np.zeros((64, 64, 3), np.uint8), isVector=True)), "colour"),
        (lambda f: nifti(f, "a.mha").rename(f / "a.nii"), "damaged pixels"),
        (lambda f: np.save(f / "a.npy", np.zeros((2, 40, 40), complex)), "no picture"),
    ],
)
def test_a_volume_that_contradicts_itself_is_named(tmp_path, damage, why):
    (tmp_path / "in").mkdir()
    damage(tmp_path / "in")
    assert rejected(tmp_path) == {why: 1, "used": 0}


def test_a_compressed_volume_with_a_damaged_byte_is_named(tmp_path):
    path = tmp_path / "in" / "a.mha"
    path.parent.mkdir()
    sitk.WriteImage(volume(), str(path), True)
    poke(path, path.stat().st_size // 2, b"\xff\x00\xaa\x55")
    assert rejected(tmp_path) == {"damaged pixels": 1, "used": 0}


def test_spacings_that_no_scanner_has_are_named(tmp_path):
    image = volume()
    image.SetSpacing((1e-3, 3, 5))
    nifti(tmp_path / "in", "a.mha", image)
    enhanced(tmp_path / "in" / "b.dcm")
    ds = pydicom.dcmread(tmp_path / "in" / "b.dcm")
    ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [0, 0]
    ds.save_as(tmp_path / "in" / "b.dcm")
    assert rejected(tmp_path) == {"no geometry": 2, "used": 0}


def test_dicom_is_dicom_whatever_it_is_called(tmp_path, of_dicom):
    for i in range(N):
        write(tmp_path / "in" / f"{i:03d}.{'nii' if i % 2 else 'png'}", body(i), TOP - GAP * i, i + 1)
    _, slices = built(tmp_path)
    assert np.array_equal(slices.hu, of_dicom[1].hu) and slices.table["patient"].nunique() == 1


def test_a_picture_is_turned_and_inverted_as_it_says(tmp_path):
    (tmp_path / "in").mkdir()
    ramp = np.tile(np.linspace(0, 60000, 64).astype(np.uint16), (64, 1))
    Image.fromarray(ramp).save(tmp_path / "in" / "a.tif", tiffinfo={262: 0})  # white is zero
    exif = Image.Exif()
    exif[274] = 3  # upside down
    Image.fromarray((ramp // 256).astype(np.uint8)).save(tmp_path / "in" / "b.png", exif=exif)
    np.save(tmp_path / "in" / "c.npy", ramp > 30000)
    _, slices = built(tmp_path)
    inverted, turned, mask = np.asarray(slices.hu, float)
    assert inverted[32, 2] > inverted[32, -3] and turned[32, 2] > turned[32, -3]
    assert mask.min() == -1000 and mask.max() == 1000


def test_a_chest_between_slices_of_air_is_hu_and_a_2d_file_is_turned(tmp_path):
    array = sitk.GetArrayFromImage(volume())
    padded = sitk.GetImageFromArray(np.concatenate([np.full((28, 128, 128), -1000, array.dtype), array]))
    padded.SetSpacing((MM, MM, GAP))
    nifti(tmp_path / "in", image=padded)
    described, _ = built(tmp_path)
    assert described["unit"] == "HU" and described["slices"] == N - 0 and described["rejected"] == {"implausible HU": 28}
    flat = sitk.GetImageFromArray(body(5).astype(np.int16))
    flat.SetSpacing((MM, MM))
    nifti(tmp_path / "other", "a.mha", sitk.Flip(flat, [True, True]))
    build_dataset(tmp_path / "other", tmp_path / "flat", SETTINGS)
    straight = open_dataset(tmp_path / "flat").hu[0].astype(float)
    assert np.corrcoef(straight.ravel(), np.asarray(Image.fromarray(body(5)).resize((64, 64)), float).ravel())[0, 1] > 0.95


def test_names_that_a_library_cannot_open_and_data_that_lies_elsewhere_are_named(tmp_path):
    path = nifti(tmp_path / "in")
    os.rename(path, os.fsencode(path.parent) + b"/\xff.nii")
    sitk.WriteImage(volume(), str(tmp_path / "in" / "x.mhd"))
    text = (tmp_path / "in" / "x.mhd").read_text()
    os.mkfifo(tmp_path / "in" / "pipe.raw")
    (tmp_path / "in" / "y.mhd").write_text(text.replace("x.raw", "pipe.raw"))
    (tmp_path / "in" / "z.mhd").write_text(text.replace("x.raw", "../x.raw"))
    assert rejected(tmp_path) == {"odd name": 1, "damaged pixels": 2, "not a file": 1, "read with its header": 1, "used": N}


def test_volumes_of_one_folder_are_one_patient_where_that_is_said(tmp_path):
    for person in "abc":
        for visit in range(2):
            nifti_in = tmp_path / "in" / person
            nifti_in.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(volume() + 3 * (ord(person) - 97) + visit, str(nifti_in / f"{visit}.nii"))
    assert built(tmp_path, SETTINGS.but(patients="folder"))[0]["patients"] == 3
    assert built(tmp_path, SETTINGS.but(patients="file"), "files")[0]["patients"] == 6


def test_without_their_library_volumes_are_named_and_the_next_build_reads_them(tmp_path, monkeypatch):
    nifti(tmp_path / "in")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "nibabel", None)
        assert rejected(tmp_path) == {"no reader": 1, "used": 0}
    volumes._read.cache_clear()
    assert rejected(tmp_path)["used"] == N


def test_arrays_of_hu_keep_their_hu(tmp_path):
    """A stack of a body in air is HU, whole or a slice a file; else soft tissue would be stretched to the end of the window."""
    (tmp_path / "in").mkdir()
    stack = np.stack([body(i) for i in range(N)]).astype(np.int16)
    np.save(tmp_path / "in" / "stack.npy", stack)
    np.save(tmp_path / "in" / "one.npy", stack[6].astype(np.float32) + 3)
    _, data = built(tmp_path)
    values = (data.tensor() + 1) / 2 * (data.window[1] - data.window[0]) + data.window[0]
    assert len(data) == N + 1
    inside = values[:, 0, 20:44, 20:44].numpy()
    assert all(-1000 <= x.min() and np.median(x[x > -400]) < 150 for x in inside)


def test_arrays_of_bodies_and_arrays_of_other_values_are_not_mixed(tmp_path, capsys):
    """One keeps its HU and the other would be stretched to the window: two scales in one tensor."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    np.save(tmp_path / "body.npy", np.where(x**2 + y**2 < 0.5, 40 + 20 * x, -1000).astype(np.int16))
    np.save(tmp_path / "crop.npy", (40 + 200 * x).astype(np.int16))
    slices = lp.read_slices(tmp_path, 64)
    assert len(slices) == 1 and slices.hu.min() == -1000 and slices.hu.max() < 100
    assert "left out: 1 no HU" in capsys.readouterr().out


def test_no_folder_is_not_this_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for wrong in ("", None):
        with pytest.raises(UserError, match="takes the folder that holds your files"):
            lp.read_slices(wrong)
    with pytest.raises(UserError, match="window must be"):
        lp.read_slices(tmp_path, window=(0,))
