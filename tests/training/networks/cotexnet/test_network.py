"""The network in one piece: what is conditioned by what, and the sizes the paper's network has."""

import pytest
import torch

from training.networks.cotexnet.network import CoTexNet
from training.networks.cotexnet.profile import demo_profile, full_profile
from training.networks.cotexnet.text_encoder import Prompts


@pytest.fixture
def roi_pixels():
    return torch.randn(3, 1, 3, 48, 48, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def test_training_is_conditioned_by_the_text_with_noise(
    network, clipseg, pixels, prompts, roi_pixels
):
    """Assembled from CLIPSeg's parts, in the order of the released code."""
    output = network("polyp", pixels, prompts, roi_pixels)
    vision = clipseg.clip.vision_model(
        pixels, interpolate_pos_encoding=False, output_hidden_states=True
    )
    head, teacher = network.heads["polyp"], network.teachers["polyp"]
    predicted = head.class_token_map.layers(vision.last_hidden_state[:, 0]).sigmoid().sigmoid()
    of_roi = clipseg.clip.vision_model(roi_pixels[:, 0], interpolate_pos_encoding=False)
    text = network.text_encoder(prompts, teacher.roi_map(of_roi.last_hidden_state[:, :1]))
    alpha, scale, shift = (
        teacher.noise.alpha,
        head.inverse_z_score.scale,
        head.inverse_z_score.shift,
    )
    noisy = (1 - alpha) * text.sigmoid() + alpha * predicted
    hidden_states = tuple(vision.hidden_states[layer + 1] for layer in (0, 1, 3))
    expected = clipseg.decoder(hidden_states, noisy * scale + shift).logits
    torch.testing.assert_close(output.mask_logits[:, 0], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.class_embedding, predicted)
    torch.testing.assert_close(output.text_embedding, text)
    torch.testing.assert_close(output.noisy_embedding, noisy)


@torch.no_grad()
def test_the_text_changes_training_masks_and_served_masks_not_at_all(network, pixels, prompts):
    others = Prompts(prompts.token_ids.flip(0), prompts.roi_start)
    first, second = network("polyp", pixels, prompts), network("polyp", pixels, others)
    assert (first.text_embedding - second.text_embedding).abs().max() > 0.01
    assert (first.mask_logits - second.mask_logits).abs().max() > 1e-3
    served = [
        network.heads["polyp"].decode(output.features, output.class_embedding)
        for output in (first, second)
    ]
    assert served[0].equal(served[1])
    assert served[0].equal(network.segment("polyp", pixels))


def test_what_is_learned_hangs_on_the_loss(network, pixels, prompts, roi_pixels):
    """The regions reach their map through the frozen text encoder."""
    network("polyp", pixels, prompts, roi_pixels).mask_logits.square().mean().backward()
    for part in (network.heads["polyp"], network.teachers["polyp"]):
        for name, parameter in part.named_parameters():
            assert parameter.grad.abs().max() > 0, name
    assert all(p.grad is None for p in network.heads["cardiac"].parameters())


def test_an_unknown_task_is_refused_with_the_known_ones(network, pixels):
    with pytest.raises(LookupError, match=r"\['cardiac', 'polyp'\], got 'liver'"):
        network.segment("liver", pixels)


def parameters(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def test_the_full_profile_has_the_published_sizes():
    with torch.device("meta"):
        network = CoTexNet(full_profile(), {"kvasir": 1, "acdc": 3})
    kvasir, teacher = network.heads["kvasir"], network.teachers["kvasir"]
    unread_norm, visual_projection, logit_scale = 2 * 768, 768 * 512, 1
    assert parameters(network.image_encoder) + unread_norm == 85_799_424
    text, projection = parameters(network.text_encoder), 512 * 512
    assert text - projection == 63_165_952
    assert projection + visual_projection + logit_scale == 655_361
    assert parameters(kvasir.class_token_map) == 1_574_912
    assert parameters(kvasir.decoder) == 1_127_009
    assert parameters(network.heads["acdc"].decoder) == 1_128_548
    assert parameters(teacher.roi_map) == 657_408
    assert parameters(kvasir.inverse_z_score, teacher.noise) == 3
    assert parameters(kvasir, teacher) == 3_359_332
    assert parameters(network.image_encoder, kvasir) / 1e6 == pytest.approx(88.50, abs=0.005)


def test_the_demo_profile_is_a_few_million_parameters():
    with torch.device("meta"):
        network = CoTexNet(demo_profile(), {str(n): 1 for n in range(5)})
    assert parameters(network) < 4e6
