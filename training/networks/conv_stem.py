"""A convolutional stem in place of a single patch projection.

From scratch on little data, overlapping convolutions learn edges that one strided projection
does not; the output grid, and so everything after it, stays the same.
"""

import math

from torch import Tensor, nn


class ConvStem(nn.Module):
    """Strided 3 x 3 convolutions down to one vector per patch.

    Args:
        channels: Output width.
        patch_size: Total stride; a power of two from 4 on.
    """

    def __init__(self, channels: int, patch_size: int) -> None:
        super().__init__()
        steps = int(math.log2(patch_size))
        if 2**steps != patch_size or steps < 2:
            raise ValueError(f"patch_size: expected a power of two from 4 on, got {patch_size}")
        widths = [max(24, channels >> (steps - step)) for step in range(1, steps + 1)]
        layers: list[nn.Module] = []
        previous = 3
        for width in widths:
            layers += [
                nn.Conv2d(previous, width, 3, stride=2, padding=1),
                nn.GroupNorm(1, width),
                nn.GELU(),
                nn.Conv2d(width, width, 3, padding=1, groups=width),
                nn.Conv2d(width, width, 1),
                nn.GELU(),
            ]
            previous = width
        layers.append(nn.Conv2d(previous, channels, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, channels, H / patch_size, W / patch_size)."""
        return self.layers(pixels)

    @property
    def weight(self) -> Tensor:
        """CLIP reads the dtype of its patch projection from this attribute."""
        return next(self.layers.parameters())
