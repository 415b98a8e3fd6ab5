import pytest
import torch
from peft import get_peft_model_state_dict

from benchmarks.plain_network import plain_network
from export.random_source import random_source
from training.networks.mediround import MediRound
from training.networks.medisee import MediSee
from training.networks.organseg import OrganSeg


@pytest.fixture(scope="module")
def source():
    return random_source("demo")


@pytest.mark.parametrize("system", [MediSee, MediRound, OrganSeg])
def test_every_weight_of_the_source_is_in_the_network(source, system):
    network = plain_network(source, system)
    assert not network.training
    assert network.image_encoder is source.networks.image_encoder
    assert network.llava_image_encoder is source.networks.llava_image_encoder
    for name, part in vars(getattr(source.networks, network.adapter)).items():
        assert getattr(network, name) is part
    language = source.language_model
    state = {
        name.replace(".base_layer", ""): value for name, value in network.base.state_dict().items()
    }
    for name, tensor in language.tensors():
        torch.testing.assert_close(state[name], tensor.float(), rtol=0, atol=0)
    adapter = get_peft_model_state_dict(network.mllm, adapter_name=network.adapter)
    assert adapter.keys() == language.adapters[network.adapter].state.keys()
    for name, tensor in language.adapters[network.adapter].state.items():
        torch.testing.assert_close(adapter[name], tensor.float(), rtol=0, atol=0)
    if system is OrganSeg:
        assert network.adapter not in language.embeddings
    else:
        torch.testing.assert_close(
            network.embed_tokens.weight,
            language.embeddings[network.adapter].float(),
            rtol=0,
            atol=0,
        )
