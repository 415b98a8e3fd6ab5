import numpy as np
import pytest

from training.data.cotexnet_tasks.mask_attributes import COLORS, attributes_of

ROWS, COLUMNS = np.mgrid[:96, :96]
GREY = np.full((96, 96, 3), 125, np.uint8)


def ellipse(row, column, radius_rows, radius_columns, turn_deg=0.0):
    angle = np.deg2rad(turn_deg)
    y, x = ROWS - row, COLUMNS - column
    u, v = y * np.cos(angle) + x * np.sin(angle), x * np.cos(angle) - y * np.sin(angle)
    return (u / radius_rows) ** 2 + (v / radius_columns) ** 2 < 1


def disk(row, column, radius):
    return ellipse(row, column, radius, radius)


@pytest.mark.parametrize(
    ("mask", "shape"),
    [
        (disk(48, 48, 20), "round"),
        (ellipse(48, 48, 24, 14), "oval"),
        (ellipse(48, 48, 30, 8, turn_deg=35), "elongated"),
        (disk(48, 48, 25) & ~disk(48, 48, 15), "ring-shaped"),
        (disk(48, 48, 30) & ~disk(48, 64, 28), "crescent-shaped"),
        (abs(ROWS - 48) < 4, "elongated"),
        ((abs(ROWS - 48) < 6) | (abs(COLUMNS - 48) < 6), "irregular"),
    ],
)
def test_shapes_have_their_words(mask, shape):
    assert attributes_of(GREY, mask).shape == shape


def test_a_shape_does_not_depend_on_how_it_is_turned():
    for turn in range(0, 180, 20):
        assert attributes_of(GREY, ellipse(48, 48, 26, 14, turn)).shape == "oval"


def test_parts_are_counted_without_specks():
    two = disk(20, 20, 10) | disk(70, 70, 10)
    assert attributes_of(GREY, two).number == "two"
    assert attributes_of(GREY, two | disk(20, 80, 2)).number == "two"
    many = np.logical_or.reduce([disk(10 + 18 * i, 10 + 18 * i, 5) for i in range(5)])
    assert attributes_of(GREY, many).number == "several"


@pytest.mark.parametrize(
    ("radius", "size"), [(3, "tiny"), (8, "small"), (15, "medium"), (30, "large")]
)
def test_sizes_are_shares_of_the_picture(radius, size):
    assert attributes_of(GREY, disk(48, 48, radius)).size == size


def test_locations_have_nine_words():
    words = [
        attributes_of(GREY, disk(row, column, 8)).location
        for row in (16, 48, 80)
        for column in (16, 48, 80)
    ]
    assert words == [
        "top left", "top", "top right",
        "left", "center", "right",
        "bottom left", "bottom", "bottom right",
    ]  # fmt: skip


@pytest.mark.parametrize("color", COLORS)
def test_the_color_is_that_of_the_region_not_of_its_surroundings(color):
    mask, image = disk(30, 60, 12), np.full((96, 96, 3), 77, np.uint8)
    image[mask] = COLORS[color]
    image[30, 60] = 0
    assert attributes_of(image, mask).color == color


def test_there_is_nothing_to_say_of_an_empty_mask():
    with pytest.raises(ValueError, match="at least one pixel"):
        attributes_of(GREY, np.zeros((96, 96), bool))
    with pytest.raises(ValueError, match=r"expected \(96, 96, 3\)"):
        attributes_of(GREY[..., 0], disk(48, 48, 5))
