"""Several questions about one image in one sequence, each blind to the others.

The image's tokens stand once, at the front; every question sees them and itself. The hidden
states equal those of one sequence per question, at a fraction of the cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packed:
    """B packed sequences of length L: B images with K questions each.

    The first `prefix` positions (begin token, image, ...) are alike in all of them.
    """

    token_ids: Tensor
    """(B, L) int64; 0 at image and padding positions."""
    attention_mask: Tensor
    """(B, 1, L, L) bool; True where a position (row) sees another (column)."""
    position_ids: Tensor
    """(B, L) int64; every question counts on from the end of the prefix."""
    starts: list[list[int]]
    """(B, K): position of each question's first own token."""
    prefix: int
    image_start: int
    """The image's rows stand at `image_start : image_start + image_tokens`."""


def pack(
    before_image: Sequence[int], image_tokens: int, questions: Sequence[Sequence[Sequence[int]]]
) -> Packed:
    """Pack the questions of each image behind its prefix.

    Args:
        before_image: Token ids before the image.
        image_tokens: Rows the image takes.
        questions: For each image, the ids of each question from behind the image on.
    """
    prefix = len(before_image) + image_tokens
    length = max(prefix + sum(map(len, row)) for row in questions)
    batch = len(questions)
    token_ids = torch.zeros(batch, length, dtype=torch.long)
    token_ids[:, : len(before_image)] = torch.tensor(before_image)
    position_ids = torch.zeros(batch, length, dtype=torch.long)
    position_ids[:, :prefix] = torch.arange(prefix)
    owner = torch.full((batch, length), -1)
    owner[:, :prefix] = 0
    starts: list[list[int]] = []
    for row, asked in enumerate(questions):
        starts.append([])
        position = prefix
        for number, ids in enumerate(asked, start=1):
            starts[-1].append(position)
            end = position + len(ids)
            token_ids[row, position:end] = torch.tensor(ids)
            position_ids[row, position:end] = torch.arange(prefix, prefix + len(ids))
            owner[row, position:end] = number
            position = end
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    same = (owner[:, :, None] == owner[:, None, :]) | (owner[:, None, :] == 0)
    return Packed(
        token_ids=token_ids,
        attention_mask=(causal & same)[:, None],
        position_ids=position_ids,
        starts=starts,
        prefix=prefix,
        image_start=len(before_image),
    )
