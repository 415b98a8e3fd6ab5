from dataclasses import replace

import pytest
import torch
from transformers import ResNetBackbone, SwinBackbone, SwinConfig

from training.networks.tpp.backbone import STAGES, Backbone
from training.networks.tpp.input_projection import InputProjection

SWIN = SwinConfig(embed_dim=8, depths=[1, 1, 2, 1], num_heads=[1, 2, 2, 2], window_size=3)
FRAMES = torch.randn(2, 3, 70, 101)


def test_frozen_norms_are_batch_norms_that_are_not_trained(profile, build):
    backbone = build(Backbone)
    oracle = ResNetBackbone(backbone.network.config).eval()
    missing, unexpected = oracle.load_state_dict(backbone.network.state_dict(), strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    expected = oracle(FRAMES).feature_maps
    for training in (False, True):
        for found, level in zip(backbone.train(training)(FRAMES), expected, strict=True):
            torch.testing.assert_close(found, level, atol=1e-4, rtol=1e-4)
    assert not any("normalization" in name for name, _ in backbone.named_parameters())


@pytest.mark.parametrize("output_norms", [True, False])
def test_swin_has_norms_on_its_outputs_or_not(profile, output_norms):
    torch.manual_seed(0)
    backbone = Backbone(replace(profile, backbone=SWIN, output_norms=output_norms)).eval()
    config = SwinConfig.from_dict({**SWIN.to_dict(), "out_features": STAGES, "out_indices": None})
    oracle = SwinBackbone(config).eval()
    missing = oracle.load_state_dict(backbone.network.state_dict(), strict=False)[0]
    assert bool(missing) is not output_norms
    output = oracle(FRAMES)
    if output_norms:
        expected = output.feature_maps
    else:  # what enters the norms
        expected = oracle.swin(
            FRAMES,
            output_hidden_states=True,
            always_partition=True,
            output_hidden_states_before_downsampling=True,
        ).reshaped_hidden_states[1:]
    for found, level in zip(backbone(FRAMES), expected, strict=True):
        torch.testing.assert_close(found, level)


def test_strides_are_4_to_32_and_projected_8_to_64(profile, build):
    stages = build(Backbone)(FRAMES)
    assert [tuple(s.shape[1:]) for s in stages] == [
        (8, 18, 26),
        (16, 9, 13),
        (16, 5, 7),
        (24, 3, 4),
    ]
    projection = build(InputProjection)
    levels = projection(stages)
    assert [tuple(level.shape[1:]) for level in levels] == [
        (32, 9, 13),
        (32, 5, 7),
        (32, 3, 4),
        (32, 2, 2),
    ]
    convolution, norm = projection[3]  # made of the last stage itself
    convolved = torch.nn.functional.conv2d(
        stages[3], convolution.weight, convolution.bias, stride=2, padding=1
    )
    grouped = convolved.unflatten(1, (32, 1)).flatten(2)
    mean, var = grouped.mean(2, keepdim=True), grouped.var(2, correction=0, keepdim=True)
    normed = ((grouped - mean) / (var + 1e-5).sqrt()).view_as(convolved)
    expected = normed * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(levels[3], expected, atol=1e-5, rtol=1e-4)
