"""The committed demo weights: there, small, complete, and fit for the code beside them."""

import json

import numpy as np
import pytest
import torch
from sentencepiece import SentencePieceProcessor

from serving.llava_prompt import MEDISEE_ADDED_TOKENS, LlavaTokenizer, medisee_prompt
from serving.model_config import ROOT
from training.context_cache import load_context
from training.data.batches import collate
from training.data.organs import ORGANS
from training.data.slices import SliceConfig, SliceSampler
from training.data.structures import NAMES
from training.networks.mediround import MediRound
from training.networks.medisee import MediSee
from training.networks.organseg import OrganSeg
from training.networks.profiles import demo_profile
from training.weights_folder import TOKENIZER, load_weights

SYSTEMS = {"medisee": MediSee, "mediround": MediRound, "organseg": OrganSeg}
FOLDER = ROOT / "training" / "weights" / "demo"
LIMIT_BYTES = 25 * 2**20
FILES = (
    "medsam_image_encoder.safetensors",
    "llava_image_encoder.safetensors",
    "mllm_base/config.json",
    "mllm_base/model.safetensors",
    *(f"{name}.safetensors" for name in SYSTEMS),
    *(f"{name}_adapter/adapter_config.json" for name in SYSTEMS),
    *(f"{name}_adapter/adapter_model.safetensors" for name in SYSTEMS),
    TOKENIZER,
)


def test_the_tokenizer_has_the_profiles_vocabulary():
    processor = SentencePieceProcessor(model_file=str(FOLDER / TOKENIZER))
    assert processor.get_piece_size() == demo_profile().mistral.vocab_size
    assert (processor.unk_id(), processor.bos_id(), processor.eos_id()) == (0, 1, 2)


def test_the_weights_are_complete_and_small():
    found = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert {str(path.relative_to(FOLDER)) for path in found} >= set(FILES)
    assert sum(path.stat().st_size for path in found) <= LIMIT_BYTES


@pytest.fixture(scope="module")
def networks():
    profile = demo_profile()
    return {name: load_weights(system(profile), FOLDER) for name, system in SYSTEMS.items()}


@pytest.fixture(scope="module")
def network(networks):
    return networks["medisee"]


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_weights_load_and_every_one_is_finite(networks, name):
    for key, tensor in networks[name].state_dict().items():
        assert torch.isfinite(tensor).all(), key


@pytest.mark.parametrize("name", SYSTEMS)
def test_nothing_that_must_learn_is_still_at_its_start(networks, name):
    for key, tensor in networks[name].state_dict().items():
        if "lora_B" in key:
            assert tensor.abs().max() > 0, key


def test_all_systems_were_trained_on_the_same_shared_networks(networks):
    first = networks["medisee"]
    for other in networks.values():
        for part in ("image_encoder", "llava_image_encoder"):
            for key, tensor in getattr(first, part).state_dict().items():
                assert torch.equal(tensor, getattr(other, part).state_dict()[key]), key


def test_there_is_one_context_cache_and_it_has_every_organ():
    (folder,) = (FOLDER / "organseg_context").iterdir()
    context = load_context(folder)
    assert folder.name == context.version
    assert set(context.organs) == {organ.name for organ in ORGANS}


def test_the_adapter_and_the_base_say_their_kind():
    base = json.loads((FOLDER / "mllm_base" / "config.json").read_text())
    assert base["model_type"] == "mistral"
    assert base["vocab_size"] == demo_profile().mistral.vocab_size
    for name in SYSTEMS:
        adapter = json.loads((FOLDER / f"{name}_adapter" / "adapter_config.json").read_text())
        assert adapter["peft_type"] == "LORA"


def test_two_questions_about_one_picture_get_two_masks(network, train_template):
    profile = network.profile
    sampler = SliceSampler(train_template, SliceConfig(profile.sam_size, square_share=1.0))
    view = sampler.draw(np.random.default_rng(4), NAMES.index("thalamus"))
    batch = collate([view], profile.sam_size)
    tokenizer = LlavaTokenizer(FOLDER / TOKENIZER, MEDISEE_ADDED_TOKENS)
    size = tuple(view.image.shape)
    masks = [
        network.answer(
            batch.sam_pixels[0],
            batch.clip_pixels[0],
            medisee_prompt(tokenizer, question),
            size,
            size,
        ).mask_logits
        > 0
        for question in ("Where is the thalamus?", "Segment the whole brain.")
    ]
    assert masks[0].any()
    assert masks[1].sum() > 4 * masks[0].sum()
