"""Deformable transformer decoder with box refinement.

How a layer reads the encoder's memory is the caller's: training reads all of it, serving only the
pixels that are sampled.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.networks.tpp.attention import Attention
from training.networks.tpp.deformable_layer import DeformableAttention
from training.networks.tpp.perceptron import FeedForward, Perceptron
from training.networks.tpp.profile import TppProfile

Read = Callable[[DeformableAttention, Tensor, Tensor], Tensor]
"""Takes a layer's attention, queries (B, N, C) and references (B, N, 2 or 4); gives (B, N, C)."""

LOGIT_EPS = 1e-5
"""Coordinates nearer to 0 or 1 than this have a bounded logit."""


@dataclass(frozen=True)
class Decoded:
    """What the decoder's layers give, last layer last. N = queries."""

    hidden: list[Tensor]
    """(B, N, C)."""
    boxes: list[Tensor]
    """(B, N, 4) cxcywh in [0, 1], relative to the picture."""


class DecoderLayer(nn.Module):
    """Self-attention of the queries, a reading of the memory, and a feed-forward block."""

    def __init__(self, profile: TppProfile) -> None:
        super().__init__()
        width, dropout = profile.width, profile.dropout
        self.self_attention = Attention(width, profile.heads, dropout)
        self.self_norm = nn.LayerNorm(width)
        self.cross_attention = DeformableAttention(profile)
        self.cross_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.feedforward = FeedForward(width, profile.feedforward_size, dropout)

    def forward(
        self, targets: Tensor, query_positions: Tensor, references: Tensor, read: Read
    ) -> Tensor:
        """One layer.

        Args:
            targets: (B, N, C).
            query_positions: (B, N, C), added to queries and keys.
            references: (B, N, 2 or 4).
            read: The reading of the memory.

        Returns:
            (B, N, C).
        """
        queries = targets + query_positions
        attended = self.self_attention(queries, queries, targets)
        targets = self.self_norm(targets + self.dropout(attended))
        found = read(self.cross_attention, targets + query_positions, references)
        return self.feedforward(self.cross_norm(targets + self.dropout(found)))


class Decoder(nn.Module):
    """The layers, each with a box head of its own."""

    def __init__(self, profile: TppProfile) -> None:
        super().__init__()
        layers = range(profile.decoder_layers)
        self.layers = nn.ModuleList(DecoderLayer(profile) for _ in layers)
        self.box_heads = nn.ModuleList(Perceptron(profile.width, profile.width, 4) for _ in layers)
        for number in layers:
            weight, bias = list(self.box_heads[number].parameters())[-2:]
            nn.init.zeros_(weight)
            nn.init.zeros_(bias)
            if number == 0:
                # first boxes of about an eighth of the picture (Deformable DETR)
                nn.init.constant_(bias[2:], -2.0)

    def forward(
        self, targets: Tensor, query_positions: Tensor, references: Tensor, read: Read
    ) -> Decoded:
        """Decode; shapes as in `DecoderLayer`."""
        hidden, boxes = [], []
        for layer, box_head in zip(self.layers, self.box_heads, strict=True):
            targets = layer(targets, query_positions, references, read)
            box = _refine(box_head(targets), references)
            hidden.append(targets)
            boxes.append(box)
            references = box.detach()
        return Decoded(hidden, boxes)


def _refine(offsets: Tensor, references: Tensor) -> Tensor:
    """Boxes (B, N, 4) from a box head's output; a center has no size to add to."""
    base = logit(references)
    known = base.shape[-1]
    return torch.cat([offsets[..., :known] + base, offsets[..., known:]], dim=-1).sigmoid()


def logit(coordinates: Tensor) -> Tensor:
    """Inverse of the sigmoid, bounded by `LOGIT_EPS`."""
    inside = coordinates.clamp(0, 1)
    return (inside.clamp(min=LOGIT_EPS) / (1 - inside).clamp(min=LOGIT_EPS)).log()
