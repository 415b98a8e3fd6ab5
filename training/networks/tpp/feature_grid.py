"""Which pixels of a feature map are picture and which are padding, and where each pixel lies.

Frames are padded on the right and below, so a map's real part is its top left corner.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TEMPERATURE = 10000.0
"""Longest wavelength of the positional encodings, in units of 2 pi."""


@dataclass(frozen=True)
class FeatureGrid:
    """Geometry of one feature map (h, w) of a batch; B = 1 stands for every item."""

    rows: Tensor
    """(B, h) bool: whether the row is picture."""
    columns: Tensor
    """(B, w) bool."""
    padded: bool
    """Whether any item can have padding; without, no mask is computed."""

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w)."""
        return self.rows.shape[1], self.columns.shape[1]

    @property
    def mask(self) -> Tensor | None:
        """(B, h, w) bool, true where there is picture; None if all of it is."""
        return self.rows[:, :, None] & self.columns[:, None] if self.padded else None

    @property
    def valid_ratio(self) -> Tensor:
        """(B, 2): picture's part of the width and of the height, each in (0, 1]."""
        return torch.stack([side.float().mean(dim=1) for side in (self.columns, self.rows)], dim=-1)

    def positions(self, width: int) -> Tensor:
        """Sine encoding of the pixels (DETR), relative to the picture's size: (B, h * w, C).

        The first half of C encodes y, the second x. A padded pixel has the place of the last row
        or column of the picture.
        """
        height_part, width_part = (
            sine((count - 0.5) / (count[:, -1:] + 1e-6), width // 2)
            for count in (self.rows.float().cumsum(dim=1), self.columns.float().cumsum(dim=1))
        )
        items, height, channels = height_part.shape
        columns = width_part.shape[1]
        y = height_part[:, :, None].expand(items, height, columns, channels)
        x = width_part[:, None].expand(items, height, columns, channels)
        return torch.cat([y, x], dim=-1).flatten(1, 2)


def whole_grid(shape: tuple[int, int], device: torch.device) -> FeatureGrid:
    """The grid of a map (h, w) without padding."""
    rows, columns = (torch.ones(1, side, dtype=torch.bool, device=device) for side in shape)
    return FeatureGrid(rows, columns, padded=False)


def padded_grid(shape: tuple[int, int], stride: int, frame_sizes: Tensor) -> FeatureGrid:
    """The grid of a padded map.

    Args:
        shape: (h, w).
        stride: Pixels of the frame to one of the map.
        frame_sizes: (B, 2) (height, width) of the frames before padding, in pixels.
    """
    rows, columns = (
        torch.arange(side, device=frame_sizes.device) * stride < frame_sizes[:, axis, None]
        for axis, side in enumerate(shape)
    )
    return FeatureGrid(rows, columns, padded=True)


def feature_grids(maps: Sequence[Tensor], frame_sizes: Tensor | None) -> list[FeatureGrid]:
    """Grids of maps (B, C, h, w) of strides 4, 8, 16, ...; sizes as in `padded_grid`."""
    grids = []
    for level, features in enumerate(maps):
        shape = features.shape[2], features.shape[3]
        grids.append(
            whole_grid(shape, features.device)
            if frame_sizes is None
            else padded_grid(shape, 4 << level, frame_sizes)
        )
    return grids


def word_positions(mask: Tensor, width: int) -> Tensor:
    """Sine encoding of the words of prompts, relative to each prompt's length.

    Args:
        mask: (..., L) bool, true at words.
        width: C.

    Returns:
        (..., L, C).
    """
    count = mask.float().cumsum(dim=-1)
    return sine(count / (count[..., -1:] + 1e-6), width)


def sine(places: Tensor, channels: int) -> Tensor:
    """Sines and cosines by turns, of `channels` / 2 wavelengths.

    Args:
        places: (...), the whole extent being 0 to 1.
        channels: Even.

    Returns:
        (..., channels).
    """
    exponents = torch.arange(0, channels, 2, dtype=places.dtype, device=places.device) / channels
    angles = places[..., None] * (2 * math.pi) / TEMPERATURE**exponents
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)
