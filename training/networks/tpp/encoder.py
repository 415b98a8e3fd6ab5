"""Deformable transformer encoder: pixels of four levels read one another."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.networks.tpp.deformable_layer import DeformableAttention, Shapes
from training.networks.tpp.feature_grid import FeatureGrid
from training.networks.tpp.perceptron import FeedForward
from training.networks.tpp.profile import LEVELS, TppProfile


class EncoderLayer(nn.Module):
    """Deformable self-attention and feed-forward block, normalised after each."""

    def __init__(self, profile: TppProfile) -> None:
        super().__init__()
        self.attention = DeformableAttention(profile)
        self.dropout = nn.Dropout(profile.dropout)
        self.norm = nn.LayerNorm(profile.width)
        self.feedforward = FeedForward(profile.width, profile.feedforward_size, profile.dropout)

    def forward(
        self,
        pixels: Tensor,
        positions: Tensor,
        references: Tensor,
        shapes: Shapes,
        mask: Tensor | None,
    ) -> Tensor:
        """(B, S, C) -> (B, S, C); the other arguments as `DeformableAttention` takes them."""
        read = self.attention(pixels + positions, references, pixels, shapes, mask)
        return self.feedforward(self.norm(pixels + self.dropout(read)))


class Encoder(nn.Module):
    """The layers, and the learned encoding of the levels."""

    def __init__(self, profile: TppProfile) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(profile) for _ in range(profile.encoder_layers))
        self.level_embed = nn.Parameter(torch.randn(LEVELS, profile.width))

    def forward(self, levels: Sequence[Tensor], grids: Sequence[FeatureGrid]) -> Tensor:
        """Encode the fused levels.

        Args:
            levels: (B, h * w, C) each.
            grids: Their geometry.

        Returns:
            Memory (B, S, C), the levels one after the other.
        """
        pixels = torch.cat(list(levels), dim=1)
        width = pixels.shape[-1]
        positions = torch.cat(
            [
                grid.positions(width) + embedding
                for grid, embedding in zip(grids, self.level_embed, strict=True)
            ],
            dim=1,
        )
        shapes = [grid.shape for grid in grids]
        mask = memory_mask(grids)
        references = pixel_references(grids)
        for layer in self.layers:
            pixels = layer(pixels, positions, references, shapes, mask)
        return pixels


def memory_mask(grids: Sequence[FeatureGrid]) -> Tensor | None:
    """(B, S) bool over all levels, true at picture; None without padding."""
    masks = [grid.mask for grid in grids]
    return torch.cat([m.flatten(1) for m in masks if m is not None], 1) if grids[0].padded else None


def pixel_references(grids: Sequence[FeatureGrid]) -> Tensor:
    """The center of every pixel, seen from every level: (B, S, L, 2) (x, y), maps from 0 to 1.

    A center is relative to the picture; each level then scales it by its picture's part.
    """
    ratios = torch.stack([grid.valid_ratio for grid in grids], dim=1)  # (B, L, 2)
    centers = []
    for grid, ratio in zip(grids, ratios.unbind(dim=1), strict=True):
        height, width = grid.shape
        y = (torch.arange(height, device=ratio.device) + 0.5) / height
        x = (torch.arange(width, device=ratio.device) + 0.5) / width
        points = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)
        centers.append(points.flatten(0, 1) / ratio[:, None])
    return torch.cat(centers, dim=1)[:, :, None] * ratios[:, None]
