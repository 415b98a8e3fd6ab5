"""Multi-head attention whose keys and values can be computed once and kept."""

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Scaled dot-product attention of several heads.

    Args:
        width: C; a multiple of `heads`.
        heads: M.
        dropout: Share of attention weights dropped in training.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        for layer in (self.query, self.key, self.value, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None = None
    ) -> Tensor:
        """Attend, projecting keys and values first; shapes as in `attend`."""
        return self.attend(queries, self.key(keys), self.value(values), key_mask)

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None = None
    ) -> Tensor:
        """Attend to keys and values that are projected already.

        Args:
            queries: (..., S, C), not projected.
            keys: (..., L, C), from `key`.
            values: (..., L, C), from `value`.
            key_mask: (..., L) bool, true where there is something to attend to. None: everywhere.

        Returns:
            (..., S, C). Leading axes broadcast.
        """
        query, key, value = (self._split(x) for x in (self.query(queries), keys, values))
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        if key_mask is not None:
            scores = scores.masked_fill(~key_mask[..., None, None, :], -torch.inf)
        attended = self.dropout(scores.softmax(dim=-1)) @ value
        return self.output(attended.transpose(-2, -3).flatten(-2))

    def _split(self, tokens: Tensor) -> Tensor:
        """(..., S, C) -> (..., M, S, C / M)."""
        return tokens.unflatten(-1, (self.heads, -1)).transpose(-2, -3)
