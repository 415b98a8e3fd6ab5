import torch
from torch import nn

from training.networks.tpp.attention import Attention


def test_it_is_torchs_multi_head_attention():
    torch.manual_seed(0)
    attention, oracle = Attention(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    parts = (attention.query, attention.key, attention.value)
    with torch.no_grad():
        oracle.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        oracle.in_proj_bias.normal_()
        for part, bias in zip(parts, oracle.in_proj_bias.split(16), strict=True):
            part.bias.copy_(bias)
        oracle.out_proj.weight.copy_(attention.output.weight)
    queries, keys, values = torch.randn(2, 5, 16), torch.randn(2, 7, 16), torch.randn(2, 7, 16)
    mask = torch.arange(7) < torch.tensor([[7], [3]])
    expected, _ = oracle(queries, keys, values, key_padding_mask=~mask)
    torch.testing.assert_close(attention(queries, keys, values, mask), expected)
