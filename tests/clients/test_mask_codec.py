import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from saymask import mask_codec

masks = hnp.arrays(
    np.bool_,
    st.tuples(st.integers(0, 3), st.integers(1, 20), st.integers(1, 40)),
)


@given(masks)
def test_decoding_what_was_encoded_gives_the_masks_back(masks):
    packed = mask_codec.encode(masks)
    assert packed.dtype == np.uint8
    assert packed.shape == (*masks.shape[:2], -(-masks.shape[2] // 8))
    np.testing.assert_array_equal(mask_codec.decode(packed, masks.shape[2]), masks)


@given(masks)
def test_the_first_pixel_of_a_row_is_the_most_significant_bit(masks):
    packed = mask_codec.encode(masks)
    for x in range(masks.shape[2]):
        np.testing.assert_array_equal((packed[:, :, x // 8] >> (7 - x % 8)) & 1, masks[:, :, x])


@given(masks)
def test_padding_bits_are_written_as_zero_and_ignored_when_read(masks):
    packed, width = mask_codec.encode(masks), masks.shape[2]
    padding = np.uint8((1 << (-width % 8)) - 1)
    assert not (packed[:, :, -1] & padding).any()
    packed[:, :, -1] |= padding
    np.testing.assert_array_equal(mask_codec.decode(packed, width), masks)


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), bool), np.zeros((1, 4, 4), np.uint8)])
def test_encoding_anything_but_a_stack_of_boolean_masks_says_what_came(wrong):
    with pytest.raises(ValueError, match=r"expected \(N, H, W\) bool, got"):
        mask_codec.encode(wrong)


@pytest.mark.parametrize("width", [1, 8, 17, 100])
def test_decoding_with_a_width_that_does_not_fit_is_refused(width):
    with pytest.raises(ValueError, match=f"width {width}: expected"):
        mask_codec.decode(np.zeros((1, 4, 2), np.uint8), width)
