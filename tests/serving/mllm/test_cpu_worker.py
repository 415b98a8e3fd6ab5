import pytest
import torch
from vllm.lora.layers import LoRAMapping

from serving.mllm.cpu_worker import GroupedLora

WIDTHS = (6, 4)
SLOTS, RANK, INPUTS = 3, 2, 5


def grouped(adapters):
    """The wrapper as vLLM prepares it for a step whose tokens have these adapters (0: none)."""
    wrapper = GroupedLora(max_num_batched_tokens=16, max_batches=16, device="cpu")
    mapping = LoRAMapping(index_mapping=adapters, prompt_mapping=adapters, is_prefill=True)
    slots = [11, None, 22]  # adapter 11 lies in slot 0, adapter 22 in slot 2
    wrapper.update_metadata(mapping, slots, SLOTS, vocab_size=32)
    return wrapper


def matrices():
    torch.manual_seed(0)
    a = tuple(torch.randn(SLOTS, 1, RANK, INPUTS) for _ in WIDTHS)
    b = tuple(torch.randn(SLOTS, 1, width, RANK) for width in WIDTHS)
    return a, b


def expected(x, y, a, b, slots, scale):
    result = y.double().clone()
    for token, slot in enumerate(slots):
        if slot is None:
            continue
        parts = [down[slot, 0].double() @ x[token].double() for down in a]
        result[token] += scale * torch.cat(
            [up[slot, 0].double() @ part for up, part in zip(b, parts, strict=True)]
        )
    return result


@pytest.mark.parametrize(
    ("adapters", "slots"),
    [
        ((11, 11, 11), (0, 0, 0)),
        ((0, 22, 11, 0, 22), (None, 2, 0, None, 2)),
        ((0, 0), (None, None)),
        ((22,), (2,)),
    ],
)
def test_every_token_gets_its_own_adapter(adapters, slots):
    a, b = matrices()
    x, y = torch.randn(len(slots), INPUTS), torch.randn(len(slots), sum(WIDTHS))
    wanted = expected(x, y, a, b, slots, scale=0.5)
    grouped(adapters).add_lora_linear(y, x, a, b, 0.5, WIDTHS)
    torch.testing.assert_close(y.double(), wanted, rtol=1e-5, atol=1e-5)


def test_bfloat16_is_rounded_once():
    a, b = matrices()
    x, y = torch.randn(3, INPUTS).bfloat16(), torch.zeros(3, sum(WIDTHS)).bfloat16()
    wanted = expected(x, y, a, b, (0, 0, 0), scale=1.0)
    grouped((11, 11, 11)).add_lora_linear(y, x, a, b, 1.0, WIDTHS)
    torch.testing.assert_close(y, wanted.bfloat16())
