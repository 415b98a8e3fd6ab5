"""Conversations to measure speed with: always about a fresh picture, references given.

Each round but the first refers to one earlier round, as in MR-MedSeg. Whether the answers are right
is for `benchmarks.quality_mediround`.
"""

import random
from dataclasses import dataclass

import numpy as np

from benchmarks.workload import SEED, VIEWS, Pictures
from training.data.slices import SliceConfig, SliceSampler
from training.data.structures import STRUCTURES
from training.data.templates import TEST_TEMPLATE, load_template

LATEST_SHARE = 0.6
"""Share of rounds that go on from the round before; the others refer to any earlier one."""


@dataclass(frozen=True)
class TalkRound:
    """One question, about one thing."""

    prompt: str
    reference: int | None
    """Index from 0 of the earlier round whose mask it refers to; None in the first round."""
    truth: np.ndarray
    """(H, W) bool: what it asks for."""


@dataclass(frozen=True)
class Talk:
    """One conversation."""

    image: np.ndarray
    """(H, W) uint8, never sent before."""
    rounds: tuple[TalkRound, ...]


class Talks:
    """An endless supply of conversations, the same on every run.

    Args:
        long_side: Pixels of the longer side of the pictures.
    """

    def __init__(self, long_side: int) -> None:
        rng = np.random.default_rng(SEED)
        self._words = random.Random(SEED)
        sampler = SliceSampler(load_template(TEST_TEMPLATE), SliceConfig(long_side=long_side))
        self._views = [sampler.draw(rng) for _ in range(VIEWS)]
        self._pictures = Pictures([view.image.numpy() for view in self._views], rng)
        self._drawn = 0

    def draw(self, rounds: int) -> Talk:
        """A conversation of so many rounds, at least one."""
        number = self._drawn % VIEWS
        self._drawn += 1
        view = self._views[number]
        shown = view.present.nonzero()[:, 0].tolist()
        asked = []
        for index in range(rounds):
            target = self._words.choice(shown)
            name = STRUCTURES[target].name
            reference = self._reference(index)
            prompt = f"Please segment the {name}."
            if reference is not None:
                prompt = f"Based on the output of round {reference + 1}, segment the {name}."
            asked.append(TalkRound(prompt, reference, view.masks[target].numpy()))
        return Talk(self._pictures.fresh(number), tuple(asked))

    def _reference(self, index: int) -> int | None:
        if index == 0:
            return None
        if self._words.random() < LATEST_SHARE:
            return index - 1
        return self._words.randrange(index)
