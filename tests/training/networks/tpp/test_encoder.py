import torch
from transformers import DeformableDetrConfig
from transformers.models.deformable_detr.modeling_deformable_detr import (
    DeformableDetrEncoder,
    DeformableDetrEncoderLayer,
)

from training.networks.tpp.encoder import Encoder, EncoderLayer, pixel_references
from training.networks.tpp.feature_grid import padded_grid, whole_grid

SHAPES = [(8, 8), (4, 4), (2, 2), (1, 1)]
SIZES = torch.tensor([[37, 64], [64, 50]])


def grids(shapes=SHAPES, sizes=SIZES):
    return [padded_grid(shape, 8 << level, sizes) for level, shape in enumerate(shapes)]


def test_references_are_deformable_detrs():
    ratios = torch.stack([grid.valid_ratio for grid in grids()], dim=1)
    expected = DeformableDetrEncoder.get_reference_points(SHAPES, ratios, torch.device("cpu"))
    torch.testing.assert_close(pixel_references(grids()), expected)


def test_a_layer_is_deformable_detrs(build):
    layer = build(EncoderLayer)
    config = DeformableDetrConfig(
        d_model=32, encoder_attention_heads=4, encoder_n_points=2, encoder_ffn_dim=16
    )
    oracle = DeformableDetrEncoderLayer(config).eval()
    names = {
        "attention.": "self_attn.",
        "feedforward.norm.": "final_layer_norm.",
        "feedforward.layers.0.": "mlp.fc1.",
        "feedforward.layers.3.": "mlp.fc2.",
        "norm.": "self_attn_layer_norm.",
    }
    weights = {}
    for key, tensor in layer.state_dict().items():
        prefix = next(prefix for prefix in names if key.startswith(prefix))
        weights[names[prefix] + key.removeprefix(prefix)] = tensor
    oracle.load_state_dict(weights)
    pixels, positions = torch.randn(2, 2, 85, 32)
    references = pixel_references(grids())
    mask = torch.rand(2, 85) < 0.8
    expected = oracle(
        pixels,
        mask,
        spatial_position_embeddings=positions,
        reference_points=references,
        spatial_shapes=torch.tensor(SHAPES),
        spatial_shapes_list=SHAPES,
    )
    expected = expected[0] if isinstance(expected, tuple) else expected
    found = layer(pixels, positions, references, SHAPES, mask)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_padding_changes_nothing_inside_the_picture(build):
    encoder = build(Encoder)
    shapes = [(5, 8), (3, 4), (2, 2), (1, 1)]  # what 37 x 64 pixels fill of SHAPES
    maps = [torch.randn(1, *shape, 32) for shape in SHAPES]
    pictures = [m[:, :h, :w] for m, (h, w) in zip(maps, shapes, strict=True)]
    device = torch.device("cpu")
    alone = encoder([p.flatten(1, 2) for p in pictures], [whole_grid(s, device) for s in shapes])
    padded = encoder([m.flatten(1, 2) for m in maps], grids(sizes=SIZES[:1]))
    for level, part in enumerate(padded.split([h * w for h, w in SHAPES], dim=1)):
        h, w = shapes[level]
        start = sum(a * b for a, b in shapes[:level])
        expected = alone[:, start : start + h * w].unflatten(1, (h, w))
        found = part.unflatten(1, SHAPES[level])[:, :h, :w]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
