import numpy as np
import pytest
import torch

from serving.preprocessing import clip_frame, medsam_frame, sam_frame, square_clip_frame
from training.data.batches import boxes_cxcywh, collate
from training.data.slices import Slice

SIDE = 64
SIZES = [(64, 64), (64, 56), (51, 64), (64, 63), (57, 64)]


def view(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = 120 + 80 * torch.sin(rows / 5) + 40 * torch.cos(columns / 3)
    masks = torch.rand(16, 1, 1, generator=generator) * 200 < image[None]
    return Slice(image.byte(), masks, masks.flatten(1).any(dim=1))


def rgb(slice_):
    return np.repeat(slice_.image.numpy()[..., None], 3, axis=2)


@pytest.mark.parametrize("size", SIZES)
def test_the_sam_frame_is_the_servers(size):
    one = view(*size)
    pixels, input_size = sam_frame(rgb(one), SIDE)
    assert input_size == size
    batch = collate([one, view(64, 64)], SIDE)
    torch.testing.assert_close(batch.sam_pixels[0], torch.from_numpy(pixels), rtol=0, atol=1e-6)


def test_the_clip_frame_of_a_square_view_is_the_servers():
    one = view(64, 64)
    pixels = collate([one], SIDE).clip_pixels[0]
    torch.testing.assert_close(
        pixels, torch.from_numpy(clip_frame(rgb(one), SIDE)), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("size", SIZES[1:])
def test_the_clip_frame_of_other_views_is_the_servers_but_for_rounding(size):
    # torch's bicubic kernel is PIL's in float; PIL rounds after each of its two passes.
    one = view(*size)
    pixels = collate([one], SIDE).clip_pixels[0]
    expected = torch.from_numpy(clip_frame(rgb(one), SIDE))
    level = 1 / 255 / 0.26
    assert (pixels - expected).abs().max() < 3 * level


@pytest.mark.parametrize("size", SIZES)
def test_masks_lie_in_the_sam_frame_as_the_picture_does(size):
    one = view(*size)
    masks = collate([one], SIDE).masks[0]
    height, width = size
    assert masks.shape == (16, SIDE, SIDE)
    assert torch.equal(masks[:, :height, :width], one.masks)
    assert not masks[:, height:].any()
    assert not masks[:, :, width:].any()


def test_clip_masks_are_shares_of_cells():
    one = view(64, 64)
    shares = collate([one], SIDE).clip_masks[0]
    expected = one.masks.float().reshape(16, 16, 4, 16, 4).mean(dim=(2, 4))
    torch.testing.assert_close(shares, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES[1:])
def test_clip_masks_follow_the_crop_of_the_clip_frame(size):
    one = view(*size)
    # A mask that is the picture itself, above a grey level, must be where the pixels are.
    level = 140
    one.masks[0] = one.image > level
    batch = collate([one], SIDE)
    grey = (batch.clip_pixels[0, 0] * 0.26862954 + 0.48145466) * 255
    expected = (grey > level).float().reshape(16, 4, 16, 4).mean(dim=(1, 3))
    assert ((batch.clip_masks[0, 0] > 0.5) == (expected > 0.5)).float().mean() > 0.96
    assert batch.clip_masks.min() >= 0
    assert batch.clip_masks.max() <= 1


@pytest.mark.parametrize("size", SIZES)
def test_organsegs_frames_are_the_servers_but_for_rounding(size):
    one = view(*size)
    batch = collate([one], SIDE, whole=[True])
    stretched = torch.from_numpy(medsam_frame(rgb(one), SIDE))
    assert (batch.sam_pixels[0] - stretched).abs().max() < 4 / 255
    squared = torch.from_numpy(square_clip_frame(rgb(one), SIDE))
    grey_level = 1 / 255 / 0.26
    assert (batch.clip_pixels[0] - squared).abs().max() < grey_level  # of the margin's colour


def test_masks_follow_organsegs_frames():
    one = view(51, 64)
    batch = collate([one, one], SIDE, whole=[True, False])
    stretched = torch.nn.functional.interpolate(one.masks[None].float(), (SIDE, SIDE))[0] > 0.5
    assert torch.equal(batch.masks[0], stretched)
    assert torch.equal(batch.masks[1, :, :51], one.masks)
    above = (SIDE - 51) // 2
    inside = torch.zeros(16, SIDE, SIDE)
    inside[:, above : above + 51] = one.masks.float()
    expected = inside.reshape(16, 16, 4, 16, 4).mean(dim=(2, 4))
    torch.testing.assert_close(batch.clip_masks[0], expected, rtol=0, atol=1e-6)


def test_a_box_is_tight_and_its_far_edge_includes_the_pixel():
    masks = torch.zeros(4, 20, 40, dtype=torch.bool)
    masks[0, 3:9, 10:30] = True
    masks[1] = True
    masks[2, 0, 0] = masks[2, 19, 39] = True
    masks[3, 7, 11] = True
    expected = [
        [20 / 40, 6 / 20, 20 / 40, 6 / 20],
        [0.5, 0.5, 1, 1],
        [0.5, 0.5, 1, 1],
        [11.5 / 40, 7.5 / 20, 1 / 40, 1 / 20],
    ]
    torch.testing.assert_close(boxes_cxcywh(masks), torch.tensor(expected))


def test_boxes_of_random_masks_are_those_of_a_search():
    masks = torch.rand(30, 13, 17, generator=torch.Generator().manual_seed(3)) > 0.985
    masks = masks[masks.flatten(1).any(dim=1)]
    for mask, box in zip(masks, boxes_cxcywh(masks), strict=True):
        rows, columns = np.nonzero(mask.numpy())
        x0, x1 = columns.min() / 17, (columns.max() + 1) / 17
        y0, y1 = rows.min() / 13, (rows.max() + 1) / 13
        expected = [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]
        np.testing.assert_allclose(box, expected, atol=1e-6)
