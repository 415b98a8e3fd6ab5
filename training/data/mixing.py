"""Draws samples from several sources in a given ratio. Knows nothing of what a sample is."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Sample = TypeVar("Sample")

MEDISEE_RATIO = (7.0, 2.0)
"""SA-Med2D-20M to MLMR-SD in the released training script; the paper says 7:3."""


def mix(
    sources: Sequence[Callable[[random.Random], Sample]],
    rng: random.Random,
    ratio: Sequence[float] = MEDISEE_RATIO,
) -> Iterator[Sample]:
    """Yield samples without end, each from one source drawn in proportion to its ratio.

    Args:
        sources: functions that draw one sample with the random generator given.
        rng: source of all choices.
        ratio: one number >= 0 per source, not all 0; need not sum to 1.

    Yields:
        One sample of the drawn source.

    Raises:
        ValueError: at once, if ratio does not fit the sources.
    """
    if len(ratio) != len(sources) or min(ratio, default=-1) < 0 or sum(ratio) <= 0:
        raise ValueError(
            f"ratio: expected {len(sources)} numbers >= 0, one per source and not all 0, "
            f"got {tuple(ratio)}"
        )

    def draw() -> Iterator[Sample]:
        while True:
            yield rng.choices(sources, ratio)[0](rng)

    return draw()
