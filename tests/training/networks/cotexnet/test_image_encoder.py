import pytest
import torch

from training.networks.cotexnet.image_encoder import CoTexNetImageEncoder
from training.networks.cotexnet.profile import demo_profile


@torch.no_grad()
def test_features_and_class_token_are_clipsegs_hidden_states(network, clipseg, pixels):
    features, class_token = network.image_encoder(pixels)
    expected = clipseg.clip.vision_model(
        pixels, interpolate_pos_encoding=False, output_hidden_states=True
    )
    # hidden_states[0] is what the first layer reads.
    for number, layer in enumerate((0, 1, 3)):
        torch.testing.assert_close(features[:, number], expected.hidden_states[layer + 1])
    torch.testing.assert_close(class_token, expected.last_hidden_state[:, 0])
    assert (class_token - expected.pooler_output).abs().max() > 0.01  # before CLIP's last norm


def test_another_size_is_refused(network):
    with pytest.raises(ValueError, match="64"):
        network.image_encoder(torch.zeros(1, 3, 64, 64))


@torch.no_grad()
def test_the_demos_stem_keeps_the_grid():
    profile = demo_profile()
    features, class_token = CoTexNetImageEncoder(profile)(torch.randn(2, 3, 128, 128))
    assert features.shape == (2, 3, 1 + profile.grid**2, 160)
    assert class_token.shape == (2, 160)
