"""The references against the networks in this process, without a server: right ones, wrong ones."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.parity_mediround import MediRoundParity
from benchmarks.parity_medisee import MediSeeParity
from benchmarks.parity_organseg import OrganSegParity
from benchmarks.references.mediround import MediRoundReference, Turn, reference_region
from benchmarks.references.medisee import MediSeeReference
from benchmarks.references.organseg import OrganSegReference
from export.components import onnx_components
from export.mllm_folder import write_mllm_folder
from export.random_source import random_source
from serving import model_config
from serving.context_cache import ContextCache
from serving.llava_prompt import MEDISEE_ADDED_TOKENS, LlavaTokenizer, medisee_prompt
from serving.mediround_prompt import MEDIROUND_ADDED_TOKENS, conversation_prompt
from serving.mediround_prompt import Turn as ServedTurn
from serving.organseg_prompt import organseg_prompt

COMPONENTS = {
    "medisee_router": "_router",
    "medisee_box_decoder": "_box_decoder",
    "medisee_mask_decoder": "_mask_decoder",
    "mediround_box_encoder": "_box_encoder",
    "mediround_text_projection": "_text_projection",
    "mediround_jcm": "_jcm",
    "mediround_mask_decoder": "_mask_decoder",
    "organseg_extractors": "_extractors",
    "organseg_mask_decoder": "_mask_decoder",
}


class InPlace:
    """Stands in for a server: the networks that the export makes components of."""

    def __init__(self, networks, context):
        self.models = onnx_components(networks)
        self.context_cache = ContextCache(context)

    @torch.no_grad()
    def ask(self, model, place=None, **inputs):
        if model == "organseg_context_cache":
            outputs = self.context_cache(inputs["interest"].numpy())
            return outputs | {"cache_version": np.array([outputs["cache_version"]])}
        config = model_config.read(model)
        tensors = [torch.as_tensor(inputs[name]) for name in config.input_names]
        outputs, names = self.models[model](*tensors), config.output_names
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return {name: output.numpy() for name, output in zip(names, outputs, strict=True)}


@pytest.fixture(scope="module")
def source():
    source = random_source("demo")
    torch.manual_seed(3)
    with torch.no_grad():  # wide enough that masks and qualities vary
        for system in (
            source.networks.medisee,
            source.networks.mediround,
            source.networks.organseg,
        ):
            for part in vars(system).values():
                for parameter in part.parameters():
                    if parameter.requires_grad and not (parameter == 1).all():
                        nn.init.normal_(parameter, std=0.1)
    return source


@pytest.fixture(scope="module")
def mllm_folder(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mllm") / "1"
    write_mllm_folder(source.language_model, folder, torch.float32)
    return folder


@pytest.fixture(scope="module")
def references(source, mllm_folder):
    profile, networks = source.profile, source.networks
    return {
        "medisee": MediSeeReference(profile, networks, networks.medisee, mllm_folder),
        "mediround": MediRoundReference(profile, networks, networks.mediround, mllm_folder),
        "organseg": OrganSegReference(
            profile, networks, networks.organseg, source.organseg, mllm_folder
        ),
    }


def parity(served, references, profile, system):
    kinds = {"medisee": MediSeeParity, "mediround": MediRoundParity, "organseg": OrganSegParity}
    return kinds[system](served, references[system], profile)


@torch.no_grad()
@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_agrees_with_its_reference_and_one_with_a_wrong_weight_does_not(
    component, source, references
):
    system, method = component.split("_")[0], COMPONENTS[component]

    def difference(networks):
        served = InPlace(networks, source.organseg.context)
        return getattr(parity(served, references, source.profile, system), method)()

    assert difference(source.networks) < 1e-4
    wrong = deepcopy(source.networks)
    for parameter in onnx_components(wrong)[component].parameters():
        parameter[..., :1] += 0.05
    assert difference(wrong) > 1e-3


@torch.no_grad()
def test_the_context_cache_agrees(source, references):
    served = InPlace(source.networks, source.organseg.context)
    assert parity(served, references, source.profile, "organseg")._context_cache() < 1e-6


def test_prompts_as_texts_are_the_prompts_that_are_served(source, references):
    model_file = source.language_model.tokenizer
    tokenizer = LlavaTokenizer(model_file, MEDISEE_ADDED_TOKENS)
    ids, positions = references["medisee"].prompt("where is it?")
    assert ids[: positions[-1] + 1] == medisee_prompt(tokenizer, "where is it?")

    words = (("where?", 1), ("and its vein?", 0), ("what lies beside both?", 2))
    any_mask = np.zeros((1, 1), bool)
    ids, positions = references["mediround"].prompt(
        [Turn(text, [any_mask] * count) for text, count in words]
    )
    tokenizer = LlavaTokenizer(model_file, MEDIROUND_ADDED_TOKENS)
    served, from_end = conversation_prompt(tokenizer, [ServedTurn(*turn) for turn in words])
    assert ids[: len(served)] == served
    assert positions == [len(served) + position for position in from_end]

    served = organseg_prompt(LlavaTokenizer(model_file), "the spleen?", source.organseg.template)
    assert references["organseg"].token_ids("the spleen?") == served


def test_a_reference_shows_the_crop_and_the_box():
    rgb = np.full((20, 40, 3), 9, np.uint8)
    rgb[5:9, 10] = 0  # the left rim of the object is black
    mask = np.zeros((20, 40), bool)
    mask[5:9, 10:14] = True
    crop, box = reference_region(rgb, mask)
    assert box == [10 / 40, 5 / 20, 13 / 40, 8 / 20]
    assert crop.shape == (4, 4, 3)
    assert (crop[:, :3] == 9).all()
    assert (crop[:, 3] == 0).all()
    mask[5:9, 10:14] = False
    crop, box = reference_region(rgb, mask)
    assert crop.shape == (40, 40, 3)
    assert box == [0, 0, 39 / 40, 19 / 20]
