"""A tiny CoTexNet, and Hugging Face's CLIPSeg of the same sizes with the same weights."""

import pytest
import torch
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

from training.networks.cotexnet.network import CoTexNet
from training.networks.cotexnet.profile import CoTexNetProfile, Tower
from training.networks.cotexnet.text_encoder import Prompts

TASKS = {"polyp": 1, "cardiac": 3}


@pytest.fixture(scope="session")
def profile():
    return CoTexNetProfile(
        name="tiny",
        image_size=48,
        patch_size=16,
        vision=Tower(width=24, layers=5, heads=2, feed_forward=48),
        taps=(0, 1, 3),
        text=Tower(width=20, layers=2, heads=2, feed_forward=40),
        vocabulary_size=60,
        text_length=16,
        embedding_width=18,
        decoder=Tower(width=8, layers=3, heads=2, feed_forward=24),
        convolutional_stem=False,
    )


@pytest.fixture(scope="session")
def clipseg(profile):
    """Hugging Face's, without zeros and ones among its weights."""
    config = CLIPSegConfig(
        vision_config={
            "hidden_size": 24,
            "num_hidden_layers": 5,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "image_size": 48,
            "patch_size": 16,
        },
        text_config={
            "hidden_size": 20,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 40,
            "vocab_size": 60,
            "max_position_embeddings": 16,
            "bos_token_id": 58,
            "eos_token_id": 59,
        },
        projection_dim=18,
        extract_layers=[0, 1, 3],
        reduce_dim=8,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=24,
        use_complex_transposed_convolution=True,
    )
    return filled(CLIPSegForImageSegmentation(config), seed=3).eval()


@pytest.fixture
def network(profile, clipseg):
    """CLIPSeg's weights in the frozen parts and in the decoder of the task with one class."""
    network = filled(CoTexNet(profile, TASKS), seed=4).eval()
    vision, text, decoder = clipseg.clip.vision_model, clipseg.clip.text_model, clipseg.decoder
    load(
        network.image_encoder,
        vision,
        {"pre_layrnorm.": "first_norm.", "encoder.layers.": "layers.", "post_layernorm.": None},
    )
    load(
        network.text_encoder,
        text,
        {"final_layer_norm.": "last_norm.", "encoder.layers.": "layers."},
        {"projection.weight": clipseg.clip.text_projection.weight},
    )
    upsampling = "transposed_convolution."
    load(
        network.heads["polyp"].decoder,
        decoder,
        {f"{upsampling}0.": "convolution.", f"{upsampling}2.": "expansion."}
        | {f"{upsampling}4.": "output."},
    )
    return network


@pytest.fixture(scope="session")
def pixels():
    return torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def prompts():
    """Of different lengths; the third is too short for position 5."""
    rows = [[58, *range(words), 59] for words in (9, 12, 3)]
    return Prompts(torch.tensor([row + [59] * (16 - len(row)) for row in rows]), roi_start=5)


def filled(module, seed):
    """Random weights for which no layer is the identity."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        spread = 0.2 if tensor.ndim < 2 else tensor[0].numel() ** -0.5
        tensor.normal_(std=spread, generator=generator)
        if "norm" in name and name.endswith("weight"):
            tensor += 1
    return module


def load(ours, theirs, prefixes, more=()):
    state = dict(more)
    for name, tensor in theirs.state_dict().items():
        for old, new in prefixes.items():
            if name.startswith(old):
                name = new and name.replace(old, new, 1)
                break
        if name:
            state[name] = tensor
    ours.load_state_dict(state)
