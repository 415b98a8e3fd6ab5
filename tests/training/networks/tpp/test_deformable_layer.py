import pytest
import torch
from transformers import DeformableDetrConfig
from transformers.models.deformable_detr.modeling_deformable_detr import (
    DeformableDetrMultiscaleDeformableAttention,
)

from training.networks.tpp.deformable_layer import DeformableAttention

SHAPES = [(6, 9), (3, 5), (2, 3), (1, 2)]


@pytest.mark.parametrize("coordinates", [2, 4])
def test_it_is_deformable_detrs(build, coordinates):
    attention = build(DeformableAttention)
    config = DeformableDetrConfig(d_model=32, num_feature_levels=4)
    oracle = DeformableDetrMultiscaleDeformableAttention(config, num_heads=4, n_points=2)
    oracle.load_state_dict(attention.state_dict())
    pixels = sum(h * w for h, w in SHAPES)
    queries, memory = torch.randn(2, 7, 32), torch.randn(2, pixels, 32)
    references = torch.rand(2, 7, 4, coordinates)
    mask = torch.rand(2, pixels) < 0.8
    expected, _ = oracle(
        queries,
        attention_mask=mask,
        encoder_hidden_states=memory,
        reference_points=references,
        spatial_shapes=torch.tensor(SHAPES),
        spatial_shapes_list=SHAPES,
    )
    found = attention(queries, references, memory, SHAPES, mask)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_heads_start_in_directions_of_their_own(profile):
    attention = DeformableAttention(profile)
    offsets = attention.sampling_offsets(torch.randn(1, 1, 32)).view(4, 4, 2, 2)
    directions = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    for level in range(4):
        torch.testing.assert_close(offsets[:, level, 0], directions)
        torch.testing.assert_close(offsets[:, level, 1], 2 * directions)
