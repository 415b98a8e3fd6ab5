import numpy as np
import pytest
import torch

from benchmarks.differences import differing, differing_pixels, outlines, relative


def test_a_difference_is_relative_to_the_largest_expected_number():
    assert relative(np.array([1.0, -4.0]), torch.tensor([1.5, -4.0])) == pytest.approx(0.125)
    assert relative(np.zeros(3), np.zeros(3)) == 0


def test_another_shape_is_no_answer():
    with pytest.raises(ValueError, match=r"shape \(2,\), expected \(1, 2\)"):
        relative(np.zeros(2), np.zeros((1, 2)))
    assert differing(["a"], ["a", "b"]) == 1


def test_values_are_the_same_or_not():
    assert differing(["a", "b", "c", "d"], ["a", "x", "c", "d"]) == 0.25
    assert differing([], []) == 0


def test_the_worst_mask_counts():
    expected = np.zeros((2, 4, 10), bool)
    packed = np.packbits(expected, axis=-1)
    packed[1, 0, 0] = 0b11000000
    assert differing_pixels(packed, expected) == 2 / 40


def test_an_outline_has_its_pixels_and_its_mean_probability():
    probabilities = torch.tensor([[[0.9, 0.7, 0.2]], [[0.1, 0.2, 0.3]]])
    packed = np.packbits(probabilities.numpy() > 0.5, axis=-1)
    right = np.array([0.8, 0.0])
    assert outlines(packed, right, probabilities) < 1e-6
    assert outlines(packed, np.array([0.8, 0.1]), probabilities) == pytest.approx(0.125)
    assert outlines(packed[::-1].copy(), right, probabilities) == pytest.approx(2 / 3)
