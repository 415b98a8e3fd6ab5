"""Questions about organs to measure speed with: organs that are shown, and what no slice answers.

Slices are of phantoms that training never sees. Whether the answers are right is for
`benchmarks.quality_organseg`.
"""

import random

import numpy as np

from benchmarks.workload import ENDINGS, REPEATED_PICTURES, SEED, VIEWS, Case, Pictures
from serving.several_objects import split_objects
from training.data.false_premises import false_premise
from training.data.organ_questions import ABDOMEN
from training.data.organs import ORGANS
from training.data.phantom_views import PhantomSampler, PhantomViewConfig
from training.data.questions import generate


class OrganWorkload:
    """An endless supply of cases, the same on every run; no case comes twice.

    Args:
        long_side: Pixels of the longer side of the pictures.
    """

    def __init__(self, long_side: int) -> None:
        rng = np.random.default_rng(SEED)
        self._words = random.Random(SEED)
        sampler = PhantomSampler(PhantomViewConfig(long_side=long_side), held_out=True)
        views = [sampler.draw(rng, number % len(ORGANS)) for number in range(VIEWS)]
        self._shown = [view.present[: len(ORGANS)].nonzero()[:, 0].tolist() for view in views]
        self._pictures = Pictures([view.image.numpy() for view in views], rng)
        self._repeated = [self._pictures.fresh(number) for number in range(REPEATED_PICTURES)]
        self._asked: set[tuple[int, str]] = set()

    def every_repeated(self) -> list[Case]:
        """A question about every organ that a repeated picture shows."""
        return [
            Case(picture, f"Segment the {ORGANS[organ].name}.")
            for picture, shown in zip(self._repeated, self._shown, strict=False)
            for organ in shown
        ]

    def fresh(self, count: int) -> list[Case]:
        """Questions about organs that pictures show whose bytes were never sent before."""
        return [
            Case(self._pictures.fresh(number), self._question(number % VIEWS))
            for number in range(count)
        ]

    def repeated(self, count: int) -> list[Case]:
        """New questions about organs that the repeated pictures show."""
        cases = []
        for number in range(count):
            picture = number % REPEATED_PICTURES
            prompt = self._question(picture)
            # A question asked again would be kept as a whole by the language model's cache.
            while (picture, prompt) in self._asked:
                prompt = f"{self._question(picture)} {self._words.choice(ENDINGS)}"
            self._asked.add((picture, prompt))
            cases.append(Case(self._repeated[picture], prompt))
        return cases

    def irrelevant(self, count: int) -> list[Case]:
        """Questions that no slice of the abdomen answers, about fresh pictures."""
        return [
            Case(self._pictures.fresh(number), false_premise(self._words, "test"))
            for number in range(count)
        ]

    def _question(self, view: int) -> str:
        organ = ORGANS[self._words.choice(self._shown[view])]
        while True:
            prompt = generate(organ, rng=self._words, split="test", wordings=ABDOMEN).text
            if len(split_objects(prompt)) == 1:
                return prompt
