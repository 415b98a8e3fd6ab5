"""The pyramid against torch's own attention, convolutions and norms."""

import torch
import torch.nn.functional as F

from training.networks.tpp.feature_grid import padded_grid, whole_grid
from training.networks.tpp.feature_pyramid import FeaturePyramid

HEADS = 4
CPU = torch.device("cpu")


def attend(attention, queries, keys, values, key_mask=None):
    layers = (attention.query, attention.key, attention.value)
    mask = None if key_mask is None else ~key_mask
    return F.multi_head_attention_forward(
        *(x.transpose(0, 1) for x in (queries, keys, values)),
        queries.shape[-1],
        HEADS,
        torch.cat([layer.weight for layer in layers]),
        torch.cat([layer.bias for layer in layers]),
        None,
        None,
        False,
        0.0,
        attention.output.weight,
        attention.output.bias,
        training=False,
        key_padding_mask=mask,
    )[0].transpose(0, 1)


def flat(maps):
    return maps.flatten(2).transpose(1, 2)


def block_by_torch(block, features, grid, words, places, word_mask, ratio):
    positions = grid.positions(32).transpose(1, 2).unflatten(2, grid.shape)
    positions = positions.expand_as(features)
    coarse = tuple(side // ratio for side in grid.shape)
    small = [flat(F.interpolate(x, coarse, mode="nearest")) for x in (features, positions)]
    queries = small[0] + small[1]
    mask = grid.mask
    if mask is not None:
        mask = F.interpolate(mask.float()[None], coarse, mode="nearest")[0].bool().flatten(1)
    attended = attend(block.self_attention, queries, queries, small[0], mask)
    attended = attended.transpose(1, 2).unflatten(2, coarse)
    attended = F.interpolate(attended, grid.shape, mode="bilinear", align_corners=False)
    x = block.self_norm(flat(features + attended))
    queries = x + flat(positions)
    x = block.word_norm(x + attend(block.word_attention, queries, words + places, words, word_mask))
    first, second = block.feedforward.layers[0], block.feedforward.layers[3]
    x = block.feedforward.norm(x + second(first(x).relu()))
    return x.transpose(1, 2).unflatten(2, grid.shape)


@torch.no_grad()
def check(pyramid, grids):
    torch.manual_seed(3)
    channels = (32, 32, 32, 8)
    maps = [torch.randn(2, c, *g.shape) for c, g in zip(channels, grids, strict=True)]
    words, places = torch.randn(2, 2, 5, 32)
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    expected = None
    for level, ratio in enumerate((1, 2, 4, 8)):
        conv, norm = pyramid.laterals[level]
        x = F.group_norm(F.conv2d(maps[level], conv.weight), 8, norm.weight, norm.bias)
        x = block_by_torch(pyramid.blocks[level], x, grids[level], words, places, mask, ratio)
        if expected is not None:
            x = x + F.interpolate(expected, grids[level].shape, mode="nearest")
        conv, norm = pyramid.outputs[level][0]
        x = F.conv2d(x, conv.weight, padding=1)
        expected = F.group_norm(x, 8, norm.weight, norm.bias).relu()
    found = pyramid(maps, grids, pyramid.keys_values(words, places), mask)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_every_level_reads_itself_and_the_prompt_and_the_coarser_one(build):
    shapes = [(3, 4), (5, 7), (9, 13), (18, 26)]
    check(build(FeaturePyramid), [whole_grid(shape, CPU) for shape in shapes])


def test_padding_is_not_attended_to(build):
    sizes = torch.tensor([[70, 64], [96, 128]])
    shapes = [(3, 4), (6, 8), (12, 16), (24, 32)]
    check(
        build(FeaturePyramid),
        [padded_grid(s, stride, sizes) for s, stride in zip(shapes, (32, 16, 8, 4), strict=True)],
    )
