"""What real folders did to the reader: each situation of ../shared/failing/files, and its neighbours, on chests of our own."""

import numpy as np
import pandas as pd
import pydicom
import pytest

from lpdirs.data.build import build_dataset
from lpdirs.data.series import DataSettings
from lpdirs.data.store import open_dataset
from tests.data.files import chest, series, write

S64 = DataSettings(size=64)
N = 12


def built(tmp_path, settings=S64):
    data = build_dataset(tmp_path / "in", tmp_path / "out", settings)
    return data, open_dataset(tmp_path / "out")


def stack(folder, numbers=None, n=N, **tags):
    """A stack of n slices from above, numbered as `numbers` says; each of `tags` may be a function of the slice's place."""
    for i in range(n):
        own = {name: value(i) if callable(value) else value for name, value in tags.items()}
        write(folder / f"{i:03d}.dcm", chest((i - 2) / (n - 5)), 100 - 5.0 * i, numbers[i] if numbers else i + 1, **own)


@pytest.mark.parametrize(
    "spelt", ["HU", "hu", "HU ", "Houndsfield Unit", "Hounsfield Unit", "HOUNSFIELD UNITS", "Hounsfield", "Hounsfield Unit (HU)", "CT HU"]
)
def test_hounsfield_units_are_read_however_they_are_spelt(spelt, tmp_path):
    stack(tmp_path / "in", RescaleType=spelt)
    assert built(tmp_path)[0]["slices"] == N


@pytest.mark.parametrize("other", ["OD", "US", "MGML", "mg/ml", "Z_EFF", "ED"])
def test_what_is_no_hounsfield_unit_stays_out(other, tmp_path):
    stack(tmp_path / "in" / "hu")
    stack(tmp_path / "in" / "other", RescaleType=other, SeriesInstanceUID="1.2.3", StudyInstanceUID="1.2")
    assert built(tmp_path)[0]["rejected"] == {"no rescale": N}


def test_a_misspelt_unit_does_not_hide_that_slices_are_not_axial(tmp_path):
    stack(tmp_path / "in" / "axial")
    stack(tmp_path / "in" / "other", RescaleType="Houndsfield Unit", ImageOrientationPatient=[1, 0, 0, 0, 0, -1], SeriesInstanceUID="1.2.3")
    assert built(tmp_path)[0]["rejected"] == {"not axial": N}


@pytest.mark.parametrize("order", ["odd and even", "by fours", "there and back", "shuffled", "all the same"])
def test_numbers_decide_nothing_where_no_position_repeats(order, tmp_path):
    numbers = {
        "odd and even": [i // 2 + 1 + (i % 2) * N for i in range(N)],
        "by fours": [i // 4 + 1 + (i % 4) * N for i in range(N)],
        "there and back": [*range(1, N, 2), *range(N, 0, -2)],
        "shuffled": list(np.random.default_rng(0).permutation(N) + 1),
        "all the same": [1] * N,
    }[order]
    stack(tmp_path / "in", numbers=[int(number) for number in numbers])
    assert built(tmp_path)[0]["slices"] == N


@pytest.mark.parametrize("order", ["odd and even", "by fours"])
def test_one_repeated_position_does_not_make_numbers_decide(order, tmp_path):
    step = {"odd and even": 2, "by fours": 4}[order]
    numbers = [i // step + 1 + (i % step) * N for i in range(N)]
    stack(tmp_path / "in", numbers=numbers)
    write(tmp_path / "in" / "again.dcm", chest((4 - 2) / (N - 5), noise=5), 100 - 5.0 * 4, 100)
    data, _ = built(tmp_path)
    assert data["slices"] == N and data["rejected"] == {"repeated position": 1}


@pytest.mark.parametrize("case", ["a slice missing", "the first missing", "in steps of ten"])
@pytest.mark.parametrize("phases", [3, 4])
def test_phases_by_position_bear_a_gap(case, phases, tmp_path):
    gap, step = (
        {"a slice missing": (N // 2, 1), "the first missing": (0, 0), "in steps of ten": (None, None)}[case],
        10 if "ten" in case else 1,
    )
    for i in range(N):
        for phase in range(phases):
            if (i, phase) != gap:
                path = tmp_path / "in" / f"{i:02d}-{phase:02d}.dcm"
                write(path, chest((i - 2) / (N - 5), noise=phase), 100 - 5.0 * i, step * (i * phases + phase + 1))
    data, slices = built(tmp_path)
    assert data["slices"] == N and len(set(slices.table["z_mm"])) == N and set(data["rejected"]) == {"another stack"}


@pytest.mark.parametrize("phases", [3, 4, 5, 10])
def test_of_phases_numbered_position_by_position_one_is_taken(phases, tmp_path):
    for i in range(N):
        for phase in range(phases):
            tags = dict(AcquisitionTime=f"10{phase:02d}00", SeriesDescription=f"phase {10 * phase} %")
            path = tmp_path / "in" / f"{i:02d}-{phase:02d}.dcm"
            write(path, chest((i - 2) / (N - 5), noise=phase), 100 - 5.0 * i, i * phases + phase + 1, **tags)
    data, slices = built(tmp_path)
    assert data["slices"] == N and data["rejected"] == {"another stack": N * (phases - 1)}
    assert len(set(slices.table["z_mm"])) == N


def test_noise_in_orientation_and_spacing_divides_no_series(tmp_path):
    wobble = lambda i: [1, 0, 0, 0, np.sqrt(1 - 0.005**2), 0.005 + 1e-5 * (-1) ** i]
    stack(tmp_path / "in", ImageOrientationPatient=wobble, PixelSpacing=lambda i: [2.805 - 1e-6 * (i % 2)] * 2)
    assert built(tmp_path)[0]["slices"] == N


def test_lungs_that_touch_the_frame_do_not_flicker(tmp_path):
    for i in range(N):
        whole = chest((i - 2) / (N - 5))
        rows, columns = (np.flatnonzero((whole < -700).any(axis) & (whole > -200).any(axis)) for axis in (1, 0))
        inside = whole[
            rows[0] + len(rows) // 5 : rows[-1] - len(rows) // 10, columns[0] + len(columns) // 6 : columns[-1] - len(columns) // 6
        ]
        write(tmp_path / "in" / f"{i:02d}.dcm", np.ascontiguousarray(inside), 100 - 5.0 * i, i + 1)
    _, slices = built(tmp_path)
    share = slices.table.sort_values("z_mm")["lung_fraction"].to_numpy()
    assert len(share) >= 8 and share.min() > 0.1 and np.abs(np.diff(share)).max() < 0.25, share


@pytest.mark.parametrize(("wish", "taken"), [("soft", "B30f"), ("sharp", "B70f"), ("b70f", "B70f")])
def test_of_equally_long_reconstructions_all_patients_give_the_same_kernel(wish, taken, tmp_path):
    for patient in range(2):
        for kernel in ("B30f", "B70f"):
            first = (kernel == "B30f") == bool(patient)  # of one patient the lowest UID is of one kernel, of the other of the other
            uid = f"1.2.{patient}.{1 if first else 2}"
            tags = dict(PatientID=f"P{patient}", StudyInstanceUID=f"1.2.{patient}", SeriesInstanceUID=uid, ConvolutionKernel=kernel)
            series(tmp_path / "in" / f"{patient}-{kernel}", n=N, noise=10 * patient + len(kernel), SliceThickness="2.0", **tags)
    data, slices = built(tmp_path, S64.but(kernel=wish))
    assert data["slices"] == 2 * N and data["rejected"] == {"repeated series": 2 * N}
    assert set(slices.table["kernel"]) == {taken} and set(slices.table["thickness"].astype(float)) == {2.0}
    assert any(taken in note and "kernel" in note for note in data["notes"])


def cut(folder, first):
    """Cut the pixels of all slices of a series from the `first` on, so that they cannot be decoded."""
    for path in sorted(folder.iterdir())[first:]:
        ds = pydicom.dcmread(path)
        ds.PixelData = ds.PixelData[:1000]
        ds.save_as(path)


def test_a_series_that_cannot_be_decoded_does_not_cost_its_duplicate(tmp_path):
    series(tmp_path / "in" / "a", n=N + 1, SeriesInstanceUID="1.2.1", StudyInstanceUID="1.2")
    cut(tmp_path / "in" / "a", 0)
    series(tmp_path / "in" / "b", n=N, SeriesInstanceUID="1.2.2", StudyInstanceUID="1.2")
    data, _ = built(tmp_path)
    assert data["slices"] == N and "repeated series" not in data["rejected"]


def test_a_longer_series_of_which_hardly_a_slice_is_left_gives_way_to_its_duplicate(tmp_path):
    series(tmp_path / "in" / "a", n=N + 1, SeriesInstanceUID="1.2.1", StudyInstanceUID="1.2")
    cut(tmp_path / "in" / "a", 1)
    series(tmp_path / "in" / "b", n=N, noise=7, SeriesInstanceUID="1.2.2", StudyInstanceUID="1.2")
    data, slices = built(tmp_path)
    assert data["slices"] == N and slices.table["series"].nunique() == 1
    assert data["rejected"] == {"damaged pixels": N, "repeated series": 1}


def test_a_broken_series_stays_where_its_duplicate_has_less(tmp_path):
    """Four of thirteen slices can be decoded, and a series of three shows the same positions."""
    series(tmp_path / "in" / "a", n=N + 1, SeriesInstanceUID="1.2.1", StudyInstanceUID="1.2")
    cut(tmp_path / "in" / "a", 4)
    for i in range(3, 6):
        write(
            tmp_path / "in" / "b" / f"{i}.dcm",
            chest((i - 2) / (N - 4), noise=7),
            100 - 5.0 * i,
            i + 1,
            SeriesInstanceUID="1.2.2",
            StudyInstanceUID="1.2",
        )
    data, _ = built(tmp_path)
    assert data["slices"] == 4 and data["rejected"] == {"damaged pixels": N - 3, "repeated series": 3}


@pytest.mark.parametrize(("wish", "taken"), [(None, 2.0), (5.0, 5.0), (4.0, 5.0), (1.0, 2.0)])
def test_of_thin_and_thick_slices_those_are_taken_that_are_asked_for(wish, taken, tmp_path):
    for name, n, thick in (("thin", N + 2, "2.0"), ("thick", N, "5.0")):
        uid = {"SeriesInstanceUID": f"1.2.{n}", "StudyInstanceUID": "1.2", "SliceThickness": thick}
        series(tmp_path / "in" / name, n=n, noise=n, **uid)
    _, slices = built(tmp_path, S64.but(thickness=wish))
    assert set(slices.table["thickness"].astype(float)) == {taken}


@pytest.mark.parametrize(("shear", "used"), [(0.0, N), (1e-3, N), (0.3, 0)])
def test_a_small_shear_is_read_and_a_large_one_named(shear, used, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    stack(tmp_path / "in" / "as_dicom")
    (tmp_path / "in").mkdir(exist_ok=True)
    volume = np.stack([chest((i - 2) / (N - 5)) for i in range(N)])[::-1].transpose(2, 1, 0)
    affine = np.diag([-2.8, -2.8, 5.0, 1.0])
    affine[0, 1] = shear * 2.8
    nibabel.save(nibabel.Nifti1Image(volume.astype(np.int16), affine), tmp_path / "in" / "a.nii.gz")
    data, _ = built(tmp_path)
    assert data["slices"] == N + used or (used and data["rejected"] == {"same pixels": N}), data["rejected"]
    assert used or data["rejected"] == {"no geometry": 1}


def test_a_volume_with_nan_is_named(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    stack(tmp_path / "in" / "as_dicom")
    volume = np.stack([chest((i - 2) / (N - 5)) for i in range(N)])[::-1].transpose(2, 1, 0).astype(np.float32)
    volume[:9] = np.nan
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([-2.8, -2.8, 5.0, 1.0])), tmp_path / "in" / "a.nii.gz")
    assert built(tmp_path)[0]["rejected"] == {"not finite": 1}


def test_a_label_volume_alone_is_said_to_look_like_a_mask(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    (tmp_path / "in").mkdir()
    volume = np.stack([np.digitize(chest((i - 2) / (N - 5)), [-500, 200]) for i in range(N)]).transpose(2, 1, 0)
    nibabel.save(nibabel.Nifti1Image(volume.astype(np.uint8), np.diag([-2.8, -2.8, 5.0, 1.0])), tmp_path / "in" / "mask.nii.gz")
    data, _ = built(tmp_path)
    assert any("look like a mask" in note for note in data["notes"])


@pytest.mark.parametrize("kind", ["fifty labels", "an array", "no mask"])
def test_masks_of_many_labels_and_in_arrays_are_said_and_pictures_are_not(kind, tmp_path):
    (tmp_path / "in").mkdir()
    hu = np.stack([chest((i - 2) / (N - 5)) for i in range(N)])
    rows, columns = np.indices(hu.shape[1:]) // 16
    patches = np.where(hu > -500, 1 + (rows * 8 + columns) % 54, 0)
    values = {
        "fifty labels": patches,
        "an array": (hu > -500).astype(int),
        "no mask": np.clip(hu / 16 + 100 + np.random.default_rng(0).integers(0, 60, hu.shape), 0, 255),
    }[kind]
    if kind == "fifty labels":
        nibabel = pytest.importorskip("nibabel")
        nibabel.save(
            nibabel.Nifti1Image(values.astype(np.uint8).transpose(2, 1, 0), np.diag([-2.8, -2.8, 5.0, 1.0])), tmp_path / "in" / "m.nii"
        )
    else:
        np.save(tmp_path / "in" / "m.npy", values.astype(np.uint8))
    data, _ = built(tmp_path)
    assert any("look like a mask" in note for note in data["notes"]) == (kind != "no mask")


@pytest.mark.parametrize("name", ["a.img", "a.gif", "a.h5", "a.png", "a.nii", "a.mha"])
def test_dicom_without_a_preamble_is_read_whatever_its_name_says(name, tmp_path):
    stack(tmp_path / "plain")
    (tmp_path / "in").mkdir()
    stem, _, suffix = name.partition(".")
    for i, path in enumerate(sorted((tmp_path / "plain").iterdir())):
        (tmp_path / "in" / f"{stem}{i}.{suffix}").write_bytes(path.read_bytes()[132:])
    assert built(tmp_path)[0]["slices"] == N


def test_twelve_bits_of_jpeg_are_read_where_gdcm_can(tmp_path):
    """Written by GDCM; one that it cannot decode, and says so on the terminal alone, is named."""
    gdcm = pytest.importorskip("gdcm")
    from pydicom.data import get_testdata_file

    from lpdirs.data.decoder import decode
    from lpdirs.data.folder import Unusable

    hu = chest(0.5)
    path = write(tmp_path / "plain.dcm", hu, 0, raw=np.clip(hu + 1024, 0, 4095), BitsStored=12, HighBit=11, RescaleIntercept=-1024)
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(tmp_path / "packed.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert np.abs(decode(tmp_path / "packed.dcm").astype(int) - pydicom.dcmread(path).pixel_array).max() <= 4
    for name in ("JPEG-lossy.dcm", "JPGExtended.dcm"):
        from pathlib import Path

        with pytest.raises(Unusable, match="damaged pixels"):
            decode(Path(get_testdata_file(name, download=False)))


def test_an_enhanced_file_with_bytes_to_spare_is_read(tmp_path):
    from tests.data.test_formats import enhanced

    path = tmp_path / "in" / "a.dcm"
    path.parent.mkdir()
    enhanced(path)
    ds = pydicom.dcmread(path)
    frames = int(ds.NumberOfFrames)
    ds.PixelData = ds.PixelData + bytes(ds.Rows * ds.Columns * 2 // 3 * 2)
    ds.save_as(path)
    assert built(tmp_path)[0]["slices"] == frames


def test_one_frame_of_reference_is_taken_of_two(tmp_path):
    stack(tmp_path / "in", FrameOfReferenceUID="1.2.3")
    for i in range(5):
        write(tmp_path / "in" / f"other-{i}", chest(0.5, noise=i), 98 - 5.0 * i, 100 + i, FrameOfReferenceUID="1.2.4")
    data, _ = built(tmp_path)
    assert data["slices"] == N and data["rejected"] == {"another stack": 5}


def test_slices_without_the_kernel_s_tag_stay_in_their_stack(tmp_path):
    stack(tmp_path / "in", ConvolutionKernel=lambda i: "B30f" if i % 3 else "")
    assert built(tmp_path)[0]["slices"] == N
    assert len(pd.read_csv(tmp_path / "out" / "rejected.csv")) == 0
