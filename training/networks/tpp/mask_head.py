"""Masks by convolutions that each query brings along (CondInst; paper, Eq. 8 and 9)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.networks.tpp.perceptron import Perceptron
from training.networks.tpp.profile import TppProfile

STRIDE = 4
"""Pixels of the frame to one of a mask."""


@dataclass(frozen=True)
class DynamicWeights:
    """The three 1 x 1 convolutions of a query. K = inner channels."""

    features: Tensor
    """(..., K, C): first layer, over mask features."""
    coordinates: Tensor
    """(..., K, 2): first layer, over relative coordinates (x, y)."""
    middle: Tensor
    """(..., K, K)."""
    last: Tensor
    """(..., 1, K)."""
    biases: tuple[Tensor, Tensor, Tensor]
    """(..., K, 1), (..., K, 1), (..., 1, 1)."""


class Controller(nn.Module):
    """Writes the convolutions of a query."""

    def __init__(self, profile: TppProfile) -> None:
        super().__init__()
        self.width, self.channels = profile.width, profile.mask_channels
        inputs, inner = self.width + 2, self.channels
        self.shapes = ((inner, inputs), (inner, inner), (1, inner), (inner, 1), (inner, 1), (1, 1))
        self.layers = Perceptron(
            profile.width, profile.width, sum(math.prod(shape) for shape in self.shapes)
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, hidden: Tensor) -> DynamicWeights:
        """From (..., C)."""
        sizes = [math.prod(shape) for shape in self.shapes]
        parts = [
            part.unflatten(-1, shape)
            for part, shape in zip(self.layers(hidden).split(sizes, -1), self.shapes, strict=True)
        ]
        first, middle, last, *biases = parts
        features, coordinates = first.split([self.width, 2], dim=-1)
        return DynamicWeights(
            features, coordinates, middle, last, (biases[0], biases[1], biases[2])
        )


def dynamic_masks(features: Tensor, weights: DynamicWeights, centers: Tensor) -> Tensor:
    """Mask logits of every query.

    Args:
        features: Mask features (B, C, h, w), at stride 4.
        weights: Of (B, N) queries.
        centers: (B, N, 2) (x, y) of the queries' boxes, in pixels of the frame.

    Returns:
        (B, N, h, w); > 0 is foreground.
    """
    shape = features.shape[2], features.shape[3]
    first = weights.features @ features.flatten(2)[:, None]
    return after_first_layer(first, weights, centers, shape)


def after_first_layer(
    first: Tensor, weights: DynamicWeights, centers: Tensor, shape: tuple[int, int]
) -> Tensor:
    """The rest of `dynamic_masks`, from the first layer's sum over features (..., K, h * w)."""
    relative = centers[..., None] - pixel_centers(shape, centers.device)
    first = (first + weights.coordinates @ relative + weights.biases[0]).relu()
    second = (weights.middle @ first + weights.biases[1]).relu()
    masks = weights.last @ second + weights.biases[2]
    return masks[..., 0, :].unflatten(-1, shape)


def pixel_centers(shape: tuple[int, int], device: torch.device) -> Tensor:
    """(2, h * w): (x, y) of a mask's pixels, in pixels of the frame."""
    height, width = shape
    x = torch.arange(width, device=device).expand(height, width)
    y = torch.arange(height, device=device)[:, None].expand(height, width)
    return torch.stack([x, y]).flatten(1) * STRIDE + STRIDE / 2
