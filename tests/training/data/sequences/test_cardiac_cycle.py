import numpy as np
import pytest

from training.data.sequences.cardiac_cycle import ejected, mitral_opening

PHASES = np.linspace(0, 1, 201)


def test_the_volume_falls_to_end_systole_and_comes_back():
    volume = 1 - np.array([ejected(phase) for phase in PHASES])
    assert volume.argmin() == pytest.approx(70, abs=2)  # phase 0.35
    assert (np.diff(volume[:70]) <= 1e-9).all()
    assert (np.diff(volume[85:]) >= -1e-9).all()
    assert volume[0] == volume[-1] == 1
    assert volume.min() == 0
    assert ejected(3.2) == pytest.approx(ejected(0.2))


def test_the_mitral_valve_is_closed_while_blood_is_ejected():
    opening = np.array([mitral_opening(phase) for phase in PHASES])
    assert (opening[PHASES <= 0.42] == 0).all()
    assert opening.max() == 1
    assert 0.42 < PHASES[opening.argmax()] < 0.6  # early filling
