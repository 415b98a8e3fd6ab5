import torch
from peft import get_peft_model_state_dict

from benchmarks.plain_network import plain_network
from export.random_source import random_source
from training.networks.medisee import ADAPTER


def test_every_weight_of_the_source_is_in_the_network():
    source = random_source("demo")
    network = plain_network(source)
    assert not network.training
    for name, part in vars(source.networks).items():
        assert getattr(network, name) is part
    language = source.language_model
    state = {
        name.replace(".base_layer", ""): value for name, value in network.base.state_dict().items()
    }
    for name, tensor in language.tensors():
        torch.testing.assert_close(state[name], tensor.float(), rtol=0, atol=0)
    adapter = get_peft_model_state_dict(network.mllm, adapter_name=ADAPTER)
    assert adapter.keys() == language.adapters[ADAPTER].state.keys()
    for name, tensor in language.adapters[ADAPTER].state.items():
        torch.testing.assert_close(adapter[name], tensor.float(), rtol=0, atol=0)
    torch.testing.assert_close(
        network.embed_tokens.weight, language.embeddings[ADAPTER].float(), rtol=0, atol=0
    )
