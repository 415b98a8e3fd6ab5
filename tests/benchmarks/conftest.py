import pytest
import torch

from serving.llava_prompt import LlavaTokenizer
from serving.mediround_prompt import MEDIROUND_ADDED_TOKENS
from training.networks.mediround import MediRound
from training.networks.profiles import demo_profile
from training.run import WEIGHTS


@pytest.fixture(scope="session")
def mediround():
    """MediRound of the demo's sizes, random, and a tokenizer of its vocabulary."""
    tokenizer = LlavaTokenizer(WEIGHTS / "tokenizer.model", MEDIROUND_ADDED_TOKENS)
    profile = demo_profile()
    profile.mistral.vocab_size = tokenizer.processor.get_piece_size()
    torch.manual_seed(0)
    network = MediRound(profile).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name or name.startswith(("jcm", "box_encoder", "text_projection")):
                torch.nn.init.normal_(parameter, std=0.2)
    return network, tokenizer
