import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from saymask.results import Segmentation
from saymask.square import answer_on_original, pad_to_square


@given(st.integers(1, 30), st.integers(1, 30), st.sampled_from([1, 3]))
def test_an_answer_about_the_square_lands_on_the_same_pixels(height, width, channels):
    pixels = np.random.default_rng(height).integers(1, 256, (height, width, channels), np.uint8)
    square, corner = pad_to_square(pixels)
    assert square.shape == (max(height, width), max(height, width), channels)
    # An "answer" that marks every pixel of the picture, with a box around it in the square.
    row, column = corner
    about_square = Segmentation(
        "q",
        square[:, :, 0] > 0,
        np.float32([column, row, column + width, row + height]),
        0.5,
    )
    answer = answer_on_original(about_square, corner, (height, width))
    assert answer.mask.shape == (height, width)
    assert answer.mask.all()
    np.testing.assert_array_equal(answer.box_xyxy, [0, 0, width, height])
    assert not answer.box_xyxy.flags.writeable
    assert answer.score == 0.5
    assert int(about_square.mask.sum()) == height * width


def test_a_mask_in_the_padding_alone_is_nothing_found():
    mask = np.zeros((9, 9), bool)
    mask[0] = True
    about_square = Segmentation("q", mask, np.float32([0, 0, 9, 1]), 0.5)
    answer = answer_on_original(about_square, (2, 0), (4, 9))
    assert not answer.found
    assert answer.score == 0


def test_a_square_picture_stays_as_it_is():
    pixels = np.arange(75, dtype=np.uint8).reshape(5, 5, 3)
    square, corner = pad_to_square(pixels)
    np.testing.assert_array_equal(square, pixels)
    assert corner == (0, 0)


@pytest.mark.parametrize(("shape", "corner"), [((4, 9, 1), (2, 0)), ((9, 4, 1), (0, 2))])
def test_the_picture_lies_in_the_middle_of_black(shape, corner):
    square, found = pad_to_square(np.full(shape, 7, np.uint8))
    assert found == corner
    assert square[0, 0, 0] == 0
    assert int((square == 7).sum()) == shape[0] * shape[1]
