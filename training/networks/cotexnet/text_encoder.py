"""CoTexNet's text branch, used in training alone: CLIP's text tower with vectors among words."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.models.clipseg.modeling_clipseg import (
    CLIPSegEncoderLayer,
    CLIPSegTextEmbeddings,
)

from training.networks.cotexnet.profile import NORM_EPS, CoTexNetProfile
from training.networks.cotexnet.reading import Reading


@dataclass(frozen=True)
class Prompts:
    """B prompts as token ids."""

    token_ids: Tensor
    """(B, L) int64: start, words, then the end up to L."""
    roi_start: int
    """Position of the first region of interest; the others follow it."""


class CoTexNetTextEncoder(nn.Module):
    """CLIP's text tower and projection, frozen."""

    def __init__(self, profile: CoTexNetProfile, reading: Reading) -> None:
        super().__init__()
        config = profile.text_config()
        self.end_token_id = profile.vocabulary_size - 1
        self.overwrites = reading.pseudo_text == "overwrite"
        self.embeddings = CLIPSegTextEmbeddings(config)
        # transformers leaves the scale to its whole models.
        for table in (self.embeddings.token_embedding, self.embeddings.position_embedding):
            nn.init.normal_(table.weight, std=config.initializer_range)
        self.layers = nn.ModuleList(
            CLIPSegEncoderLayer(config) for _ in range(config.num_hidden_layers)
        )
        self.last_norm = nn.LayerNorm(profile.text.width, eps=NORM_EPS)
        self.projection = nn.Linear(profile.text.width, profile.embedding_width, bias=False)

    def forward(self, prompts: Prompts, roi_tokens: Tensor | None = None) -> Tensor:
        """Encode prompts.

        Args:
            prompts: B of them.
            roi_tokens: (B, n, E_text), which take the places from `prompts.roi_start` on; None
                leaves the prompts as they are. Under the code's reading they are not given the
                positions of these places.

        Returns:
            (B, D): the projected hidden state of each prompt's first end token.
        """
        ids, start = prompts.token_ids, prompts.roi_start
        words = self.embeddings.token_embedding(ids)
        positions = self.embeddings.position_embedding.weight[: ids.shape[1]]
        if roi_tokens is None:
            hidden = words + positions
        elif self.overwrites:
            hidden = _overwritten(words + positions, roi_tokens, start)
        else:
            hidden = _overwritten(words, roi_tokens, start) + positions
        # What follows the end is hidden by this mask, too: padding needs none of its own.
        causal = torch.full(
            (ids.shape[1], ids.shape[1]), -torch.inf, dtype=hidden.dtype, device=ids.device
        ).triu(1)
        for layer in self.layers:
            hidden = layer(hidden, causal[None, None])
        ends = (ids == self.end_token_id).int().argmax(dim=1)
        pooled = self.last_norm(hidden)[torch.arange(len(ids), device=ids.device), ends]
        return self.projection(pooled)


def _overwritten(rows: Tensor, vectors: Tensor, start: int) -> Tensor:
    return torch.cat([rows[:, :start], vectors, rows[:, start + vectors.shape[1] :]], dim=1)
