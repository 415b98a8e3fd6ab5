"""The two frames against the published preprocessors they follow."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from benchmarks.segment_anything_reference import reference
from serving.preprocessing import check_image, clip_frame, sam_frame

SIZES = [
    (64, 64),
    (240, 320),
    (320, 240),
    (511, 512),
    (37, 91),
    (333, 1000),
    (97, 96),
    (160, 160),
    (161, 159),
    (1, 1),
    (2, 1),
    (1, 3),
    (5, 500),
    (500, 5),
]
"""(H, W): larger and smaller than the frames, odd, extreme, one pixel."""

SLIVERS = [(1, 700), (700, 1), (3, 2000), (2000, 2)]
"""Sides that SAM's own recipe rounds to nothing in a small frame."""


def picture(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def of_sam(image, side):
    """`ResizeLongestSide` and `Sam.preprocess` of segment_anything."""
    transforms = reference("segment_anything.utils.transforms")
    modeling = reference("segment_anything.modeling")
    resized = transforms.ResizeLongestSide(side).apply_image(image)

    class Encoder(torch.nn.Module):
        img_size = side

    sam = modeling.Sam(
        Encoder(),
        None,
        None,
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    )
    pixels = sam.preprocess(torch.from_numpy(resized).permute(2, 0, 1).float())
    return pixels.numpy(), resized.shape[:2]


def of_clip(image, side):
    """Hugging Face's processor with the settings of openai/clip-vit-large-patch14-336."""
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        do_resize=True,
        do_center_crop=True,
        do_rescale=True,
        do_normalize=True,
        do_convert_rgb=True,
        resample=3,
        rescale_factor=1 / 255,
        image_mean=[0.48145466, 0.4578275, 0.40821073],
        image_std=[0.26862954, 0.26130258, 0.27577711],
    )
    # Without the word, a picture of one or three rows is taken for one with channels first.
    inputs = processor(image, return_tensors="np", input_data_format="channels_last")
    return np.asarray(inputs["pixel_values"][0])


@pytest.mark.parametrize("side", [1024, 160])
@pytest.mark.parametrize("size", SIZES)
def test_the_sam_frame_is_that_of_segment_anything(size, side):
    image = picture(size)
    expected, expected_size = of_sam(image, side)
    pixels, input_size = sam_frame(image, side)
    assert input_size == expected_size
    assert (pixels.shape, pixels.dtype) == ((3, side, side), np.float32)
    np.testing.assert_allclose(pixels, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SLIVERS)
def test_a_sliver_keeps_one_row_in_the_sam_frame_where_sams_recipe_fails(size):
    with pytest.raises(ValueError, match="must be > 0"):
        of_sam(picture(size), 160)
    pixels, input_size = sam_frame(picture(size), 160)
    assert sorted(input_size) == [1, 160]
    assert np.isfinite(pixels).all()
    assert pixels[:, : input_size[0], : input_size[1]].any()
    assert not pixels[:, input_size[0] :].any()
    assert not pixels[:, :, input_size[1] :].any()


@pytest.mark.parametrize("side", [336, 160])
@pytest.mark.parametrize("size", [*SIZES, (1, 700), (2000, 2)])
def test_the_clip_frame_is_that_of_hugging_face(size, side):
    image = picture(size, seed=1)
    pixels = clip_frame(image, side)
    assert (pixels.shape, pixels.dtype) == ((3, side, side), np.float32)
    assert pixels.flags.c_contiguous
    np.testing.assert_allclose(pixels, of_clip(image, side), rtol=0, atol=2e-6)


def test_both_frames_take_extremes_of_grey():
    for value in (0, 255):
        image = np.full((40, 30, 3), value, np.uint8)
        np.testing.assert_allclose(clip_frame(image, 32), of_clip(image, 32), atol=2e-6)
        np.testing.assert_allclose(sam_frame(image, 32)[0], of_sam(image, 32)[0], atol=1e-6)


def test_grey_becomes_three_equal_channels_and_colour_stays_as_it_is():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    np.testing.assert_array_equal(check_image(grey), np.concatenate([grey] * 3, axis=2))
    colour = picture((3, 4))
    assert check_image(colour) is colour


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (np.zeros((4, 5), np.uint8), r"expected \(H, W, C\) uint8, got shape \(4, 5\) uint8"),
        (np.zeros((1, 4, 5, 3), np.uint8), r"got shape \(1, 4, 5, 3\)"),
        (np.zeros((4, 5, 3), np.float32), "float32; window CT and MR to 8 bit first"),
        (np.zeros((4, 5, 3), np.int16), "int16"),
        (np.zeros((4, 5, 4), np.uint8), r"got 4; drop an alpha channel with image\[..., :3\]"),
        (np.zeros((4, 5, 2), np.uint8), "got 2"),
        (np.zeros((4, 5, 0), np.uint8), "got 0"),
        (np.zeros((0, 10, 1), np.uint8), "expected at least one pixel, got 0 x 10"),
        (np.zeros((10, 0, 3), np.uint8), "expected at least one pixel, got 10 x 0"),
    ],
)
def test_any_other_picture_is_refused_with_the_way_out(image, text):
    with pytest.raises(ValueError, match=text):
        check_image(image)


def test_a_picture_of_one_line_is_not_scaled_whole():
    line = picture((1, 65535), seed=2)
    code = (
        "import resource, sys, numpy as np; from serving.preprocessing import clip_frame;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "clip_frame(np.zeros((1, 65535, 3), np.uint8), 336);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 64 * 1024  # KiB
    middle = of_clip(line[:, 32000:33535], 336)
    np.testing.assert_allclose(clip_frame(line, 336), middle, atol=2e-6)
