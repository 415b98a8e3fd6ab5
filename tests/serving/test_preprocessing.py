"""The frames against the published preprocessors they follow."""

import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import torch
from skimage import transform
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from benchmarks.segment_anything_reference import reference
from serving.preprocessing import (
    check_image,
    clip_frame,
    medsam_frame,
    sam_frame,
    square_clip_frame,
)
from training.data.phantoms import draw_anatomy, render_slice, window

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


def stretched(image, side):
    """Bicubic stretch of [0, 255], by torch with antialiasing, which PIL's arithmetic has."""
    pixels = torch.from_numpy(image).permute(2, 0, 1).float()[None]
    return torch.nn.functional.interpolate(
        pixels, (side, side), mode="bicubic", antialias=True, align_corners=False
    )[0].clamp(0, 255)


@pytest.mark.parametrize("side", [1024, 160])
@pytest.mark.parametrize("size", [(64, 64), (240, 320), (37, 91), (333, 1000), (1, 1), (2, 1)])
def test_the_medsam_frame_is_stretched_to_all_of_it_and_to_all_grey_levels(size, side):
    image = picture(size, seed=3) // 2 + 30
    expected = stretched(image, side)
    low, high = expected.min(), expected.max()
    pixels = medsam_frame(image, side)
    assert (pixels.shape, pixels.dtype) == ((3, side, side), np.float32)
    assert pixels.flags.c_contiguous
    # PIL rounds to whole grey levels, of which about 128 are used here, after each of two passes.
    atol = 2.5 / float((high - low).clamp(min=1))
    np.testing.assert_allclose(pixels, ((expected - low) / (high - low)).numpy(), atol=atol)
    assert (pixels.min(), pixels.max()) == (0, 1)


@pytest.mark.parametrize(("size", "spacing_mm"), [((512, 512), 0.8), ((224, 288), 1.4)])
@pytest.mark.parametrize("side", [1024, 160])
def test_a_slice_of_ct_has_nearly_the_pixels_that_medsam_gives_it(size, spacing_mm, side):
    hu = render_slice(draw_anatomy(1), 20.0, size_px=size, spacing_mm=spacing_mm).hu
    image = np.repeat(window(hu)[:, :, None], 3, axis=2)
    # MedSAM_Inference.py: order 3, whole grey levels, then min-max.
    resized = transform.resize(
        image, (side, side), order=3, preserve_range=True, anti_aliasing=True
    ).astype(np.uint8)
    scaled = (resized - resized.min()) / (resized.max() - resized.min())
    difference = np.abs(medsam_frame(image, side) - scaled.transpose(2, 0, 1))
    assert difference.mean() < 0.01
    assert np.percentile(difference, 99) < 0.07


def test_a_picture_of_one_value_is_black_in_the_medsam_frame():
    for value in (0, 7, 255):
        assert not medsam_frame(np.full((20, 30, 3), value, np.uint8), 32).any()


def of_llava(image, side):
    """`expand2square` of LLaVA with the processor's mean colour, then the processor."""
    picture = PIL.Image.fromarray(image)
    longer = max(picture.size)
    background = tuple(int(255 * mean) for mean in (0.48145466, 0.4578275, 0.40821073))
    square = PIL.Image.new("RGB", (longer, longer), background)
    square.paste(picture, ((longer - picture.width) // 2, (longer - picture.height) // 2))
    return of_clip(np.asarray(square), side)


@pytest.mark.parametrize("side", [336, 160])
@pytest.mark.parametrize("size", SIZES)
def test_the_square_clip_frame_is_that_of_llava(size, side):
    image = picture(size, seed=4)
    pixels = square_clip_frame(image, side)
    assert (pixels.shape, pixels.dtype) == ((3, side, side), np.float32)
    np.testing.assert_allclose(pixels, of_llava(image, side), rtol=0, atol=2e-6)


def test_a_picture_too_long_for_its_square_is_made_smaller_first():
    image = np.zeros((512, 8192, 3), np.uint8)
    image[:, 4096:] = 255
    pixels = square_clip_frame(image, 64)
    np.testing.assert_allclose(pixels, of_llava(image, 64), rtol=0, atol=0.06)  # 3 grey levels


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
        "import resource, sys, numpy as np; from serving import preprocessing;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "line = np.zeros((1, 65535, 3), np.uint8);"
        "getattr(preprocessing, sys.argv[1])(line, 336);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    for frame, mib in (("clip_frame", 64), ("square_clip_frame", 160), ("medsam_frame", 64)):
        command = [sys.executable, "-c", code, frame]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert int(done.stdout) < mib * 1024  # KiB
    middle = of_clip(line[:, 32000:33535], 336)
    np.testing.assert_allclose(clip_frame(line, 336), middle, atol=2e-6)
