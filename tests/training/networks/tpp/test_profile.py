import pytest
import torch

from training.networks.tpp.network import Tpp
from training.networks.tpp.profile import demo_profile, full_profile


def parameters(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def test_the_full_profile_has_the_parameters_of_the_released_code():
    with torch.device("meta"):
        network = Tpp(full_profile())
    levels = network.encoder.level_embed.numel()
    assert parameters(network.backbone) == 23_454_912
    assert parameters(network.input_projection) == 5_639_168
    assert parameters(network.text_encoder.roberta) == 124_645_632
    assert parameters(network.text_encoder.resizer) == 197_376
    assert parameters(network.interaction) == 395_009
    assert parameters(network.encoder) - levels == 5_128_704
    assert parameters(network.memory_read) == 1_184_768
    assert parameters(network.decoder) == 6_713_872
    assert parameters(network.class_heads, network.query_embed, network.reference) + levels == 3_846
    assert parameters(network.pyramid, network.mask_features) == 9_530_624
    assert parameters(network.controller) == 684_905
    assert parameters(network.track_embedding) == 132_096
    assert parameters(network) == 177_710_912


@pytest.mark.parametrize(
    ("backbone", "its_parameters", "without_text"),
    # Video-Swin-T has 27.84 M: its tables of positions also hold the offsets in time, which a
    # single frame never reads.
    [("swin_l", 195.0e6, 223.2e6), ("video_swin_t", 27.52e6, 53.57e6)],
)
def test_the_other_backbones_have_the_published_sizes(backbone, its_parameters, without_text):
    with torch.device("meta"):
        network = Tpp(full_profile(backbone))
    assert parameters(network.backbone) == pytest.approx(its_parameters, rel=1e-3)
    text = parameters(network.text_encoder.roberta)
    assert parameters(network) - text == pytest.approx(without_text, rel=1e-3)


def test_the_demo_profile_is_small():
    with torch.device("meta"):
        assert parameters(Tpp(demo_profile())) < 4e6


def test_an_unknown_backbone_is_refused():
    with pytest.raises(ValueError, match="backbone: expected one of"):
        full_profile("vgg")
