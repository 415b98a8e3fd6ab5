"""The maps against numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from training.networks.cotexnet.maps import ClassTokenMap, InverseZScore, SelfAddedNoise
from training.networks.cotexnet.reading import PAPER, RELEASED, Reading


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def plain(x):
    return x.detach().double().numpy()


@torch.no_grad()
@pytest.mark.parametrize("double", [True, False])
def test_the_released_map_is_a_perceptron_with_one_sigmoid_or_two(profile, double):
    module = ClassTokenMap(profile, Reading(double_sigmoid=double))
    token = torch.randn(4, 24) * 3
    x = plain(token)
    linear = [layer for layer in module.layers if isinstance(layer, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in linear] == [(24, 24), (24, 24), (18, 24)]
    for number, layer in enumerate(linear):
        x = x @ plain(layer.weight).T + plain(layer.bias)
        x = np.maximum(x, 0) if number < 2 else sigmoid(x)
    found = module(token)
    np.testing.assert_allclose(plain(found), sigmoid(x) if double else x, atol=1e-6)
    if double:
        assert found.min() > 0.5
        assert found.max() < 0.7311


@torch.no_grad()
def test_the_papers_map_is_the_projection_of_regions_and_a_sigmoid(profile):
    module = ClassTokenMap(profile, PAPER)
    first, _, second, norm = module.layers
    nn.init.normal_(norm.weight)
    token = torch.randn(4, 24)
    x = plain(token) @ plain(first.weight).T + plain(first.bias)
    x = 0.5 * x * (1 + torch.erf(torch.from_numpy(x) / 2**0.5).numpy())
    x = x @ plain(second.weight).T + plain(second.bias)
    x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    x = x * plain(norm.weight) + plain(norm.bias)
    np.testing.assert_allclose(plain(module(token)), sigmoid(x), atol=1e-5)


def test_noise_starts_at_a_fifth_before_or_after_the_sigmoid():
    text, predicted = torch.randn(2, 7) * 2, torch.rand(2, 7)
    t, c = plain(text), plain(predicted)
    released, paper = SelfAddedNoise(RELEASED), SelfAddedNoise(PAPER)
    np.testing.assert_allclose(
        plain(released(text, predicted)), 0.8 * sigmoid(t) + 0.2 * c, atol=1e-6
    )
    np.testing.assert_allclose(plain(paper(text, predicted)), sigmoid(0.8 * t + 0.2 * c), atol=1e-6)
    released(text, predicted).sum().backward()
    expected = (c - sigmoid(t)).sum()
    assert released.alpha.grad.item() == pytest.approx(expected, rel=1e-4)


def test_the_inverse_z_score_starts_as_in_the_paper():
    embedding = torch.rand(2, 5)
    torch.testing.assert_close(InverseZScore()(embedding), embedding - 0.002)


def test_a_divergence_of_values_needs_noise_that_keeps_them_positive():
    with pytest.raises(ValueError, match="before_sigmoid"):
        Reading(divergence="elementwise")
