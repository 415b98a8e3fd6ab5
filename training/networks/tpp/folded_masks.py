"""Dynamic masks straight from the pyramid: mask features and first dynamic layer in one.

The 3 x 3 convolution that makes mask features and the first dynamic layer after it are both
linear. Their product is a 3 x 3 convolution to a few channels, whose kernel each query brings.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.tpp.mask_head import DynamicWeights, after_first_layer


def folded_masks(
    pyramid: Tensor, mask_features: nn.Conv2d, weights: DynamicWeights, centers: Tensor
) -> Tensor:
    """What `dynamic_masks` gives for one query of each item, from `mask_features(pyramid)`.

    Args:
        pyramid: (B, C, h, w).
        mask_features: The convolution.
        weights: Of (B,) queries.
        centers: (B, 2) (x, y) of the queries' boxes, in pixels of the frame.

    Returns:
        (B, h, w).
    """
    height, width = pyramid.shape[2], pyramid.shape[3]
    kernels = weights.features @ mask_features.weight.flatten(1)  # (B, K, C * 9)
    kernels = kernels.unflatten(2, (-1, 9)).permute(0, 3, 1, 2)  # (B, 9, K, C)
    # An item's kernel is its own, so one matrix product gives all nine taps, which are then shifted
    # to their places: a convolution of as many groups as items has no dynamic export.
    taps = kernels.flatten(1, 2) @ pyramid.flatten(2)
    taps = F.pad(taps.unflatten(1, (9, -1)).unflatten(3, (height, width)), (1, 1, 1, 1))
    shifted = [
        taps[:, 3 * row + column, :, row : row + height, column : column + width]
        for row in range(3)
        for column in range(3)
    ]
    assert mask_features.bias is not None
    first = torch.stack(shifted).sum(dim=0).flatten(2)
    first = first + weights.features @ mask_features.bias[:, None]
    return after_first_layer(first, weights, centers, (height, width))
