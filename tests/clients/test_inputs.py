import re

import numpy as np
import PIL.Image
import pytest
import saymask
from saymask import InvalidArgument
from saymask._inputs import check_image, check_prompt


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
def test_grey_and_colour_arrays_are_taken_with_channels_last(shape):
    image = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    taken = check_image(image)
    assert taken.shape == (5, 7, shape[2] if len(shape) == 3 else 1)
    np.testing.assert_array_equal(taken.squeeze(), image.squeeze())


def test_a_view_with_strides_is_sent_in_its_own_order():
    image = np.arange(24, dtype=np.uint8).reshape(4, 6)[:, ::-2]
    taken = check_image(image)
    assert taken.flags.c_contiguous
    np.testing.assert_array_equal(taken[:, :, 0], image)


def test_pil_images_of_mode_l_1_and_rgb_are_taken():
    grey = PIL.Image.new("L", (7, 5), 9)
    assert check_image(grey).shape == (5, 7, 1)
    assert check_image(grey.convert("1")).max() in (0, 255)
    assert check_image(grey.convert("RGB")).shape == (5, 7, 3)


def test_a_path_is_read(tmp_path):
    PIL.Image.new("RGB", (7, 5), (1, 2, 3)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(check_image(tmp_path / "a.png")[0, 0], [1, 2, 3])
    assert check_image(str(tmp_path / "a.png")).shape == (5, 7, 3)


@pytest.mark.parametrize(
    ("image", "found", "way_out"),
    [
        (np.zeros((0, 5), np.uint8), "empty", "check how it was read"),
        (np.zeros((5, 5, 4), np.uint8), "(5, 5, 4)", "image[..., :3]"),
        (np.zeros((5, 5, 2), np.uint8), "(5, 5, 2)", "image[..., :1]"),
        (np.zeros((3, 5, 5), np.uint8), "(3, 5, 5)", "transpose(1, 2, 0)"),
        (np.zeros((30, 40, 50), np.uint8), "(30, 40, 50)", "one slice"),
        (np.zeros((1, 5, 5, 3), np.uint8), "(1, 5, 5, 3)", "one image a call"),
        (np.zeros(5, np.uint8), "(5,)", "check how it was read"),
        (np.zeros((5, 5), np.float32), "float32", "window_to_uint8"),
        (np.full((5, 5), np.nan), "float64 with NaN", "window_to_uint8"),
        (np.zeros((5, 5), np.int16), "int16", "window_to_uint8"),
        (np.zeros((5, 5), bool), "bool", "np.uint8(255)"),
        (PIL.Image.new("RGBA", (5, 5)), "'RGBA'", "convert('RGB')"),
        (PIL.Image.new("I;16", (5, 5)), "'I;16'", "window_to_uint8"),
        ([[1, 2]], "builtins.list", "np.asarray"),
    ],
)
def test_an_image_that_cannot_be_sent_is_refused_with_what_came_and_the_way_out(
    image, found, way_out
):
    with pytest.raises(InvalidArgument, match=re.escape(found)) as caught:
        check_image(image)
    assert way_out in str(caught.value)
    assert caught.value.code is None
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("", "empty"),
        (" \n", "empty"),
        (b"liver", "decode"),
        (None, "NoneType"),
        (["a", "b"], "segment_many"),
        ("\ud800", "UTF-8"),
    ],
)
def test_a_prompt_that_is_no_text_is_refused(prompt, text):
    with pytest.raises(InvalidArgument, match=text):
        check_prompt(prompt)


def test_one_str_is_not_taken_for_a_list_of_questions():
    with pytest.raises(InvalidArgument, match="use segment, or"), saymask.Client() as client:
        client.segment_many(np.zeros((5, 5), np.uint8), "thalamus")


@pytest.mark.parametrize(
    "url", ["http://localhost:8000", "localhost", ":8001", "localhost:grpc", "localhost:99999", ""]
)
def test_an_address_that_is_not_host_and_port_is_refused(url):
    with pytest.raises(InvalidArgument, match="localhost:8001"):
        saymask.Client(url)


@pytest.mark.parametrize("timeout_s", [0, -1, float("inf"), float("nan"), "5"])
def test_a_timeout_must_be_positive_seconds(timeout_s):
    with pytest.raises(InvalidArgument, match="timeout_s"):
        saymask.Client(timeout_s=timeout_s)


@pytest.mark.parametrize("count", [0, -1, 2.0, None])
@pytest.mark.parametrize("kind", [saymask.Client, saymask.aio.Client])
def test_a_number_in_flight_must_be_a_count(kind, count):
    with pytest.raises(InvalidArgument, match="max_in_flight"):
        kind(max_in_flight=count)


def test_a_certificate_that_cannot_be_read_is_refused_by_name(tmp_path):
    with pytest.raises(InvalidArgument, match=r"none\.pem"):
        saymask.Client(tls=saymask.Tls(root_certificates=tmp_path / "none.pem"))


def test_an_image_larger_than_the_channel_allows_is_refused_before_sending():
    with (
        saymask.Client("localhost:1", max_message_bytes=100_000) as client,
        pytest.raises(InvalidArgument, match="max_message_bytes"),
    ):
        client.segment(np.zeros((400, 400), np.uint8), "liver")
