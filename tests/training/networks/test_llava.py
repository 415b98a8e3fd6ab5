from dataclasses import replace

import pytest
import torch
from transformers import CLIPVisionModel

from training.networks.llava import LlavaImageEncoder


@pytest.fixture(scope="module")
def plain_profile(tiny_profile):
    return replace(tiny_profile, convolutional_stem=False)


@torch.no_grad()
@pytest.mark.parametrize("select_layer", [-2, -1, -3])
def test_tokens_are_clips_selected_hidden_state_after_the_projector(plain_profile, select_layer):
    torch.manual_seed(0)
    encoder = LlavaImageEncoder(replace(plain_profile, clip_select_layer=select_layer)).eval()
    whole = CLIPVisionModel(plain_profile.clip).eval()
    fitting = whole.load_state_dict(encoder.vision_tower.state_dict(), strict=False)
    assert not fitting.unexpected_keys
    assert len({key.split("layers.")[1][0] for key in fitting.missing_keys}) == -1 - select_layer
    pixels = torch.randn(2, 3, 64, 64)
    selected = whole(pixels, output_hidden_states=True).hidden_states[select_layer]
    torch.testing.assert_close(encoder.features(pixels), selected)
    first, _, second = encoder.projector
    expected = second(torch.nn.functional.gelu(first(selected)))
    patch_tokens, cls_token = encoder(pixels)
    assert patch_tokens.shape == (2, 16, plain_profile.mistral.hidden_size)
    torch.testing.assert_close(patch_tokens, expected[:, 1:])
    torch.testing.assert_close(cls_token, expected[:, :1])


def test_layers_behind_the_selected_one_are_not_built(plain_profile):
    encoder = LlavaImageEncoder(plain_profile)
    layers = {
        name.split("layers.")[1][0] for name in encoder.state_dict() if "encoder.layers" in name
    }
    assert len(layers) == plain_profile.clip.num_hidden_layers - 1
    assert plain_profile.clip.num_hidden_layers == 3  # the profile itself is not changed


@torch.no_grad()
def test_with_a_convolutional_stem_the_grid_stays_the_same(tiny_profile):
    encoder = LlavaImageEncoder(tiny_profile).eval()
    patch_tokens, cls_token = encoder(torch.randn(1, 3, 64, 64))
    assert patch_tokens.shape == (1, tiny_profile.image_tokens, tiny_profile.mistral.hidden_size)
    assert cls_token.shape == (1, 1, tiny_profile.mistral.hidden_size)
    assert not any(p.shape[-1] == 16 and p.ndim == 4 for p in encoder.parameters())


@torch.no_grad()
def test_a_picture_does_not_change_its_neighbour_in_the_batch(tiny_profile):
    torch.manual_seed(3)
    encoder = LlavaImageEncoder(tiny_profile).eval()
    pixels = torch.randn(3, 3, 64, 64)
    together = encoder(pixels)[0]
    for index in range(3):
        torch.testing.assert_close(encoder(pixels[index : index + 1])[0][0], together[index])
