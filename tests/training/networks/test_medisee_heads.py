"""Routers and box decoder against their formulas in plain torch (MediSee, Eq. 2 and its code)."""

import pytest
import torch

from training.networks.medisee_heads import BoxDecoder, DemocraticFusion, Router


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))  # the exact one


def routed(router, h_box, h_seg):
    """z = W2 GELU(W1 [h_box ; h_seg] + b1) + b2, w = sigmoid(z) / sum, w0 h_box + w1 h_seg."""
    first, _, second = router.gate
    x = torch.cat([h_box, h_seg])
    z = second.weight @ gelu(first.weight @ x + first.bias) + second.bias
    w = 1 / (1 + torch.exp(-z))
    w = w / w.sum()
    return w[0] * h_box + w[1] * h_seg


@pytest.fixture
def fusion(tiny_profile):
    torch.manual_seed(0)
    return DemocraticFusion(tiny_profile)


@torch.no_grad()
def test_a_router_is_its_formula():
    torch.manual_seed(1)
    router = Router(width=6, hidden_size=5)
    h_box, h_seg = torch.randn(7, 6), torch.randn(7, 6)
    expected = torch.stack([routed(router, *pair) for pair in zip(h_box, h_seg, strict=True)])
    torch.testing.assert_close(router(h_box, h_seg), expected)
    torch.testing.assert_close(router(h_box[None], h_seg[None]), expected[None])


@torch.no_grad()
def test_the_first_weight_belongs_to_the_box_token():
    router = Router(width=4, hidden_size=3)
    torch.nn.init.zeros_(router.gate[2].weight)
    router.gate[2].bias.copy_(torch.tensor([20.0, -20.0]))
    h_box, h_seg = torch.randn(4), torch.randn(4)
    torch.testing.assert_close(router(h_box, h_seg), h_box)


@torch.no_grad()
def test_equal_gates_give_the_mean_however_small_both_are():
    # A softmax would, too; sigmoids divided by their sum must not underflow either.
    router = Router(width=4, hidden_size=3)
    torch.nn.init.zeros_(router.gate[2].weight)
    for value in (-30.0, 0.0, 30.0):
        router.gate[2].bias.fill_(value)
        h_box, h_seg = torch.randn(4), torch.randn(4)
        torch.testing.assert_close(router(h_box, h_seg), (h_box + h_seg) / 2)


@torch.no_grad()
def test_fusion_reads_h_seg_first_and_projects_after_routing(fusion, tiny_profile):
    width = tiny_profile.mistral.hidden_size
    h_seg, h_box = torch.randn(3, width), torch.randn(3, width)
    text, box = fusion(torch.stack([h_seg, h_box], dim=1))
    assert text.shape == (3, 1, tiny_profile.sam_decoder.hidden_size)
    assert box.shape == (3, width)
    first, _, second = fusion.text_projection
    for index in range(3):
        pair = h_box[index], h_seg[index]
        torch.testing.assert_close(box[index], routed(fusion.router_box, *pair))
        hidden = torch.relu(first(routed(fusion.router_seg, *pair)))
        torch.testing.assert_close(text[index, 0], second(hidden))


@torch.no_grad()
def test_a_box_decoder_starts_at_the_middle_and_is_a_sigmoid_of_three_layers(tiny_profile):
    torch.manual_seed(2)
    decoder = BoxDecoder(tiny_profile)
    h = torch.randn(5, tiny_profile.mistral.hidden_size)
    torch.testing.assert_close(decoder(h), torch.full((5, 4), 0.5))
    one, _, two, _, three = decoder.layers
    torch.nn.init.normal_(three.weight)
    expected = torch.sigmoid(three(torch.relu(two(torch.relu(one(h))))))
    torch.testing.assert_close(decoder(h), expected)
    assert ((decoder(100 * h) >= 0) & (decoder(100 * h) <= 1)).all()
