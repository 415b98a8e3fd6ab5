import numpy as np
import pytest

from serving.checked_request import CheckedRequest

IMAGE = np.zeros((4, 5, 3), np.uint8)


@pytest.mark.parametrize("image", [IMAGE, IMAGE[..., :1], IMAGE[:1, :1]])
def test_a_request_in_order_passes_as_it_came(image):
    answer = CheckedRequest()(image, " Where? ")
    assert answer["image"] is image
    assert answer["prompt"] == " Where? "


@pytest.mark.parametrize(
    ("image", "prompt", "text"),
    [
        (IMAGE[:0], "where", "at least one pixel"),
        (IMAGE[..., :2], "where", "got 2"),
        (IMAGE.astype(np.float32), "where", "float32"),
        (IMAGE, " \n", "blank"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused(image, prompt, text):
    with pytest.raises(ValueError, match=text):
        CheckedRequest()(image, prompt)
