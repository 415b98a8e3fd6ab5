import numpy as np
import pytest

from training.data.sequences.cardiac_mri import CardiacCine


@pytest.fixture(scope="module", params=range(3))
def cine(request):
    return CardiacCine(request.param, size_px=96, length=12).render()


def test_the_structures_do_not_overlap_and_are_in_every_frame(cine):
    assert cine.masks.sum(axis=1).max() == 1
    assert cine.masks.any(axis=(2, 3)).all()


def test_the_cavity_beats_and_the_muscle_keeps_its_area(cine):
    area = cine.masks.sum(axis=(2, 3))
    right, ring, left = area.max(axis=0) / area.min(axis=0)
    assert left > 1.4
    assert right > 1.15
    assert ring < 1.3  # 1.12 and the steps of the pixels


def test_the_muscle_encloses_the_left_cavity_and_the_right_one_lies_to_its_left(cine):
    for right, ring, left in cine.masks:
        grown = np.zeros_like(left)
        grown[1:-1, 1:-1] = left[:-2, 1:-1] | left[2:, 1:-1] | left[1:-1, :-2] | left[1:-1, 2:]
        assert not (grown & ~left & ~ring).any()
        assert np.nonzero(right)[1].mean() < np.nonzero(left)[1].mean()


def test_blood_is_bright_and_muscle_dark(cine):
    right, ring, left = (cine.frames[cine.masks[:, k]].mean() for k in range(3))
    assert min(right, left) > 1.6 * ring
