"""RoBERTa, and the projection of its words and sentences to the width of the pixels."""

from dataclasses import dataclass

from torch import Tensor, nn
from transformers import RobertaModel

from training.networks.tpp.profile import TppProfile


@dataclass(frozen=True)
class Text:
    """Encoded prompts."""

    words: Tensor
    """(..., P, L, C)."""
    mask: Tensor
    """(..., P, L) bool, true at words, false at padding."""
    sentences: Tensor
    """(..., P, C)."""


class FeatureResizer(nn.Sequential):
    """Projection (..., E) -> (..., C), shared by words and sentences."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(inputs, outputs), nn.LayerNorm(outputs, eps=1e-12), nn.Dropout(dropout)
        )


class TextEncoder(nn.Module):
    """Encodes each prompt on its own (paper, Eq. 3)."""

    def __init__(self, profile: TppProfile) -> None:
        super().__init__()
        self.roberta = RobertaModel(profile.text)
        self.resizer = FeatureResizer(profile.text.hidden_size, profile.width, profile.dropout)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Text:
        """Encode.

        Args:
            input_ids: (..., P, L) int64, each prompt with its start and end tokens.
            attention_mask: (..., P, L), 1 at tokens, 0 at padding.
        """
        layout, length = input_ids.shape[:-1], input_ids.shape[-1]
        encoded = self.roberta(
            input_ids=input_ids.reshape(-1, length),
            attention_mask=attention_mask.reshape(-1, length),
        )
        words = self.resizer(encoded.last_hidden_state)
        sentences = self.resizer(encoded.pooler_output)
        return Text(
            words.reshape(*layout, length, -1),
            attention_mask.bool(),
            sentences.reshape(*layout, -1),
        )
