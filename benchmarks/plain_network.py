"""A whole system in PyTorch, from the same weights that the export serves."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from peft import set_peft_model_state_dict

from export.random_source import random_source
from export.sources import Source, demo_source
from training.networks.profiles import Profile, ProfileName
from training.networks.system import System
from training.run import WEIGHTS
from training.weights_folder import load_base_state

S = TypeVar("S", bound=System)


def source_of(profile: ProfileName, weights: Path = WEIGHTS) -> Source:
    """What the repository of a profile was exported from.

    Args:
        profile: `demo`, or another profile, which then has random weights.
        weights: Folder of the demo weights.
    """
    return demo_source(weights) if profile == "demo" else random_source(profile)


def plain_network(source: Source, system: Callable[[Profile], S]) -> S:
    """Put a source's networks together, in float32 and evaluation mode.

    Args:
        source: With the networks of that system.
        system: `MediSee`, `MediRound` or `OrganSeg`.
    """
    network = system(source.profile)
    network.image_encoder = source.networks.image_encoder
    network.llava_image_encoder = source.networks.llava_image_encoder
    for name, part in vars(getattr(source.networks, network.adapter)).items():
        setattr(network, name, part)
    language = source.language_model
    load_base_state(network, {name: tensor.float() for name, tensor in language.tensors()})
    set_peft_model_state_dict(
        network.mllm,
        {name: tensor.float() for name, tensor in language.adapters[network.adapter].state.items()},
        adapter_name=network.adapter,
    )
    if network.added_tokens:
        with torch.no_grad():
            network.embed_tokens.weight.copy_(language.embeddings[network.adapter])
    return network.eval()
