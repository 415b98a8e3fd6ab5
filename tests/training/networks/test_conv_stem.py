import pytest
import torch

from training.networks.conv_stem import ConvStem


@torch.no_grad()
@pytest.mark.parametrize("patch_size", [4, 8, 16, 32])
def test_a_stem_gives_one_vector_per_patch(patch_size):
    stem = ConvStem(40, patch_size)
    assert stem(torch.randn(2, 3, 64, 96)).shape == (2, 40, 64 // patch_size, 96 // patch_size)


@pytest.mark.parametrize("patch_size", [1, 2, 12, 14])
def test_a_stride_that_halving_cannot_reach_is_refused(patch_size):
    with pytest.raises(ValueError, match=f"power of two from 4 on, got {patch_size}"):
        ConvStem(40, patch_size)


def test_neighbouring_patches_see_each_others_edge():
    stem = ConvStem(8, 8).double()
    pixels = torch.zeros(1, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    # The group norms join everything; the direct path must reach beyond one patch of 8 pixels.
    stem(pixels)[0, 0, 1, 1].backward()
    assert pixels.grad[0, 0, 7, 8:16].abs().max() > 0
    assert pixels.grad[0, 0, 8:16, 7].abs().max() > 0


def test_its_type_is_read_where_clip_reads_it():
    assert ConvStem(8, 8).half().weight.dtype == torch.float16
