import hashlib

import numpy as np
import PIL.Image
import pytest
import saymask
from saymask import read_image
from saymask.windowing import range_to_show, window_to_uint8

COLOUR = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)


def test_a_colour_png_is_read_as_it_is(tmp_path):
    path = tmp_path / "case 1.v2.png"
    PIL.Image.fromarray(COLOUR).save(path)
    source = read_image(path)
    np.testing.assert_array_equal(source.pixels, COLOUR)
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (source.kind, source.case) == ("picture", "case 1.v2")
    assert source.geometry is source.spacing_mm is source.pixel_area_mm2 is None


def test_grey_stays_one_channel(tmp_path):
    PIL.Image.fromarray(COLOUR[:, :, 0]).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, COLOUR[:, :, :1])


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [(1, lambda p: p), (3, lambda p: p[::-1, ::-1]), (6, lambda p: np.rot90(p, -1))],
)
def test_exif_orientation_is_applied(tmp_path, orientation, upright):
    stored = np.zeros((16, 24), np.uint8)
    stored[:8, :8] = 255
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif, quality=100)
    pixels = read_image(tmp_path / "a.jpg").pixels[:, :, 0]
    np.testing.assert_array_equal(pixels > 127, upright(stored) > 127)


def test_transparency_is_laid_on_black(tmp_path):
    alpha = np.full((6, 9, 1), 255, np.uint8)
    alpha[0] = 0
    PIL.Image.fromarray(np.concatenate([COLOUR, alpha], axis=2)).save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png").pixels
    np.testing.assert_array_equal(pixels[1:], COLOUR[1:])
    assert not pixels[0].any()


def test_palettes_are_looked_up(tmp_path):
    picture = PIL.Image.fromarray(COLOUR).quantize(8)
    picture.save(tmp_path / "a.png")
    truth = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, truth)


def test_sixteen_bits_are_windowed_and_it_is_said(tmp_path):
    values = np.linspace(1000, 3000, 54).astype(np.uint16).reshape(6, 9)
    PIL.Image.fromarray(values).save(tmp_path / "a.png")
    source = read_image(tmp_path / "a.png", window=(1000, 3000))
    np.testing.assert_allclose(source.pixels[:, :, 0], (values - 1000.0) / 2000 * 255, atol=0.51)
    assert source.intensity == "1000..3000 -> 0..255"
    unasked = read_image(tmp_path / "a.png")
    assert unasked.pixels.max() == 255
    assert unasked.intensity == "1009.8..2989.93 (percentiles 0.5 and 99.5) -> 0..255"


@pytest.mark.parametrize(
    ("content", "text"), [(b"", "empty"), (b"hello", "not an image"), (None, "no file")]
)
def test_what_is_no_picture_is_refused(tmp_path, content, text):
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(saymask.InvalidArgument, match=text) as caught:
        read_image(path)
    assert "BytesIO" not in str(caught.value)


def test_a_cut_off_picture_a_folder_and_unfitting_wishes_are_refused(tmp_path):
    path = tmp_path / "a.png"
    PIL.Image.fromarray(COLOUR).save(path)
    for wish in ({"plane": "axial"}, {"slice_index": 1}, {"frame_number": 1}, {"window": (0, 9)}):
        with pytest.raises(saymask.InvalidArgument, match="leave"):
            read_image(path, **wish)
    with pytest.raises(saymask.InvalidArgument, match="low < high"):
        read_image(path, window=(9, 0))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(saymask.InvalidArgument, match="not an image"):
        read_image(path)
    with pytest.raises(saymask.InvalidArgument, match="folder"):
        read_image(tmp_path)


def test_windowing_is_linear_clipped_and_refuses_an_empty_range():
    values = np.array([-5.0, 0, 5, 10, 20, np.nan, np.inf])
    np.testing.assert_array_equal(window_to_uint8(values, 0, 10), [0, 0, 128, 255, 255, 0, 255])
    with pytest.raises(ValueError, match="low < high"):
        window_to_uint8(values, 1, 1)


@pytest.mark.parametrize(
    ("values", "window", "expected"),
    [
        (np.arange(1001), None, (5, 995, "5..995 (percentiles 0.5 and 99.5)")),
        (np.arange(1001), (0, 9), (0, 9, "0..9")),
        (np.eye(20) * 7, (-1, 1), (-1, 1, "-1..1")),
        (np.append(np.zeros(999), 7), None, (0, 7, "0..7 (lowest and highest)")),
        (np.full(9, 3.0), None, (3, 4, "all 3")),
        (np.full(9, np.nan), None, (0, 1, "no finite value")),
    ],
)
def test_the_range_shown_says_where_it_is_from(values, window, expected):
    assert range_to_show(values, window) == expected
