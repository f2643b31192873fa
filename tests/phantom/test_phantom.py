from dataclasses import replace

import numpy as np
import pytest

from lpdirs.data.body import body_masks, lung_fractions
from lpdirs.phantom.painting import FOV_MM, render
from lpdirs.phantom.population import COUCHES, FACTORS, factors_at, sample_patients


def lung_shares(volume):
    return lung_fractions(volume, np.zeros(volume.shape, bool), FOV_MM / volume.shape[-1])


def test_a_patient_does_not_depend_on_how_many_are_drawn():
    assert sample_patients(3, seed=1) == sample_patients(7, seed=1)[:3]
    assert sample_patients(3, seed=1) != sample_patients(3, seed=2)


def test_a_slice_is_the_same_alone_or_among_others():
    patient = sample_patients(1, 0)[0]
    t = np.linspace(0.1, 0.9, 5)
    together = render(patient, t, 64)
    alone = np.concatenate([render(patient, ti, 64) for ti in t])
    assert np.abs(together - alone).max() < 1


def test_slices_show_a_chest_from_shoulders_to_liver():
    for patient in sample_patients(6, 0):
        lung = lung_shares(render(patient, [0.02, 0.4, 0.97], 128))
        assert lung[1] > 0.3, "mid-chest is full of lung"
        assert lung[1] > 2 * lung[0] and lung[1] > 2 * lung[2], "apex and liver hold less"
        liver = render(patient, 0.95, 128, noise=0)[0]
        assert 40 < np.median(liver[60:68, 40:48]) < 160, "soft tissue at the patient's right below the dome"
        assert render(patient, 0.4, 128, noise=0).max() > 300, "bone"


def test_neighbouring_slices_are_neighbours():
    patient = sample_patients(1, 5)[0]
    volume = render(patient, np.linspace(0.1, 0.9, 41), 64, noise=0)
    step = np.abs(np.diff(volume, axis=0)).mean((1, 2))
    far = np.abs(volume[20:] - volume[:-20]).mean()
    assert step.max() < 0.6 * far


def test_factors_are_those_that_were_asked_for():
    patient = sample_patients(1, 2)[0]
    t = np.array([0.2, 0.5, 0.8], np.float32)
    factors = factors_at(patient, t)
    assert list(factors) == list(FACTORS)
    assert np.allclose(factors["z"], t) and np.allclose(factors["breast"], [0, patient.breast, 0])
    assert factors["rotation"][2] - factors["rotation"][0] == pytest.approx(0.6 * patient.twist, abs=1e-4)


def test_true_width_is_the_body_s_extent():
    patient = replace(sample_patients(1, 4)[0], rotation=0.0, twist=0.0, breast=0.0)
    hu = render(patient, 0.55, 256, noise=0)[0]
    columns = np.flatnonzero(body_masks(hu[None])[0].any(0))
    assert (columns[-1] - columns[0] + 1) * FOV_MM / 256 == pytest.approx(factors_at(patient, [0.55])["width"][0], abs=4)


def test_build_sex_and_breath_go_together():
    people = sample_patients(800, 3)
    get = lambda name: np.array([getattr(p, name) for p in people], float)
    together = lambda a, b: np.corrcoef(get(a), get(b))[0, 1]
    assert together("bmi", "width") > 0.5 and together("bmi", "thickness") > 0.5 and together("bmi", "fat") > 0.5
    assert together("width", "thickness") > 0.3 and together("respiration", "lung") > 0.2
    women = get("female") == 1
    assert get("breast")[women].mean() > 25 > 8 > get("breast")[~women].mean() and 0.4 < women.mean() < 0.6
    assert {p.couch for p in people} == set(COUCHES)
    assert 0.02 < (np.abs(get("scoliosis")) > 10).mean() < 0.15


def test_a_bent_spine_bends_sideways():
    straight = replace(sample_patients(1, 4)[0], rotation=0.0, twist=0.0, x_position=0.0)
    t = np.array([0.45, 0.5], np.float32)

    def spine_x(patient):
        bone = render(patient, t, 256, noise=0) > 250
        cavity_back = 128 + int((patient.y_position + 0.3 * factors_at(patient, t)["thickness"][0]) / (FOV_MM / 256))
        columns = bone[:, cavity_back - 4 : cavity_back + 4, 96:160].sum((0, 1))
        return (columns * (np.arange(96, 160) + 0.5 - 128)).sum() / columns.sum() * FOV_MM / 256

    assert spine_x(replace(straight, scoliosis=15.0)) - spine_x(replace(straight, scoliosis=-15.0)) == pytest.approx(30, abs=6)


def test_breathing_out_lifts_the_liver_and_makes_the_lung_denser():
    patient = sample_patients(1, 4)[0]
    t = np.linspace(0.3, 0.9, 13)
    inspired, expired = (render(replace(patient, respiration=r), t, 64, noise=0) for r in (1.0, 0.0))
    area = lambda volume: np.mean(lung_shares(volume))
    assert area(inspired) > 1.03 * area(expired)
    assert np.median(inspired[inspired < -500]) < np.median(expired[(expired < -500) & (expired > -950)]) - 30


def test_every_couch_lies_under_the_back_and_stays_out_of_the_body():
    patient = replace(sample_patients(1, 4)[0], y_position=0.0, breast=0.0)
    masks = []
    for couch in COUCHES:
        hu = render(replace(patient, couch=couch), 0.6, 128, noise=0)[0]
        masks.append(body_masks(hu[None])[0])
        assert (hu[100:, 40:88] > -960).any(), f"{couch} is not in the picture"
    assert all((m ^ masks[0]).mean() < 0.002 for m in masks), "the couch changes what is taken for the body"


def test_a_coronal_cut_looks_like_a_chest():
    """Two lungs that widen from the apex, a mediastinum between, a liver that rises into the right one, ribs that repeat."""
    patient = replace(sample_patients(1, 4)[0], rotation=0.0, twist=0.0, x_position=0.0, y_position=0.0, scoliosis=0.0)
    z = np.linspace(0, 1, 101)
    cut = render(patient, z, 128, noise=0)[:, 66]
    lung = cut < -600
    lung[:, :20] = lung[:, -20:] = False  # the air outside
    wide = lung.sum(1)
    assert wide[5] < wide[20] < wide[45], "widening from the apex"
    assert (cut[55:70, 62:66] > -150).mean() > 0.9, "the heart parts them"
    assert cut[95, 30:50].mean() > 0 > -400 > cut[55, 40:48].mean(), "liver below right lung"
    bone = (cut[25:90, :40] > 200).any(1)  # ribs, cut one after the other along the side
    assert 5 <= np.count_nonzero(np.diff(bone.astype(int)) == 1) <= 10
