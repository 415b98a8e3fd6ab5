import importlib
import importlib.util
import re
import sys
import types
from functools import partial

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    MistralConfig,
    MistralForCausalLM,
    SamMaskDecoderConfig,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

from training.networks.profiles import Profile


@pytest.fixture(scope="session")
def segment_anything():
    """The modules of segment-anything that need torch alone.

    Its __init__ imports torchvision, which nothing here needs.
    """
    spec = importlib.util.find_spec("segment_anything")
    package = types.ModuleType("segment_anything")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["segment_anything"] = package
    yield types.SimpleNamespace(
        build_sam=importlib.import_module("segment_anything.build_sam"),
        modeling=importlib.import_module("segment_anything.modeling"),
    )
    for name in [name for name in sys.modules if name.partition(".")[0] == "segment_anything"]:
        del sys.modules[name]


@pytest.fixture(scope="session")
def randomize():
    """Fills a network so that no parameter is zero and no norm is the identity."""

    def fill(module, seed):
        generator = torch.Generator().manual_seed(seed)
        # The state has SAM's position frequencies too, which are no parameter.
        for name, tensor in module.state_dict().items():
            if name.endswith("gaussian_matrix"):
                spread = 1.0
            elif tensor.ndim == 1 or name.endswith("pos_embed"):
                spread = 0.1
            else:
                spread = tensor[0].numel() ** -0.5
            tensor.normal_(std=spread, generator=generator)
            if "norm" in name and name.endswith("weight"):
                tensor += 1
        return module.eval()

    return fill


@pytest.fixture(scope="session")
def tiny_profile():
    """Sizes for tests: a few thousand parameters, the vocabulary of the demo's tokenizer."""
    return Profile(
        name="tiny",
        sam_vision=SamVisionConfig(
            hidden_size=48,
            output_channels=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=128,
            patch_size=16,
            window_size=3,
            global_attn_indexes=(1,),
            mlp_dim=192,
            num_pos_feats=16,
        ),
        sam_prompt=SamPromptEncoderConfig(hidden_size=32, image_size=128, patch_size=16),
        sam_decoder=SamMaskDecoderConfig(
            hidden_size=32,
            mlp_dim=64,
            num_attention_heads=4,
            iou_head_hidden_dim=32,
            layer_norm_eps=1e-5,
        ),
        clip=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=56,
            patch_size=14,
        ),
        mistral=MistralConfig(
            vocab_size=1536,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            sliding_window=None,
            tie_word_embeddings=False,
        ),
        convolutional_stem=False,
        router_hidden_size=24,
        box_hidden_size=20,
    )


@pytest.fixture(scope="session")
def published_network(segment_anything, randomize, tiny_profile):
    """MediSee as its authors assemble it, of the tiny sizes, with random weights.

    What is frozen is rounded to bfloat16, as the authors' are.
    """
    network = assemble(segment_anything.modeling, tiny_profile)
    # With this seed the mask is neither empty nor everything.
    randomize(network, seed=34)
    for name, tensor in network.state_dict().items():
        if not TRAINED.search(name):
            tensor.copy_(tensor.bfloat16())
    return network


TRAINED = re.compile(r"lora_|embed_tokens|lm_head|mask_decoder|text_hidden|bbox_dec|router_")


@pytest.fixture(scope="session")
def published_state(published_network):
    """The state of `published_network` under the names of the published files."""
    state = {}
    for name, tensor in published_network.state_dict().items():
        # transformers 5 leaves out the level `vision_model`, which the authors' version has.
        renamed = name.replace("vision_tower.vision_tower.", f"{CLIP_LEVELS}.").replace(
            f"{CLIP_LEVELS}.vision_model.", f"{CLIP_LEVELS}."
        )
        state[renamed] = tensor.clone() if TRAINED.search(name) else tensor.bfloat16()
    return state


CLIP_LEVELS = "vision_tower.vision_tower.vision_model"


def assemble(sam, sizes):
    """Attributes and layers as in the authors' code, with LoRA by PEFT around all of it."""
    width, channels = sizes.mistral.hidden_size, sizes.sam_decoder.hidden_size
    config = MistralConfig(**{**sizes.mistral.to_dict(), "vocab_size": 1538})
    language_model = MistralForCausalLM(config)
    body = language_model.model
    grid = (8, 8)
    body.visual_model = sam.Sam(
        image_encoder=sam.ImageEncoderViT(
            depth=2,
            embed_dim=48,
            img_size=128,
            mlp_ratio=4,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            num_heads=2,
            patch_size=16,
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=(1,),
            window_size=3,
            out_chans=channels,
        ),
        prompt_encoder=sam.PromptEncoder(
            embed_dim=channels,
            image_embedding_size=grid,
            input_image_size=(128, 128),
            mask_in_chans=16,
        ),
        mask_decoder=sam.MaskDecoder(
            num_multimask_outputs=3,
            transformer=sam.TwoWayTransformer(
                depth=2, embedding_dim=channels, mlp_dim=64, num_heads=4
            ),
            transformer_dim=channels,
            iou_head_depth=3,
            iou_head_hidden_dim=32,
        ),
    )
    body.vision_tower = nn.Module()
    body.vision_tower.vision_tower = CLIPVisionModel(sizes.clip)
    body.mm_projector = nn.Sequential(
        nn.Linear(sizes.clip.hidden_size, width), nn.GELU(), nn.Linear(width, width)
    )
    body.text_hidden_fcs = nn.ModuleList(
        [
            nn.Sequential(
                nn.Linear(width, width), nn.ReLU(), nn.Linear(width, channels), nn.Dropout(0.0)
            )
        ]
    )
    body.bbox_decoder = nn.Module()
    body.bbox_decoder.layers = nn.ModuleList(
        [nn.Linear(width, 20), nn.Linear(20, 20), nn.Linear(20, 4)]
    )
    for router in ("router_seg", "router_box"):
        module = nn.Module()
        module.gate = nn.Sequential(nn.Linear(2 * width, 24), nn.GELU(), nn.Linear(24, 2))
        setattr(body, router, module)
    targets = [
        name
        for name, module in language_model.named_modules()
        if isinstance(module, nn.Linear)
        and name.startswith("model.layers.")
        and name.endswith(("q_proj", "v_proj"))
    ]
    lora = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.05, target_modules=targets)
    return get_peft_model(language_model, lora)
