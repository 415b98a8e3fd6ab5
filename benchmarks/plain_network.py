"""The whole of MediSee in PyTorch, from the same weights that the export serves."""

from pathlib import Path

import torch
from peft import set_peft_model_state_dict

from export.random_source import random_source
from export.sources import Source, demo_source
from training.networks.medisee import ADAPTER, MediSee
from training.run import WEIGHTS
from training.weights_folder import load_base_state


def source_of(profile: str, weights: Path = WEIGHTS) -> Source:
    """What the repository of a profile was exported from.

    Args:
        profile: `demo`, or another profile, which then has random weights.
        weights: Folder of the demo weights.
    """
    return demo_source(weights) if profile == "demo" else random_source(profile)  # type: ignore[arg-type]


def plain_network(source: Source) -> MediSee:
    """Put a source's networks together, in float32 and evaluation mode."""
    network = MediSee(source.profile)
    for name, part in vars(source.networks).items():
        setattr(network, name, part)
    language = source.language_model
    load_base_state(network, {name: tensor.float() for name, tensor in language.tensors()})
    set_peft_model_state_dict(
        network.mllm,
        {name: tensor.float() for name, tensor in language.adapters[ADAPTER].state.items()},
        adapter_name=ADAPTER,
    )
    with torch.no_grad():
        network.embed_tokens.weight.copy_(language.embeddings[ADAPTER])
    return network.eval()
