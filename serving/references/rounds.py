"""The rounds of a conversation as a question can refer to them, and what is said when it cannot."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

_QUOTED_CHARACTERS = 48
_OPENING = re.compile(
    r".*\b(?:segment|outline|show(?:\s+me)?|find|locate|mark|highlight|see|where(?:\s+is|\s+are|['\u2019]s))\b|"
    r"^.*,",
    re.IGNORECASE | re.DOTALL,
)
"""What stands before the name of an object in a request."""
_REST = re.compile(
    r"\b(?:on|in|at|to|from|with|below|above|behind|beside|under|near|next|inside|between|around|"
    r"that|which|what|who)\b|\bof\s+(?=it\b|this\b|that\b)",
    re.IGNORECASE,
)
"""Where its name ends."""


class Reference(NamedTuple):
    """One mask of an earlier round."""

    round: int
    """Number of the round, from 1."""
    instance: int
    """Number of the mask, from 1 over the whole conversation."""


@dataclass(frozen=True)
class RoundSummary:
    """One round that has been answered."""

    number: int
    """From 1, in the order of the conversation."""
    prompt: str
    """The question as it was asked."""
    instances: tuple[int, ...] = ()
    """Numbers of its masks, counted over the whole conversation; none if answered in words."""
    labels: tuple[str, ...] = ()
    """What each mask answers, a name or a part of the question; as many as instances."""

    def __post_init__(self) -> None:
        """Refuse labels that do not fit the instances."""
        if len(self.labels) != len(self.instances):
            raise ValueError(
                f"labels: expected one for each of {len(self.instances)} instances, "
                f"got {len(self.labels)}"
            )

    @property
    def kind(self) -> Literal["mask", "text"]:
        """Whether the round gave masks or was answered in words alone."""
        return "mask" if self.instances else "text"

    @property
    def references(self) -> tuple[Reference, ...]:
        """All masks of the round."""
        return tuple(Reference(self.number, instance) for instance in self.instances)


@dataclass(frozen=True)
class Conversation:
    """All rounds so far; looks up what a question names.

    Every look-up raises ValueError, with the rounds there are, where it finds nothing.
    """

    rounds: Sequence[RoundSummary]

    @property
    def masks(self) -> list[Reference]:
        """All masks in the order of their numbers."""
        return sorted(
            (reference for each in self.rounds for reference in each.references),
            key=lambda reference: reference.instance,
        )

    def round(self, number: int, words: str) -> tuple[Reference, ...]:
        """All masks of the round with this number."""
        found = next((each for each in self.rounds if each.number == number), None)
        if found is None:
            raise self.error(words, f"there is no round {number}")
        if found.kind == "text":
            raise self.error(words, f"round {number} was answered in words and has no mask")
        return found.references

    def instance(self, number: int, words: str) -> tuple[Reference, ...]:
        """The mask with this number."""
        found = tuple(reference for reference in self.masks if reference.instance == number)
        if not found:
            raise self.error(words, f"there is no instance {number}")
        return found

    def latest_round(self, words: str, back: int = 0) -> tuple[Reference, ...]:
        """All masks of the latest round that has any, or of the one `back` such rounds before."""
        with_masks = [each for each in self.rounds if each.kind == "mask"]
        if len(with_masks) <= back:
            raise self.error(words, "it refers to a mask that is not there")
        return with_masks[-1 - back].references

    def latest_instance(self, words: str, back: int = 0) -> tuple[Reference, ...]:
        """The mask with the highest number, or the one `back` before it."""
        if len(self.masks) <= back:
            raise self.error(words, "it refers to a mask that is not there")
        return (self.masks[-1 - back],)

    def named(self, name: str) -> tuple[Reference, ...]:
        """The latest mask that was asked for by a name; none if there is none.

        "The kidney" is "the left kidney", and not "the gland on top of the kidney".
        """
        phrase = f" {_plain(name)} "
        for each in reversed(self.rounds):
            for reference, label in zip(each.references, each.labels, strict=True):
                if phrase in f" {_plain(_REST.split(_OPENING.sub('', label), maxsplit=1)[0])} ":
                    return (reference,)
        return ()

    def error(self, words: str, what: str) -> ValueError:
        """What to raise for words that name nothing."""
        return ValueError(f"prompt: “{words}”: {what}; {self._listed()}")

    def _listed(self) -> str:
        if not self.rounds:
            return (
                "this is the first round of the conversation; name what you mean, "
                "as in “segment the left part of the liver”, or send a mask with the question"
            )
        numbers = [each.number for each in self.rounds]
        span = (
            f"round {numbers[0]}" if len(numbers) == 1 else f"rounds {numbers[0]} to {numbers[-1]}"
        )
        return f"this conversation has {span} ({'; '.join(map(_described, self.rounds))})"


def _plain(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def _described(summary: RoundSummary) -> str:
    question = summary.prompt
    if len(question) > _QUOTED_CHARACTERS:
        question = question[: _QUOTED_CHARACTERS - 1] + "…"
    if summary.kind == "text":
        return f"{summary.number}: “{question}”, answered in words"
    noun = "instance" if len(summary.instances) == 1 else "instances"
    return f"{summary.number}: “{question}”, {noun} {', '.join(map(str, summary.instances))}"
