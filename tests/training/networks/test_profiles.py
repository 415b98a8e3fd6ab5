import pytest
import torch

from training.networks.llava import LlavaImageEncoder
from training.networks.medisee_heads import BoxDecoder, DemocraticFusion
from training.networks.profiles import demo_profile, full_profile, profile
from training.networks.sam import PromptedMaskDecoder, SamImageEncoder


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_full_profile_has_the_published_sizes():
    full = full_profile()
    assert (full.image_tokens, full.sam_size, full.clip_size) == (576, 1024, 336)
    with torch.device("meta"):
        sizes = {
            "sam": parameters(SamImageEncoder(full)),
            "decoder": parameters(PromptedMaskDecoder(full).mask_decoder),
            "router": parameters(DemocraticFusion(full).router_box),
            "text": parameters(DemocraticFusion(full).text_projection),
            "box": parameters(BoxDecoder(full)),
            "clip": parameters(LlavaImageEncoder(full).vision_tower),
        }
    # ViT-B of SAM 89.67 M; MediSee's heads as in its checkpoint: 8.39 M, 17.83 M, 2.36 M.
    assert sizes["sam"] == 89_670_912
    assert sizes["router"] == 8192 * 1024 + 1024 + 1024 * 2 + 2
    assert sizes["text"] == 4096 * 4096 + 4096 + 4096 * 256 + 256
    assert sizes["box"] == 4096 * 512 + 512 + 512 * 512 + 512 + 512 * 4 + 4
    assert sizes["decoder"] == 4_058_340
    assert 285e6 < sizes["clip"] < 305e6  # ViT-L/14-336 has 303.5 M, less its last layer


def test_the_demo_is_small():
    demo = demo_profile()
    modules = [SamImageEncoder(demo), PromptedMaskDecoder(demo), LlavaImageEncoder(demo)]
    assert sum(map(parameters, modules)) < 6e6
    assert demo.image_tokens == 100


@pytest.mark.parametrize("name", ["demo", "full", "full-sam"])
def test_a_profile_is_found_by_its_name_and_its_widths_agree(name):
    found = profile(name)
    assert found.name == name
    channels = found.sam_decoder.hidden_size
    assert found.sam_vision.output_channels == found.sam_prompt.hidden_size == channels
    assert found.sam_prompt.image_size == found.sam_size
    assert found.sam_size % found.sam_patch == found.clip_size % found.clip_patch == 0


def test_an_unknown_profile_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"expected one of \['demo', 'full', 'full-sam'\]"):
        profile("huge")
