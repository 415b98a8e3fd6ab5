"""Views of both regions: brain MRI from the template, abdominal CT from phantoms.

What the systems share (image encoders, base language model) is trained on both; masks of all
targets lie in one order, so that one batch can hold either.
"""

import random

import numpy as np
import torch
from torch import Tensor

from training.data.organ_questions import ABDOMEN
from training.data.phantom_views import PHANTOM_TARGETS, PhantomSampler
from training.data.questions import BRAIN, Question, Split, generate
from training.data.slices import Slice, SliceSampler
from training.data.structures import STRUCTURES, Structure

TARGETS: tuple[Structure, ...] = (*STRUCTURES, *PHANTOM_TARGETS)
"""Everything that can be asked for: 16 brain structures, 13 abdominal organs, the lesion."""


class ViewSampler:
    """Draws views of either region.

    Args:
        brain: Sampler of the template.
        abdomen: Sampler of phantoms.
        abdomen_share: Share of views of the abdomen.
    """

    def __init__(
        self, brain: SliceSampler, abdomen: PhantomSampler, *, abdomen_share: float = 0.5
    ) -> None:
        self.brain, self.abdomen, self.abdomen_share = brain, abdomen, abdomen_share

    def draw(self, rng: np.random.Generator, target: int | None = None) -> Slice:
        """Draw a view; masks (30, H, W) and present (30,) in the order of `TARGETS`.

        Args:
            rng: Source of everything random.
            target: Index into `TARGETS` of what must be present; None: any at all.
        """
        first = len(STRUCTURES)
        of_abdomen = bool(rng.random() < self.abdomen_share) if target is None else target >= first
        if of_abdomen:
            view = self.abdomen.draw(rng, None if target is None else target - first)
            padding = (first, 0)
        else:
            view = self.brain.draw(rng, target)
            padding = (0, len(PHANTOM_TARGETS))
        return Slice(view.image, _padded(view.masks, padding), _padded(view.present, padding))

    def rarity(self, seed: int, views: int = 400) -> Tensor:
        """How seldom each target is seen: views drawn per view that shows it, (30,) float32."""
        rng = np.random.default_rng(seed)
        seen = torch.stack([self.draw(rng).present for _ in range(views)]).sum(dim=0)
        return views / seen.clamp(min=1)


def is_abdomen(view: Slice) -> bool:
    """Whether a view of `ViewSampler` shows the abdomen."""
    return bool(view.present[len(STRUCTURES) :].any())


def question_about(target: int, *, rng: random.Random, split: Split) -> Question:
    """Draw a question about one of `TARGETS`, by its index, in the words of its region."""
    wordings = BRAIN if target < len(STRUCTURES) else ABDOMEN
    return generate(TARGETS[target], rng=rng, split=split, wordings=wordings)


def _padded(tensor: Tensor, padding: tuple[int, int]) -> Tensor:
    """Put `padding` rows of zeros before and after the first axis."""
    before, after = (tensor.new_zeros((count, *tensor.shape[1:])) for count in padding)
    return torch.cat([before, tensor, after])
