from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageSequence
from scipy import ndimage

import lpdirs as lp
from lpdirs.base.errors import UserError
from lpdirs.data.body import body_masks, dilate
from lpdirs.data.store import open_dataset, to_hu
from lpdirs.measures.anatomy import MEASURES, measure
from lpdirs.measures.thorax import fit_z
from lpdirs.phantom.painting import FOV_MM, render
from lpdirs.phantom.population import COUCHES, factors_at, sample_patients

PIXEL = FOV_MM / 64


@pytest.fixture(scope="module")
def measured_and_true():
    t = np.linspace(0.15, 0.9, 6)
    patients = sample_patients(30, seed=11)
    hu = np.concatenate([render(p, t, 64) for p in patients])
    true = pd.concat([pd.DataFrame(factors_at(p, t)) for p in patients], ignore_index=True)
    return measure(hu, PIXEL), true


@pytest.mark.parametrize(
    ("name", "least"),
    [("rotation", 0.99), ("x_position", 0.99), ("y_position", 0.99), ("thickness", 0.97), ("width", 0.95), ("breast", 0.97)],
)
def test_measures_agree_with_the_truth(measured_and_true, name, least):
    measured, true = measured_and_true
    assert np.corrcoef(measured[name], true[name])[0, 1] > least
    slope = np.polyfit(true[name], measured[name], 1)[0]
    assert slope == pytest.approx(1, abs={"width": 0.2, "breast": 0.25}.get(name, 0.05))


def test_lung_share_at_64_px_with_noise_is_that_at_256_px_without():
    t, patients = np.linspace(0.1, 0.9, 4), sample_patients(8, seed=12)
    coarse = measure(np.concatenate([render(p, t, 64) for p in patients]), PIXEL)
    fine = measure(np.concatenate([render(p, t, 256, noise=0) for p in patients]), FOV_MM / 256)
    assert np.corrcoef(coarse["lung_share"], fine["lung_share"])[0, 1] > 0.98
    assert coarse["lung_density"].between(-950, -700).all()


def test_a_mirror_swaps_left_and_right_and_turns_the_roll():
    hu = render(sample_patients(1, 1)[0], 0.6, 64)
    read, mirrored = (measure(x, PIXEL).iloc[0] for x in (hu, hu[:, :, ::-1]))
    assert mirrored["lung_share"] == pytest.approx(read["lung_share"], rel=0.02)
    assert mirrored["rotation"] == pytest.approx(-read["rotation"], abs=0.01)
    assert mirrored["breast"] == pytest.approx(read["breast"], abs=0.1)


def test_noise_changes_no_extent(rng):
    hu = render(sample_patients(1, 1)[0], 0.5, 128, noise=0)
    plain, noisy = (measure(x, FOV_MM / 128).iloc[0] for x in (hu, hu + rng.normal(0, 60, hu.shape)))
    assert noisy["thickness"] == pytest.approx(plain["thickness"], abs=3)


@pytest.mark.parametrize("couch", COUCHES)
def test_the_couch_is_found_and_moves_with_the_couch(couch):
    patient = replace(sample_patients(1, 1)[0], couch=couch)
    low, high = (measure(render(replace(patient, y_position=y), 0.5, 128), FOV_MM / 128)["couch_height"][0] for y in (10.0, -10.0))
    assert low - high == pytest.approx(20, abs=4)
    hu = render(patient, 0.5, 64)
    alone = np.where(dilate(body_masks(hu), 2), hu, -1000)
    assert np.isnan(measure(alone, PIXEL)["couch_height"][0]) and np.isfinite(measure(alone, PIXEL)["rotation"][0])


def test_a_turn_of_t_degrees_reads_as_t():
    hu = render(sample_patients(1, 1)[0], 0.5, 128)[0]
    turns = np.array([-15.0, -5.0, 0.0, 5.0, 15.0])
    warped = [ndimage.rotate(hu, -t, reshape=False, order=1, mode="constant", cval=-1000) for t in turns]  # clockwise
    read = measure(np.stack(warped), FOV_MM / 128)["rotation"].to_numpy()
    assert np.allclose(read - read[2], turns, atol=0.8)


def test_a_move_of_so_many_mm_reads_as_such():
    hu = render(sample_patients(1, 1)[0], 0.5, 128)[0]
    moved = np.stack([hu, ndimage.shift(hu, (5, -3), order=0, mode="constant", cval=-1000)])
    change = measure(moved, 2.0).diff().iloc[1]
    assert change["y_position"] == pytest.approx(10, abs=0.5) and change["x_position"] == pytest.approx(-6, abs=0.5)
    assert abs(change["rotation"]) < 0.3 and abs(change["thickness"]) < 1


def test_no_body_is_nan_not_a_guess():
    whole = render(sample_patients(1, 1)[0], 0.5, 64)[0]
    cut_off = np.full((64, 64), 40.0)
    open_wall = whole.copy()
    open_wall[:, :18] = -1000  # the side of the chest is out of the field of view, and a lung open to the air
    table = measure(np.stack([np.full((64, 64), -1000.0), cut_off, open_wall, whole]), PIXEL)
    assert list(table) == list(MEASURES)
    assert table.isna().all(axis=1).tolist() == [True, True, True, False]


def test_a_real_slice_turned_reads_the_turn(real_ct, tmp_path):
    from lpdirs.data.build import DataSettings, build_dataset

    build_dataset(real_ct / "lung_pet_ct_dx", tmp_path / "data", DataSettings(size=128, min_lung=0.1))
    slices = open_dataset(tmp_path / "data")
    hu = np.asarray(slices.hu[:: max(1, len(slices) // 10)], np.float32)
    padded = np.pad(hu, ((0, 0), (16, 16), (16, 16)), constant_values=-1000)
    turn = lambda t: np.stack([ndimage.rotate(h, -t, reshape=False, order=1, cval=-1000) for h in padded])
    change = measure(turn(8.0), 3.0)["rotation"] - measure(turn(0.0), 3.0)["rotation"]
    assert abs(change.median() - 8) < 1


def test_z_position_is_read_on_patients_it_was_not_fitted_to(dataset):
    train = open_dataset(dataset, "train")
    held_out = type(train)(train.hu, train.table[train.table["patient"] > "P0011"], train.window)
    fitted = type(train)(train.hu, train.table[train.table["patient"] <= "P0011"], train.window)
    z = fit_z(fitted, held_out)
    assert np.isnan(z(np.full((2, 32, 32), -1000.0))).all(), "air has no level"
    assert z.r > 0.9 and z.error < 0.12 and z.held_out == len(held_out)
    guess = z(to_hu(held_out.tensor()[:, 0].numpy(), held_out.window))
    assert np.corrcoef(guess, held_out.table["true_z"])[0, 1] == pytest.approx(z.r)


def test_too_few_positions_give_no_regression(dataset):
    train = open_dataset(dataset, "train")
    few = type(train)(train.hu, train.table.head(20), train.window)
    assert fit_z(few, train) is None


GRID = (np.mgrid[:128, :128] + 0.5 - 64) * 3.0  # mm


def ellipse(x0=0.0, y0=0.0, a=150.0, b=100.0):
    """A body of soft tissue."""
    return np.where(((GRID[1] - x0) / a) ** 2 + ((GRID[0] - y0) / b) ** 2 < 1, 40.0, -1000.0)


def test_roll_is_not_read_where_the_body_does_not_tell_it():
    one_breast = np.maximum(ellipse(), ellipse(80, -85, 55, 55))
    two_breasts = np.maximum(one_breast, ellipse(-80, -85, 55, 55))
    read = measure(np.stack([ellipse(a=110, b=110), one_breast, two_breasts, ellipse()]), 3.0)
    assert read["rotation"].isna().tolist() == [True, True, False, False]
    assert abs(read["rotation"][2]) < 0.5 and read["thickness"].notna().all()


def test_two_bodies_are_not_measured_as_one():
    together = np.maximum(ellipse(-95, 0, 70, 60), ellipse(95, 0, 70, 60))
    with_an_arm = np.maximum(ellipse(-20, 0, 120, 90), ellipse(150, 0, 22, 22))
    read = measure(np.stack([together, with_an_arm]), 3.0)
    assert read.loc[0].isna().all()
    assert read["width"][1] == pytest.approx(234, abs=4) and read["x_position"][1] == pytest.approx(-20, abs=2)


def test_a_measure_is_lost_where_the_frame_cuts_what_it_reads_and_others_stay():
    sides, front = ellipse(a=200, b=90), ellipse(0, -110)
    read = measure(np.stack([sides, front]), 3.0)
    assert read[["width", "x_position"]].loc[0].isna().all() and read.loc[0, "thickness"] == pytest.approx(180, abs=4)
    assert read.loc[0, "y_position"] == pytest.approx(0, abs=1)
    assert read[["thickness", "y_position", "breast"]].loc[1].isna().all() and read.loc[1, "width"] == pytest.approx(292, abs=4)


def as_animation(hu, path):
    """Frames as a published animation shows them: grey of a stated window, 64 shades, dithered, and read back."""
    grey = [Image.fromarray((np.clip((x + 1000) / 1600, 0, 1) * 255).astype(np.uint8)) for x in hu]
    dithered = [frame.convert("RGB").quantize(64, dither=Image.Dither.FLOYDSTEINBERG) for frame in grey]
    dithered[0].save(path, save_all=True, append_images=dithered[1:], duration=100, loop=0)
    with Image.open(path) as film:
        frames = [np.asarray(frame.convert("L"), np.float32) for frame in ImageSequence.Iterator(film)]
    return np.stack(frames) / 255 * 1600 - 1000


@pytest.mark.parametrize(
    ("factor", "values"),
    [
        ("rotation", np.linspace(-8, 8, 7)),
        ("x_position", np.linspace(-20, 20, 7)),
        ("y_position", np.linspace(-20, 20, 7)),
        ("thickness", np.linspace(0.85, 1.15, 7)),
        ("width", np.linspace(0.85, 1.15, 7)),
        ("breast", np.linspace(0, 30, 7)),
    ],
)
@pytest.mark.parametrize("size", [64, 128])
def test_a_planted_animation_reads_as_its_factor(factor, values, size, tmp_path, measured_and_true):
    """A patient moved by one factor alone: that one is read largest of all, in SDs of a cohort, and monotone."""
    patient = replace(sample_patients(1, 3)[0], breast=10.0)
    of = getattr(patient, factor)
    moved = [replace(patient, **{factor: of * v if factor in ("thickness", "width") else v}) for v in values]
    hu = np.concatenate([render(one, 0.5, size) for one in moved])
    table = measure(
        as_animation(hu, tmp_path / "a.gif"), FOV_MM / size, ("rotation", "x_position", "y_position", "thickness", "width", "breast")
    )
    effects = (table.iloc[-1] - table.iloc[0]).abs() / measured_and_true[0].std()
    assert effects.idxmax() == factor, effects.round(2).to_dict()
    assert (np.diff(table[factor]) > -0.02 * np.ptp(table[factor])).all()


@pytest.mark.parametrize(
    ("name", "true", "least", "t"),
    [
        ("skin_fat", "fat", 0.97, 0.5),
        ("contrast", "contrast", 0.95, 0.5),
        ("mediastinum", "heart", 0.75, 0.65),
        ("lung_density", "respiration", -0.9, 0.5),
    ],
)
def test_what_the_body_is_made_of_agrees_with_the_truth(name, true, least, t):
    patients = sample_patients(40, seed=3)
    read = measure(np.concatenate([render(p, np.array([t]), 128) for p in patients]), FOV_MM / 128, (name,))[name]
    r = np.corrcoef(read, [getattr(p, true) for p in patients])[0, 1]
    assert r * np.sign(least) > abs(least)


@pytest.mark.parametrize(
    ("name", "more", "by"),
    [
        ("lung_share", {"lung": 1.12}, 0.5),
        ("mediastinum", {"heart": 1.18}, 20.0),
        ("contrast", {"contrast": 150.0}, 60.0),
        ("skin_fat", {"fat": 22.0}, 8.0),
    ],
)
def test_more_of_a_tissue_reads_as_more_and_a_turn_as_no_more(name, more, by):
    plain = replace(sample_patients(1, 2)[0], lung=0.9, heart=0.9, contrast=45.0, fat=12.0, rotation=0.0)
    read = lambda p: measure(render(p, np.array([0.6]), 128), FOV_MM / 128, (name,))[name][0]
    assert read(replace(plain, **more)) - read(plain) > by
    assert abs(read(replace(plain, rotation=10.0)) - read(plain)) < by


def test_groups_of_factors_are_chosen_by_name():
    shape, made_of, everything = (lp.thorax((-1000, 400), PIXEL, factors=group).factors for group in ("shape", "tissue", "all"))
    assert everything == shape + made_of and "lung_density" in made_of and "rotation" in shape
    with pytest.raises(UserError, match="factors of the thorax must be shape, tissue, inner, both, all, not 'fat'"):
        lp.thorax((-1000, 400), PIXEL, factors="fat")
