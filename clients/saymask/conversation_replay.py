"""Asks a saved conversation again, round by round, and tells where the answers differ.

Does no networking itself: it is an operation as those of `_conversation_state`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from saymask._conversation_protocol import Question
from saymask._conversation_state import ConversationState, Steps
from saymask._retry import Deadline
from saymask.conversation_file import SavedConversation
from saymask.conversation_round import DRAWN_MASK, ConversationRound
from saymask.errors import InvalidArgument

__all__ = ["Difference", "Replay"]

_Conversation = TypeVar("_Conversation")


@dataclass(frozen=True)
class Difference:
    """Where a replay gave something else than was recorded."""

    round: int
    """Round of the recorded conversation."""
    what: str
    """What differs, in words with numbers."""


@dataclass(frozen=True)
class Replay(Generic[_Conversation]):
    """A saved conversation that was asked again from its first round."""

    conversation: _Conversation
    """The new conversation, with which one can go on; closing it is the caller's."""
    differences: tuple[Difference, ...]
    """What differs from the recorded answers, in their order."""

    @property
    def identical(self) -> bool:
        """Whether every mask, pixel for pixel, and every answer is the recorded one."""
        return not self.differences


def replay(
    state: ConversationState, recorded: SavedConversation, deadline: Callable[[], Deadline]
) -> Steps[tuple[Difference, ...]]:
    """Ask each recorded question in a new conversation, with the references it was taken to have.

    Args:
        state: a new conversation about the same image.
        recorded: what is asked again.
        deadline: gives the deadline of each round as it begins.

    Raises:
        InvalidArgument: before anything is asked, if a mask that was drawn is not recorded.
    """
    for one in recorded.rounds:
        if one.drawn_mask is None and DRAWN_MASK in one.references:
            raise InvalidArgument(
                f"round {one.round} refers to a mask that came with it and is not in the file; "
                "save a conversation where it was held, not where it was resumed by its id alone"
            )
    differences: list[Difference] = []
    number_of: dict[int, int] = {}  # of an instance in the new conversation, by the recorded one
    for one in recorded.rounds:
        try:
            question = _question(one, number_of)
        except KeyError as missing:
            what = f"not asked, as it refers to instance {missing}, which did not come again"
            differences.append(Difference(one.round, what))
            break
        state.beta = one.beta
        answer = yield from state.ask(question, deadline())
        for before, now in zip(one.instances, answer.instances, strict=False):
            number_of[before.number] = now.number
        differences += (Difference(one.round, what) for what in _differences(one, answer))
    state.beta = recorded.beta
    return tuple(differences)


def _question(recorded: ConversationRound, number_of: Mapping[int, int]) -> Question:
    corrected = recorded.correct_instance
    return Question(
        recorded.prompt,
        reference_instances=tuple(
            number_of[number]
            for of, number in recorded.references
            # The mask that comes with the question is its reference by itself, and an answer in
            # words takes none.
            if (of, number) != DRAWN_MASK and number != corrected and recorded.instances
        ),
        mask=recorded.drawn_mask,
        correct_instance=None if corrected is None else number_of[corrected],
        kind=recorded.kind,
    )


def _differences(recorded: ConversationRound, answer: ConversationRound) -> Iterator[str]:
    if len(answer.instances) != len(recorded.instances):
        yield f"{len(answer.instances)} masks, recorded {len(recorded.instances)}"
    for before, now in zip(recorded.instances, answer.instances, strict=False):
        differing = int(np.count_nonzero(before.mask != now.mask))
        if differing:
            yield f"instance {before.number}: {differing:,} of {now.mask.size:,} pixels differ"
    if answer.answer != recorded.answer:
        yield f"answer {answer.answer!r}, recorded {recorded.answer!r}"
