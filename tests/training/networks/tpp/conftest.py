import pytest
import torch
from transformers import ResNetConfig, RobertaConfig

from training.networks.tpp.mask_head import Controller
from training.networks.tpp.network import Tpp
from training.networks.tpp.profile import TppProfile


def tiny(**sizes):
    return TppProfile(
        name="tiny",
        text=RobertaConfig(
            vocab_size=50,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=20,
        ),
        backbone=ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16, 16, 24], depths=[1, 1, 1, 1], layer_type="basic"
        ),
        width=32,
        heads=4,
        points=2,
        encoder_layers=1,
        decoder_layers=2,
        feedforward_size=16,
        queries=3,
        mask_channels=4,
        **sizes,
    )


def randomise(module):
    """Every weight away from its start, so that nothing is zero or one by chance."""
    torch.manual_seed(7)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.ndim > 1 and tensor.is_floating_point():
                tensor.normal_(std=tensor[0].numel() ** -0.5)
            elif name.endswith(("bias", "running_mean")):
                tensor.normal_(std=0.2)
            elif tensor.is_floating_point():
                tensor.uniform_(0.6, 0.9)
        for part in module.modules():
            if isinstance(part, Controller):
                # its convolutions read coordinates in pixels: masks are to stay of order one
                part.layers[-1].weight.mul_(0.25)
                part.layers[-1].bias.mul_(0.25)
    return module.eval()


@pytest.fixture(scope="session")
def profile():
    return tiny()


@pytest.fixture(scope="session")
def build():
    """Build and randomise a part of the tiny network."""
    return lambda part, *arguments: randomise(part(tiny(), *arguments))


@pytest.fixture(scope="session")
def network():
    return randomise(Tpp(tiny()))


@pytest.fixture(scope="session")
def sequences():
    """Two sequences of four frames (2, 4, 3, 70, 101), each with three prompts of its own."""
    torch.manual_seed(1)
    input_ids = torch.randint(3, 50, (2, 3, 9))
    attention_mask = (torch.arange(9) < torch.tensor([[9, 5, 7], [4, 9, 9]])[..., None]).long()
    input_ids[attention_mask == 0] = 1
    return torch.randn(2, 4, 3, 70, 101), input_ids, attention_mask
