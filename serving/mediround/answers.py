"""What requests to `mediround` are answered with: one set of outputs for all of them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serving.sessions.conversation import Conversation, Instance, Round


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The outputs of one request, before they are tensors."""

    packed_shape: tuple[int, int] = (0, 0)
    """(H, ceil(W / 8)) of the conversation's picture."""
    instances: Sequence[Instance] = ()
    """Masks to return."""
    references: Sequence[tuple[int, int]] = ()
    """(round, instance) of what the round refers to; (0, 0) is a drawn mask."""
    revised: Sequence[int] = ()
    """Instances that were corrected because this round refers to them."""
    round: int = 0
    """Number of the round, or how many there are."""
    text: str = ""
    """The answer in words."""
    resolution: str = ""
    """How the question's references were understood."""
    cached_tokens: int = 0
    """Prompt positions taken from the prefix cache."""
    computed_tokens: int = 0
    """Prompt positions computed; both are 0 where a stored round is returned."""
    rounds: str = ""
    """The conversation as JSON."""

    def outputs(self) -> dict[str, np.ndarray | str]:
        """Tensor name -> value."""
        masks = np.zeros((len(self.instances), *self.packed_shape), np.uint8)
        for row, instance in zip(masks, self.instances, strict=True):
            row[:] = instance.mask
        return {
            "masks": masks,
            "scores": np.array([one.score for one in self.instances], np.float32),
            "qualities": np.array([one.quality for one in self.instances], np.float32),
            "corrected": np.array([one.corrected for one in self.instances], np.bool_),
            "instances": np.array([one.number for one in self.instances], np.int32),
            "references": np.array(self.references, np.int32).reshape(-1, 2),
            "revised": np.array(self.revised, np.int32),
            "round": np.array([self.round], np.int32),
            "answer": self.text,
            "resolution": self.resolution,
            "cached_tokens": np.array([self.cached_tokens], np.int32),
            "computed_tokens": np.array([self.computed_tokens], np.int32),
            "rounds": self.rounds,
        }


def of_round(
    conversation: Conversation, given: Round, cached_tokens: int = 0, computed_tokens: int = 0
) -> Answer:
    """A round as it was answered, also when it is asked for again."""
    return Answer(
        packed_shape=conversation.packed_shape,
        instances=given.instances,
        references=_references(given),
        revised=_revised(given),
        round=given.number,
        text=given.answer,
        resolution=given.resolution,
        cached_tokens=cached_tokens,
        computed_tokens=computed_tokens,
    )


def of_correction(conversation: Conversation, number: int) -> Answer:
    """An instance that the user corrected without asking anything."""
    return Answer(
        packed_shape=conversation.packed_shape,
        instances=[conversation.instance(number)],
        round=conversation.round_of(number),
        text=f"Took your mask for instance {number}.",
    )


def of_conversation(conversation: Conversation) -> Answer:
    """All instances of a conversation as they are now, and its rounds as JSON.

    `pixels_sha256` tells a client whose picture it is: SHA-256 of the shape as Python writes it,
    `(120, 90, 1)`, and of the pixels.
    """
    image = conversation.image
    digest = hashlib.sha256(f"{image.shape}".encode() + image.tobytes())
    return Answer(
        packed_shape=conversation.packed_shape,
        instances=conversation.instances,
        round=len(conversation.rounds),
        rounds=json.dumps(
            {
                "size_hw": image.shape[:2],
                "pixels_sha256": digest.hexdigest(),
                "branched_from": conversation.branched_from,
                "rounds": [_described(each) for each in conversation.rounds],
            },
            ensure_ascii=False,
        ),
    )


def _described(given: Round) -> dict[str, object]:
    return {
        "round": given.number,
        "prompt": given.prompt,
        "kind": given.kind,
        "texts": given.subquestions,
        "instances": [instance.number for instance in given.instances],
        "references": _references(given),
        "resolution": given.resolution,
        "answer": given.answer,
        "revised": _revised(given),
        "turn_id": given.turn_id,
        "beta": given.beta,
        "judge": given.judge,
    }


def _references(given: Round) -> list[tuple[int, int]]:
    return [(reference.round, reference.instance) for reference in given.references]


def _revised(given: Round) -> list[int]:
    # The user's corrections stand beside them, and are not `corrected`; judged embeddings, too.
    return [instance.number for instance in given.revisions if instance.corrected]
