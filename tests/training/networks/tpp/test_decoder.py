import torch
from transformers import DeformableDetrConfig
from transformers.models.deformable_detr.modeling_deformable_detr import (
    DeformableDetrDecoderLayer,
    inverse_sigmoid,
)

from training.networks.tpp.decoder import Decoder, DecoderLayer, logit

SHAPES = [(6, 9), (3, 5), (2, 3), (1, 2)]
PIXELS = sum(h * w for h, w in SHAPES)
NAMES = {
    "self_attention.query.": "self_attn.q_proj.",
    "self_attention.key.": "self_attn.k_proj.",
    "self_attention.value.": "self_attn.v_proj.",
    "self_attention.output.": "self_attn.o_proj.",
    "self_norm.": "self_attn_layer_norm.",
    "cross_attention.": "encoder_attn.",
    "cross_norm.": "encoder_attn_layer_norm.",
    "feedforward.norm.": "final_layer_norm.",
    "feedforward.layers.0.": "mlp.fc1.",
    "feedforward.layers.3.": "mlp.fc2.",
}


def test_a_layer_is_deformable_detrs(build):
    layer = build(DecoderLayer)
    config = DeformableDetrConfig(
        d_model=32, decoder_attention_heads=4, decoder_n_points=2, decoder_ffn_dim=16
    )
    oracle = DeformableDetrDecoderLayer(config).eval()
    weights = {}
    for key, tensor in layer.state_dict().items():
        prefix = next(prefix for prefix in NAMES if key.startswith(prefix))
        weights[NAMES[prefix] + key.removeprefix(prefix)] = tensor
    oracle.load_state_dict(weights)
    targets, places = torch.randn(2, 2, 3, 32)
    memory, references = torch.randn(2, PIXELS, 32), torch.rand(2, 3, 4, 4)
    expected = oracle(
        targets,
        object_queries_position_embeddings=places,
        reference_points=references,
        spatial_shapes=torch.tensor(SHAPES),
        spatial_shapes_list=SHAPES,
        encoder_hidden_states=memory,
    )
    expected = expected[0] if isinstance(expected, tuple) else expected

    def read(attention, queries, given):
        assert given is references
        return attention(queries, given, memory, SHAPES)

    found = layer(targets, places, references, read)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_centers_become_boxes_and_boxes_are_refined_without_gradients_between_layers(build):
    decoder = build(Decoder)
    seen = []

    def read(attention, queries, references):
        seen.append(references)
        return queries

    centers = torch.rand(2, 3, 2)
    decoded = decoder(torch.randn(2, 3, 32), torch.randn(2, 3, 32), centers, read)
    first, second = (head(h) for head, h in zip(decoder.box_heads, decoded.hidden, strict=True))
    expected = torch.cat(
        [(first[..., :2] + torch.logit(centers)).sigmoid(), first[..., 2:].sigmoid()], dim=-1
    )
    torch.testing.assert_close(decoded.boxes[0], expected)
    torch.testing.assert_close(seen[1], expected)
    assert not seen[1].requires_grad
    torch.testing.assert_close(decoded.boxes[1], (second + torch.logit(expected)).sigmoid())


def test_the_logit_is_deformable_detrs():
    x = torch.tensor([-0.5, 0.0, 1e-7, 0.3, 1.0, 1.5])
    torch.testing.assert_close(logit(x), inverse_sigmoid(x))
