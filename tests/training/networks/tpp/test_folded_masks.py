import torch
from torch import nn

from training.networks.tpp.folded_masks import folded_masks
from training.networks.tpp.mask_head import Controller, DynamicWeights, dynamic_masks


@torch.no_grad()
def test_folding_the_mask_features_into_the_chosen_querys_convolution_changes_nothing(build):
    controller = build(Controller)
    convolution = nn.Conv2d(32, 32, 3, padding=1)
    pyramid, hidden = torch.randn(2, 32, 5, 7), torch.randn(2, 3, 32)
    centers, best = torch.rand(2, 3, 2) * 30, torch.tensor([2, 0])
    every = dynamic_masks(convolution(pyramid), controller(hidden), centers)
    items = torch.arange(2)
    weights = controller(hidden[items, best])
    assert isinstance(weights, DynamicWeights)
    found = folded_masks(pyramid, convolution, weights, centers[items, best])
    torch.testing.assert_close(found, every[items, best], atol=1e-4, rtol=0)
