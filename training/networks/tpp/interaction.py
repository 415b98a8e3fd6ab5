"""Cross-modal referring interaction: pixels look at every prompt (paper, Eq. 4 to 7)."""

import torch
from torch import Tensor, nn

from training.networks.tpp.attention import Attention
from training.networks.tpp.perceptron import Perceptron
from training.networks.tpp.profile import TppProfile

DIVISOR = 3
"""The released code divides the sum over its three prompts by their number, although their weights
sum to one. With other numbers of prompts the factor stays, as the weights behind it were trained.
"""


class ReferringInteraction(nn.Module):
    """Weighs prompts pixel by pixel; one module for all levels."""

    def __init__(self, profile: TppProfile) -> None:
        super().__init__()
        self.attention = Attention(profile.width, profile.heads)
        self.score = Perceptron(profile.width, profile.width, 1)

    def forward(
        self, pixels: Tensor, words: Tensor, positions: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fuse one level with the prompts.

        Args:
            pixels: (B, S, C), without positional encoding.
            words: (B, P, L, C).
            positions: (B, P, L, C), added to the keys only.
            mask: (B, P, L) bool, true at words.

        Returns:
            As `fuse`.
        """
        return self.fuse(pixels, *self.keys_values(words, positions), mask)

    def keys_values(self, words: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (..., L, C) of words; the same for every level and frame."""
        return self.attention.key(words + positions), self.attention.value(words)

    def fuse(
        self, pixels: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fuse one level with projected prompts, all of them at once.

        Args:
            pixels: (B, S, C).
            keys: (B, P, L, C), from `keys_values`.
            values: (B, P, L, C), likewise.
            mask: (B, P, L) bool.

        Returns:
            Fused pixels (B, S, C), and the prompt (B,) int64 that weighs most over the level.
        """
        proposals = self.attention.attend(pixels[:, None], keys, values, mask)  # (B, P, S, C)
        weights = self.score(proposals).softmax(dim=1)
        fused = pixels * (proposals * weights).sum(dim=1) / DIVISOR
        return fused, weights.mean(dim=(2, 3)).argmax(dim=1)


def chosen(per_prompt: Tensor, prompt_index: Tensor) -> Tensor:
    """The rows (B, ...) of per_prompt (B, P, ...) at prompt_index (B,)."""
    items = torch.arange(per_prompt.shape[0], device=per_prompt.device)
    return per_prompt[items, prompt_index]
