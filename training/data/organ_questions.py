"""Questions about one abdominal slice, with what the right answer is.

Three premises: organs that the slice shows, an organ of the abdomen that it does not show (it lies
at another height, or was removed), and a false premise that no abdominal slice could answer. Which
organs a slice shows is the caller's business.
"""

import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

from training.data.false_premises import false_premise
from training.data.organs import ORGANS, Organ
from training.data.questions import Split, Wordings, generate

Premise = Literal["found", "absent", "irrelevant"]

ABDOMEN = Wordings(
    direct={
        "train": (
            "{the}",
            "{name}",
            "Segment {the}.",
            "Please segment the {name} in this CT.",
            "Where is {the}?",
            "Show me {the}.",
            "Find {the} in this image.",
            "Outline {the}, please.",
            "Is {the} in this slice?",
            "I want to see {the}.",
            "Can you segment {the}?",
            "Could you show {the}?",
            "Please outline {the} for me.",
            "Highlight {the}.",
            "Draw {the} in this picture.",
            "Look for {the} here.",
            "Delineate {the}, please.",
            "Can you see {the}?",
            "I need {the}.",
            "Contour the {name}.",
        ),
        "test": (
            "Could you locate {the} in this image?",
            "Please find and outline {the} here.",
            "Where can I see {the}?",
            "Can you mark {the}?",
        ),
    },
    reasoning={
        "train": (
            "Which organ {fact}?",
            "Which organ in this image {fact}?",
            "What in this slice {fact}?",
            "Where is the organ that {fact}?",
            "Segment the organ that {fact}.",
            "Please segment the structure that {fact}.",
            "Find the organ which {fact}.",
            "Show me what {fact}.",
            "I want to see the organ that {fact}.",
            "Can you show the one that {fact}?",
            "Could you segment the thing which {fact}?",
            "Which one {fact}?",
            "What is it that {fact}?",
            "I am looking for the organ that {fact}.",
            "Highlight the part that {fact}.",
            "Where can it be seen what {fact}?",
            "Draw the organ which {fact}.",
        ),
        "test": (
            "Which of the organs here {fact}?",
            "Please find the organ that {fact}.",
            "What in this image {fact}?",
            "Could you locate the one that {fact}?",
        ),
    },
    two_facts={
        "train": (
            "Which organ {fact} and also {other}?",
            "Segment the organ that {fact}. It also {other}.",
        ),
        "test": ("Please locate the organ that {fact} and that also {other}.",),
    },
    contexts={
        "train": (
            "This is an abdominal CT.",
            "Here is a slice of the upper abdomen.",
            "I am a student and look at this image.",
            "I do not know the name.",
            "This picture was taken yesterday.",
            "We compare the organs of the belly.",
        ),
        "test": ("Here is a CT slice.", "My doctor asked me to look at this scan."),
    },
)
"""Questions about `training.data.organs`."""

_BOTH: dict[Split, tuple[str, ...]] = {
    "train": (
        "{one} and {other}",
        "Segment {one} and {other}.",
        "Where are {one} and {other}?",
        "Show me {one} and also {other}.",
    ),
    "test": ("Please outline both {one} and {other}.", "Could you find {one} and {other}?"),
}


@dataclass(frozen=True)
class OrganQuestion:
    """One question and the organs it asks for."""

    text: str
    organs: tuple[Organ, ...]
    """In the order of the question; none where the premise is irrelevant."""
    premise: Premise


def organ_question(
    shown: Collection[int],
    *,
    rng: random.Random,
    split: Split,
    premise: Premise | None = None,
) -> OrganQuestion:
    """Draw a question about one organ, or one that no organ answers.

    Args:
        shown: Labels of the organs that the slice shows.
        rng: Source of all choices.
        split: "train", or "test" for wordings and false subjects held out.
        premise: None draws it: found in 6 of 10, absent and irrelevant in 2 of 10 each; a premise
            that the slice cannot give (nothing shown, or nothing absent) is drawn anew.

    Raises:
        ValueError: if the premise asked for cannot be given.
    """
    by_premise = {
        "found": [organ for organ in ORGANS if organ.id in shown],
        "absent": [organ for organ in ORGANS if organ.id not in shown],
        "irrelevant": [],
    }
    if premise is None:
        possible = [p for p in get_args(Premise) if p == "irrelevant" or by_premise[p]]
        weights = [{"found": 6, "absent": 2, "irrelevant": 2}[p] for p in possible]
        premise = rng.choices(possible, weights)[0]
    assert premise is not None
    if premise == "irrelevant":
        return OrganQuestion(false_premise(rng, split), (), premise)
    if not by_premise[premise]:
        what = "shows no organ" if premise == "found" else "shows every organ"
        raise ValueError(f"premise {premise!r}: the slice {what}")
    organ = rng.choice(by_premise[premise])
    text = generate(organ, rng=rng, split=split, wordings=ABDOMEN).text
    return OrganQuestion(text, (organ,), premise)


def two_organs_question(
    first: Organ, second: Organ, *, rng: random.Random, split: Split
) -> OrganQuestion:
    """Ask for two organs by name; the premise is "found", each has an outcome of its own."""
    one, other = (rng.choice(organ.synonyms) for organ in (first, second))
    text = rng.choice(_BOTH[split]).format(one=one, other=other)
    return OrganQuestion(text[0].upper() + text[1:], (first, second), "found")
