"""Pictures and questions to measure speed with: pictures nobody has seen, and the same ones again.

Views come from the held-out template. Whether the answers are right is for `benchmarks.quality`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.data.questions import generate
from training.data.slices import SliceConfig, SliceSampler
from training.data.structures import STRUCTURES
from training.data.templates import TEST_TEMPLATE, load_template

SEED = 30_000
VIEWS = 8
"""Views that fresh pictures are made from; drawing one takes longer than answering it."""
REPEATED_PICTURES = 4
NOISE_LEVELS = 3
"""Largest change of a pixel between a fresh picture and its view, in grey levels of [0, 255]."""
ENDINGS = ("Please.", "Thank you.")


@dataclass(frozen=True)
class Case:
    """One question about one picture."""

    image: np.ndarray
    """(H, W) uint8."""
    prompt: str


class Pictures:
    """Makes pictures out of views: each with noise of its own, so that none comes twice.

    Args:
        views: (H, W) uint8 each.
        rng: Source of the noise.
    """

    def __init__(self, views: Sequence[np.ndarray], rng: np.random.Generator) -> None:
        self._views = views
        self._rng = rng

    def fresh(self, number: int) -> np.ndarray:
        """A new picture (H, W) uint8 of the view of that number; after the last comes the first."""
        view = self._views[number % len(self._views)]
        noise = self._rng.integers(-NOISE_LEVELS, NOISE_LEVELS + 1, view.shape)
        return np.clip(view + noise, 0, 255).astype(np.uint8)


class Workload:
    """An endless supply of cases, the same on every run; no case comes twice.

    Args:
        long_side: Pixels of the longer side of the pictures.
    """

    def __init__(self, long_side: int) -> None:
        rng = np.random.default_rng(SEED)
        self._words = random.Random(SEED)
        template = load_template(TEST_TEMPLATE)
        # The least area is for pictures of 160 pixels.
        sampler = SliceSampler(template, SliceConfig(long_side=long_side))
        self._pictures = Pictures([sampler.draw(rng).image.numpy() for _ in range(VIEWS)], rng)
        self.repeated_pictures = [self._pictures.fresh(n) for n in range(REPEATED_PICTURES)]
        """Pictures that `repeated` asks about."""
        self._asked: set[tuple[int, str]] = set()

    def fresh(self, count: int) -> list[Case]:
        """Questions about pictures whose bytes were never sent before."""
        return [Case(self._pictures.fresh(n), self._question()) for n in range(count)]

    def repeated(self, count: int) -> list[Case]:
        """New questions about the repeated pictures, in turn."""
        cases = []
        for number in range(count):
            picture = number % REPEATED_PICTURES
            prompt = self._question()
            # A question asked again would be kept as a whole by the language model's cache.
            while (picture, prompt) in self._asked:
                prompt = f"{self._question()} {self._words.choice(ENDINGS)}"
            self._asked.add((picture, prompt))
            cases.append(Case(self.repeated_pictures[picture], prompt))
        return cases

    def _question(self) -> str:
        structure = self._words.choice(STRUCTURES)
        return generate(structure, rng=self._words, split="test").text
