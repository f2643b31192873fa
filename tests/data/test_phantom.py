import numpy as np
import pytest

from lpdirs.data.body import body_mask, lung_fraction
from lpdirs.data.phantom import FACTORS, FOV_MM, factors_at, render, sample_patients


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
        lung = [lung_fraction(hu) for hu in render(patient, [0.02, 0.4, 0.97], 128)]
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
    t = np.array([0.2, 0.8], np.float32)
    factors = factors_at(patient, t)
    assert list(factors) == list(FACTORS)
    assert np.allclose(factors["z"], t) and np.allclose(factors["breast"], patient.breast)
    assert factors["rotation"][1] - factors["rotation"][0] == pytest.approx(0.6 * patient.twist, abs=1e-4)


def test_true_width_is_the_body_s_extent():
    patient = sample_patients(1, 4)[0].__class__(**{**sample_patients(1, 4)[0].__dict__, "rotation": 0.0, "twist": 0.0, "breast": 0.0})
    hu = render(patient, 0.55, 256, noise=0)[0]
    columns = np.flatnonzero(body_mask(hu).any(0))
    assert (columns[-1] - columns[0] + 1) * FOV_MM / 256 == pytest.approx(factors_at(patient, [0.55])["width"][0], abs=4)
