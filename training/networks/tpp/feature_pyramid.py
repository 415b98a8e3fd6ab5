"""Feature pyramid of the mask branch, in which every level also reads the chosen prompt."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.tpp.attention import Attention
from training.networks.tpp.feature_grid import FeatureGrid
from training.networks.tpp.perceptron import FeedForward
from training.networks.tpp.profile import TppProfile

REDUCTIONS = (1, 2, 4, 8)
"""Sides by which self-attention coarsens the maps of strides 32, 16, 8 and 4."""


class VisionLanguageBlock(nn.Module):
    """Self-attention on a coarser grid, cross-attention to words, feed-forward block."""

    def __init__(self, profile: TppProfile, reduction: int) -> None:
        super().__init__()
        width, heads, dropout = profile.width, profile.heads, profile.dropout
        self.reduction = reduction
        self.self_attention = Attention(width, heads, dropout)
        self.self_norm = nn.LayerNorm(width)
        self.word_attention = Attention(width, heads, dropout)
        self.word_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.feedforward = FeedForward(width, profile.feedforward_size, dropout)

    def forward(
        self, features: Tensor, grid: FeatureGrid, keys: Tensor, values: Tensor, mask: Tensor
    ) -> Tensor:
        """One level.

        Args:
            features: (B, C, h, w).
            grid: Its geometry.
            keys: (B, L, C) of the chosen prompt, from `FeaturePyramid.keys_values`.
            values: (B, L, C), likewise.
            mask: (B, L) bool, true at words.

        Returns:
            (B, C, h, w).
        """
        shape = features.shape[2:]
        positions = grid.positions(features.shape[1])
        pixels = features.flatten(2).transpose(1, 2)
        attended = self._coarse_self_attention(features, positions, grid)
        pixels = self.self_norm(pixels + self.dropout(attended))
        read = self.word_attention.attend(pixels + positions, keys, values, mask)
        pixels = self.feedforward(self.word_norm(pixels + self.dropout(read)))
        return pixels.transpose(1, 2).unflatten(2, shape)

    def _coarse_self_attention(
        self, features: Tensor, positions: Tensor, grid: FeatureGrid
    ) -> Tensor:
        """(B, h * w, C); every coarse pixel is one of the fine ones, results are interpolated."""
        height, width = grid.shape
        coarse = height // self.reduction, width // self.reduction
        values = F.interpolate(features, coarse).flatten(2).transpose(1, 2)
        maps = positions.transpose(1, 2).unflatten(2, (height, width))
        queries = values + F.interpolate(maps, coarse).flatten(2).transpose(1, 2)
        mask = grid.mask
        if mask is not None:
            mask = F.interpolate(mask[:, None].float(), coarse).flatten(1).bool()
        attended = self.self_attention(queries, queries, values, mask)
        maps = attended.transpose(1, 2).unflatten(2, coarse)
        fine = F.interpolate(maps, (height, width), mode="bilinear", align_corners=False)
        return fine.flatten(2).transpose(1, 2)


class FeaturePyramid(nn.Module):
    """From stride 32 down to stride 4. Lists run in that order, coarse to fine."""

    def __init__(self, profile: TppProfile) -> None:
        super().__init__()
        width = profile.width
        inputs = (width, width, width, profile.stage_channels[0])
        self.laterals = nn.ModuleList(_convolution(channels, width, 1) for channels in inputs)
        self.blocks = nn.ModuleList(VisionLanguageBlock(profile, r) for r in REDUCTIONS)
        self.outputs = nn.ModuleList(
            nn.Sequential(_convolution(width, width, 3), nn.ReLU()) for _ in REDUCTIONS
        )

    def keys_values(self, words: Tensor, positions: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values (..., L, C) of each level's block, from words (..., L, C)."""
        keys_values = []
        for block in self.blocks:
            assert isinstance(block, VisionLanguageBlock)
            attention = block.word_attention
            keys_values.append((attention.key(words + positions), attention.value(words)))
        return keys_values

    def forward(
        self,
        maps: Sequence[Tensor],
        grids: Sequence[FeatureGrid],
        keys_values: Sequence[tuple[Tensor, Tensor]],
        mask: Tensor,
    ) -> Tensor:
        """Build the pyramid.

        Args:
            maps: (B, C, h, w): the encoder's memory of strides 32, 16 and 8, and the backbone's
                first stage (B, C_4, h_4, w_4).
            grids: Their geometry.
            keys_values: Of each level's block: keys and values (B, L, C) of the chosen prompt.
            mask: (B, L) bool, its words.

        Returns:
            (B, C, h_4, w_4).
        """
        pyramid: Tensor | None = None
        levels = zip(
            self.laterals, self.blocks, self.outputs, maps, grids, keys_values, strict=True
        )
        for lateral, block, output, features, grid, (keys, values) in levels:
            level = block(lateral(features), grid, keys, values, mask)
            if pyramid is not None:
                level = level + F.interpolate(pyramid, grid.shape)
            pyramid = output(level)
        assert pyramid is not None
        return pyramid


def _convolution(inputs: int, outputs: int, side: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False)
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    return nn.Sequential(convolution, nn.GroupNorm(8, outputs))
