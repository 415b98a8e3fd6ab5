import math

import torch
from transformers.models.deformable_detr.modeling_deformable_detr import (
    DeformableDetrSinePositionEmbedding,
)

from training.networks.tpp.feature_grid import padded_grid, whole_grid, word_positions

SIZES = torch.tensor([[37, 64], [64, 50]])


def hugging_face(shape, mask=None):
    embedding = DeformableDetrSinePositionEmbedding(8, normalize=True)
    size = (1 if mask is None else len(mask), 3, *shape)
    return embedding(torch.Size(size), torch.device("cpu"), torch.float32, mask)


def test_positions_are_detrs():
    grid = whole_grid((5, 7), torch.device("cpu"))
    expected = hugging_face((5, 7)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(grid.positions(16), expected)


def test_positions_of_a_padded_picture_are_detrs_inside_it_and_the_borders_outside():
    grid = padded_grid((8, 8), 8, SIZES)
    positions = grid.positions(16).unflatten(1, (8, 8))
    expected = hugging_face((8, 8), grid.mask).permute(0, 2, 3, 1)
    torch.testing.assert_close(positions[grid.mask], expected[grid.mask])
    torch.testing.assert_close(positions[0, 7], positions[0, 4])  # the picture has five rows


def test_a_pixel_is_picture_if_its_first_pixel_of_the_frame_is():
    grid = padded_grid((8, 8), 8, SIZES)
    assert grid.mask.sum(dim=1).amax(dim=1).tolist() == [5, 8]  # rows: ceil(37 / 8), 64 / 8
    torch.testing.assert_close(grid.valid_ratio, torch.tensor([[1, 5 / 8], [7 / 8, 1]]))


def test_words_are_placed_by_their_share_of_the_prompt():
    positions = word_positions(torch.tensor([[True, True, True, False]]), 6)
    for word in range(3):
        for pair in range(3):
            angle = 2 * math.pi * (word + 1) / 3 / 10000 ** (2 * pair / 6)
            expected = torch.tensor([math.sin(angle), math.cos(angle)])
            torch.testing.assert_close(
                positions[0, word, 2 * pair : 2 * pair + 2], expected, atol=1e-5, rtol=0
            )
