"""Lines of training text that the tokenizer learns its pieces from."""

import random
from collections.abc import Iterator

from training.data.false_premises import false_premise
from training.data.views import TARGETS, question_about

FALSE_PREMISE_SHARE = 0.1
"""Share of lines that ask for what no slice shows."""


def corpus(n: int, seed: int) -> Iterator[str]:
    """Yield n lines: questions and explanations of all targets in turn, and false premises.

    Holds nothing of the test split.
    """
    rng = random.Random(seed)
    explanation: str | None = None
    asked = 0
    for _ in range(n):
        if rng.random() < FALSE_PREMISE_SHARE:
            yield false_premise(rng, "train")
        elif explanation is None:
            question = question_about(asked % len(TARGETS), rng=rng, split="train")
            explanation = question.explanation
            asked += 1
            yield question.text
        else:
            yield explanation
            explanation = None
