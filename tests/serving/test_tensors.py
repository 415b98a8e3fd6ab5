"""Values to arrays and back at Triton's boundary."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.model_config import TensorSpec
from serving.tensors import array_of, text_of

TEXT = TensorSpec("text", "TYPE_STRING", (1,))
BOXES = TensorSpec("boxes_xyxy", "TYPE_FP32", (-1, 4))


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8")))
def test_text_survives_the_way_out_and_in(text):
    assert text_of(array_of(text, TEXT), "text") == text


@pytest.mark.parametrize("count", [0, 2])
def test_text_is_exactly_one_string(count):
    with pytest.raises(ValueError, match=rf"shape \({count},\): expected one string"):
        text_of(np.array([b"a"] * count, dtype=object), "prompt")


def test_arrays_pass_in_row_order():
    transposed = np.ones((4, 3), np.float32).T
    assert array_of(transposed, BOXES).flags.c_contiguous


def test_no_rows_are_rows():
    assert array_of(np.empty((0, 4), np.float32), BOXES).shape == (0, 4)


def test_a_batch_axis_stands_before_the_dims():
    assert array_of(np.ones((2, 5, 4), np.float32), BOXES, batched=True).shape == (2, 5, 4)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.ones((3, 4)), "is float64, config.pbtxt says TYPE_FP32"),
        (np.ones((3, 5), np.float32), r"has shape \(3, 5\), config.pbtxt says \(-1, 4\)"),
        (np.ones(4, np.float32), r"has shape \(4,\)"),
        ([1.0], "is a list, expected an array"),
        ("text", "is object"),
    ],
)
def test_what_the_configuration_does_not_say_is_refused(value, reason):
    with pytest.raises(TypeError, match=f"output 'boxes_xyxy' {reason}"):
        array_of(value, BOXES)
