"""Sizes, data and threads of the tests of training."""

import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    MistralConfig,
    SamMaskDecoderConfig,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

from serving.llava_prompt import MEDISEE_ADDED_TOKENS, LlavaTokenizer
from training.data.templates import TEST_TEMPLATE, TRAIN_TEMPLATE, load_template
from training.networks.profiles import Profile
from training.run import WEIGHTS


@pytest.fixture(scope="session", autouse=True)
def few_threads():
    torch.set_num_threads(1)  # the networks here are too small for more


@pytest.fixture(scope="session")
def train_template():
    return load_template(TRAIN_TEMPLATE)


@pytest.fixture(scope="session")
def test_template():
    return load_template(TEST_TEMPLATE)


@pytest.fixture(scope="session")
def tokenizer():
    """The demo's, with MediSee's added tokens."""
    return LlavaTokenizer(WEIGHTS / "tokenizer.model", MEDISEE_ADDED_TOKENS)


@pytest.fixture(scope="session")
def tiny_profile():
    """The demo's shape at a few thousand parameters and 64 pixels."""
    return Profile(
        name="tiny",
        sam_vision=SamVisionConfig(
            hidden_size=24,
            output_channels=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=64,
            patch_size=8,
            window_size=4,
            global_attn_indexes=(1,),
            mlp_dim=48,
            num_pos_feats=8,
        ),
        sam_prompt=SamPromptEncoderConfig(hidden_size=16, image_size=64, patch_size=8),
        sam_decoder=SamMaskDecoderConfig(
            hidden_size=16, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16
        ),
        clip=CLIPVisionConfig(
            hidden_size=24,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=64,
            patch_size=16,
        ),
        mistral=MistralConfig(
            vocab_size=1536,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=512,
            sliding_window=None,
            tie_word_embeddings=False,
        ),
        convolutional_stem=True,
        router_hidden_size=12,
        box_hidden_size=12,
    )
