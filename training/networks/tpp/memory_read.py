"""Memory read: stride-8 pixels look up a memory of pixels and mask (paper, Eq. 10 to 12)."""

import torch
from torch import Tensor, nn

from training.networks.tpp.profile import TppProfile


class MemoryRead(nn.Module):
    """Single-head attention; keys and values are 3 x 3 convolutions of the memory."""

    def __init__(self, profile: TppProfile) -> None:
        super().__init__()
        width = profile.width
        self.key = nn.Conv2d(1 + width, width, 3, padding=1)
        self.value = nn.Conv2d(1 + width, width, 3, padding=1)

    def forward(self, pixels: Tensor, memory: Tensor, mask_logits: Tensor) -> Tensor:
        """Replace every pixel by what it finds.

        Args:
            pixels: (B, S, C), the encoder's stride-8 level of this frame; not trained through.
            memory: (B, S, C), the level that is remembered.
            mask_logits: (B, h, w), the previous frame's best mask at stride 8, S = h * w.

        Returns:
            (B, S, C).
        """
        maps = memory.transpose(1, 2).unflatten(2, mask_logits.shape[1:])
        maps = torch.cat([mask_logits[:, None], maps], dim=1)
        keys, values = self.key(maps).flatten(2), self.value(maps).flatten(2)
        scores = pixels.detach() @ keys * pixels.shape[-1] ** -0.5
        return scores.softmax(dim=-1) @ values.transpose(1, 2)
