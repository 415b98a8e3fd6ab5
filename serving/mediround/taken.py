"""Which masks a question takes up: those the request names, the one it brings, or those it says."""

import numpy as np

from serving.mediround.asked import Asked
from serving.references.resolver import resolve
from serving.references.rounds import RoundSummary
from serving.sessions.conversation import Conversation, Reference, Round


def take_references(conversation: Conversation, asked: Asked) -> tuple[tuple[Reference, ...], str]:
    """References of a question, each mask once, and how they were understood.

    Rounds and instances that the request names, and a mask that it brings, stand for themselves;
    only without them the question is read.

    Args:
        conversation: The rounds before the question.
        asked: With a prompt.

    Raises:
        ValueError: if one of them is not there; the text lists the rounds that are.
    """
    assert asked.prompt is not None
    named = [
        instance.number
        for number in asked.reference_rounds
        for instance in _with_masks(conversation, number).instances
    ]
    named += asked.reference_instances
    if asked.mask_instance is not None:
        named.append(asked.mask_instance)
    drawn = asked.mask is not None and asked.mask_instance is None
    if not named and not drawn:
        read = resolve(asked.prompt, [_summary(each) for each in conversation.rounds])
        return tuple(Reference(round=r, instance=i) for r, i in read.references), read.description
    references = [
        Reference(round=conversation.round_of(number), instance=number)
        for number in dict.fromkeys(named)
    ]
    said = [f"round {each.round}, instance {each.instance}" for each in references]
    if drawn:
        assert asked.mask is not None
        mask = drawn_mask(conversation, asked.mask)
        references.append(Reference(round=0, instance=0, mask=mask))
        said.append("the mask of the request")
    return tuple(references), f"as given -> {'; '.join(said)}"


def drawn_mask(conversation: Conversation, packed: np.ndarray) -> np.ndarray:
    """A packed mask from outside, with the bits behind the last column cleared.

    Raises:
        ValueError: if it has another size than the picture's masks, or no pixel.
    """
    if packed.shape != conversation.packed_shape:
        height, width = conversation.image.shape[:2]
        raise ValueError(
            f"mask: expected (1, {height}, {(width + 7) // 8}) for the picture of {height} x "
            f"{width} pixels, one bit a pixel, got {(1, *packed.shape)}"
        )
    count = conversation.image.shape[1]
    cleared = np.packbits(np.unpackbits(packed, axis=-1, count=count), axis=-1)
    if not cleared.any():
        raise ValueError("mask: expected at least one pixel, got an empty mask")
    return cleared


def _with_masks(conversation: Conversation, number: int) -> Round:
    given = conversation.round(number)
    if not given.instances:
        raise ValueError(f"round {number} has no mask: {conversation.listing}")
    return given


def _summary(given: Round) -> RoundSummary:
    return RoundSummary(
        number=given.number,
        prompt=given.prompt,
        instances=tuple(instance.number for instance in given.instances),
        labels=given.subquestions,
    )
