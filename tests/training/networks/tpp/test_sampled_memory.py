"""Each rewrite of the sequential tail against the whole computation it stands for."""

import pytest
import torch

from training.networks.tpp.deformable_layer import DeformableAttention
from training.networks.tpp.memory_read import MemoryRead
from training.networks.tpp.sampled_memory import SampledMemory, convolve_mask, convolve_pixels

SHAPES = [(6, 9), (3, 5), (2, 3), (1, 2)]
PIXELS = sum(h * w for h, w in SHAPES)
CLOSE = {"atol": 1e-4, "rtol": 0}


def example(queries, coordinates):
    torch.manual_seed(4)
    references = torch.rand(2, queries, coordinates) * 1.2 - 0.1  # some samples fall outside
    return torch.randn(2, queries, 32), references, torch.randn(2, PIXELS, 32)


def whole(attention, queries, references, memory):
    return attention(queries, references[:, :, None].expand(-1, -1, 4, -1), memory, SHAPES)


@pytest.mark.parametrize(("queries", "coordinates"), [(1, 4), (5, 2)])
@torch.no_grad()
def test_projecting_only_gathered_pixels_changes_nothing(build, queries, coordinates):
    attention = build(DeformableAttention)
    given, references, memory = example(queries, coordinates)
    found = SampledMemory(memory, SHAPES)(attention, given, references)
    torch.testing.assert_close(found, whole(attention, given, references, memory), **CLOSE)


@torch.no_grad()
def test_splitting_the_memory_convolution_changes_nothing(build):
    convolution = build(MemoryRead).key
    pixels, mask = torch.randn(2, 32, 6, 9), torch.randn(2, 6, 9)
    found = convolve_pixels(convolution, pixels) + convolve_mask(convolution, mask)
    expected = convolution(torch.cat([mask[:, None], pixels], dim=1))
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("queries", [1, 3])
@torch.no_grad()
def test_reading_the_memory_only_for_sampled_pixels_changes_nothing(build, queries):
    attention, memory_read = build(DeformableAttention), build(MemoryRead)
    given, references, memory = example(queries, 4)
    mask, remembered = torch.randn(2, 6, 9), torch.randn(2, 54, 32)
    maps = torch.cat([mask[:, None], remembered.transpose(1, 2).unflatten(2, (6, 9))], dim=1)
    lazy = SampledMemory(memory, SHAPES, memory_read.key(maps), memory_read.value(maps))
    read = memory_read(memory[:, :54], remembered, mask)
    everything = torch.cat([read, memory[:, 54:]], dim=1)
    found = lazy(attention, given, references)
    torch.testing.assert_close(found, whole(attention, given, references, everything), **CLOSE)
    unread = whole(attention, given, references, memory)
    assert (found - unread).abs().max() > 1e-2  # the read does matter here
