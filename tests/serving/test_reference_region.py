"""Crop and box against their rule spelled out pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.reference_region import reference_region


def by_pixels(image, mask):
    """The rule of MediRound's evaluation, one pixel at a time."""
    height, width = mask.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    inside = [(y, x) for y, x in pixels if mask[y, x]]
    if sum(image[y, x, 0] > 0 for y, x in inside) <= 9:
        inside = pixels
    lit = [(y, x) for y, x in inside if any(image[y, x] > 0)]
    top, left = min(y for y, _ in lit), min(x for _, x in lit)
    bottom, right = max(y for y, _ in lit) + 1, max(x for _, x in lit) + 1
    side = max(bottom - top, right - left)
    crop = np.zeros((side, side, 3), np.uint8)
    for y, x in lit:
        crop[y - top, x - left] = image[y, x]
    ys, xs = [y for y, _ in inside], [x for _, x in inside]
    return crop, [min(xs) / width, min(ys) / height, max(xs) / width, max(ys) / height]


@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    dark=st.floats(0, 0.95),
    share=st.floats(0, 1),
)
def test_a_region_follows_the_rule(seed, shape, dark, share):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*shape, 3)).astype(np.uint8) * (rng.random((*shape, 1)) > dark)
    image[rng.integers(shape[0]), rng.integers(shape[1]), 2] = 7  # never black all over
    mask = rng.random(shape) < share
    crop, box = reference_region(image, mask)
    expected_crop, expected_box = by_pixels(image, mask)
    np.testing.assert_array_equal(crop, expected_crop)
    np.testing.assert_allclose(box, expected_box, rtol=1e-6)
    assert (crop.dtype, box.dtype) == (np.uint8, np.float32)


def test_an_objects_dark_rim_is_cut_off_its_crop_and_not_off_its_box():
    image = np.zeros((20, 40, 3), np.uint8)
    image[4:10, 8:16] = 90
    mask = np.zeros((20, 40), bool)
    mask[2:12, 6:20] = True
    crop, box = reference_region(image, mask)
    assert crop.shape == (8, 8, 3)
    assert (crop[:6] == 90).all()
    assert (crop[6:] == 0).all()
    np.testing.assert_allclose(box, [6 / 40, 2 / 20, 19 / 40, 11 / 20], rtol=1e-6)


@pytest.mark.parametrize(("lit", "whole"), [(0, True), (9, True), (10, False)])
def test_a_tiny_mask_counts_as_the_whole_picture(lit, whole):
    image = np.full((16, 30, 3), 50, np.uint8)
    mask = np.zeros((16, 30), bool)
    mask[3, 5 : 5 + lit] = True
    crop, box = reference_region(image, mask)
    assert crop.shape[0] == (30 if whole else 10)
    expected = [0, 0, 29 / 30, 15 / 16] if whole else [5 / 30, 3 / 16, 14 / 30, 3 / 16]
    np.testing.assert_allclose(box, expected, rtol=1e-6)


def test_pixels_without_red_do_not_make_a_mask_large_enough():
    image = np.zeros((10, 10, 3), np.uint8)
    image[..., 1] = 200
    mask = np.zeros((10, 10), bool)
    mask[:5] = True
    assert reference_region(image, mask)[0].shape == (10, 10, 3)


def test_a_black_picture_and_another_size_are_refused():
    black = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="every pixel is black"):
        reference_region(black, np.ones((8, 8), bool))
    with pytest.raises(ValueError, match=r"got \(8, 9\) for \(8, 8, 3\)"):
        reference_region(black, np.ones((8, 9), bool))
