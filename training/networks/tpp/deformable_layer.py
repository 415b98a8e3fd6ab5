"""The projections around multi-scale deformable attention (Deformable DETR, Eq. 3)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.networks.deformable_attention import deformable_attention
from training.networks.tpp.profile import LEVELS, TppProfile

Shapes = Sequence[tuple[int, int]]
"""(h, w) of every level."""


class DeformableAttention(nn.Module):
    """Each query reads a few points of every level, around its reference."""

    def __init__(self, profile: TppProfile) -> None:
        super().__init__()
        width = profile.width
        self.layout = (profile.heads, LEVELS, profile.points)
        samples = math.prod(self.layout)
        self.value_proj = nn.Linear(width, width)
        self.sampling_offsets = nn.Linear(width, 2 * samples)
        self.attention_weights = nn.Linear(width, samples)
        self.output_proj = nn.Linear(width, width)
        self._initialise()

    def _initialise(self) -> None:
        """Start each head in a direction of its own, one pixel a point (Deformable DETR, A.4)."""
        heads, _, points = self.layout
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        nn.init.zeros_(self.sampling_offsets.weight)
        angles = torch.arange(heads) * (2 * math.pi / heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, points + 1)[:, None]
        offsets = (directions[:, None, None] * steps).expand(*self.layout, 2)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.flatten())

    def forward(
        self,
        queries: Tensor,
        references: Tensor,
        memory: Tensor,
        shapes: Shapes,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Read the memory.

        Args:
            queries: (B, Q, C), with positional encoding.
            references: (B, Q, L, 2) centers (x, y), or (B, Q, L, 4) boxes cxcywh; maps from 0 to 1.
            memory: (B, S, C), the levels one after the other.
            shapes: (h, w) of every level.
            mask: (B, S) bool, false at pixels that count as zero. None: none do.

        Returns:
            (B, Q, C).
        """
        value = self.value_proj(memory)
        if mask is not None:
            value = value.masked_fill(~mask[..., None], 0.0)
        locations, weights = self.sampling(queries, references, shapes)
        value = value.unflatten(-1, (self.layout[0], -1))
        return self.output_proj(deformable_attention(value, shapes, locations, weights))

    def sampling(
        self, queries: Tensor, references: Tensor, shapes: Shapes
    ) -> tuple[Tensor, Tensor]:
        """Where the queries look, and with what weight.

        Returns:
            Locations (B, Q, M, L, P, 2), maps from 0 to 1, and weights (B, Q, M, L, P) that sum to
            one over L and P.
        """
        offsets = self.sampling_offsets(queries).unflatten(-1, (*self.layout, 2))
        weights = self.attention_weights(queries).unflatten(-1, (self.layout[0], -1))
        weights = weights.softmax(dim=-1).unflatten(-1, self.layout[1:])
        references = references[:, :, None, :, None]
        if references.shape[-1] == 2:
            return references + offsets / level_sizes(shapes, offsets)[:, None], weights
        points = self.layout[2]
        return references[..., :2] + offsets / points * references[..., 2:] * 0.5, weights


def level_sizes(shapes: Shapes, like: Tensor) -> Tensor:
    """(L, 2): width and height of every level, of the dtype and on the device of `like`."""
    # a tensor made of a list would freeze the sizes of an export
    sides = [like.new_full((1,), side) for height, width in shapes for side in (width, height)]
    return torch.cat(sides).unflatten(0, (-1, 2))
