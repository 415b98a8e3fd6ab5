import pytest
import torch

from training.networks.cotexnet.head import CoTexNetDecoder, label_map, planes_of


@torch.no_grad()
def test_the_decoder_is_clipsegs(network, clipseg, pixels):
    features, _ = network.image_encoder(pixels)
    condition = torch.randn(3, 18, generator=torch.Generator().manual_seed(1))
    found = network.heads["polyp"].decoder(features, condition)
    expected = clipseg.decoder(tuple(features.unbind(1)), condition).logits
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-5, atol=1e-6)
    assert found.std() > 0.01


@torch.no_grad()
def test_several_classes_have_a_plane_each_and_one_for_the_background(network, profile, pixels):
    head = network.heads["cardiac"]
    assert head(*network.image_encoder(pixels)).shape == (3, 4, 48, 48)
    one, four = CoTexNetDecoder(profile, planes_of(1)), CoTexNetDecoder(profile, planes_of(3))
    four.load_state_dict(
        {
            name: tensor.repeat_interleave(4, dim=-3 if tensor.ndim > 1 else 0)
            if name.startswith("output")
            else tensor
            for name, tensor in one.state_dict().items()
        }
    )
    features, condition = torch.randn(2, 3, 10, 24), torch.randn(2, 18)
    expected = one(features, condition).expand(-1, 4, -1, -1)
    torch.testing.assert_close(four(features, condition), expected)


def test_a_task_without_classes_is_refused():
    with pytest.raises(ValueError, match="background is not counted"):
        planes_of(0)


def test_one_plane_is_thresholded_and_of_several_the_largest_wins():
    binary = torch.tensor([[-0.1, 0.1], [3.0, 0.0]])[None, None]
    assert label_map(binary).tolist() == [[[0, 1], [1, 0]]]
    # Also where all planes are improbable, or several are probable.
    planes = torch.tensor([[-3.0, 2.0], [-4.0, 3.0], [-5.0, 1.0]])[None, :, None]
    assert label_map(planes).tolist() == [[[0, 1]]]
