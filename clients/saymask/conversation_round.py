"""What a conversation returns: its rounds and the masks they gave; frozen, plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["DRAWN_MASK", "ConversationRound", "Instance"]

DRAWN_MASK = (0, 0)
"""How a round names a mask that came with the question among its references."""


@dataclass(frozen=True, eq=False)
class Instance:
    """One mask of a conversation."""

    number: int
    """Counted from 1 over the whole conversation: "instance 2" of a question."""
    mask: NDArray[np.bool_]
    """(H, W) bool on the pixel grid of the image, as the round answered it; true is foreground.
    Read-only."""
    score: float
    """Mean foreground probability of the mask's pixels, each above 0.5; 0 where it is empty."""
    quality: float
    """q in [0, 1]: how well the model judges this mask to fit, before any correction; NaN where it
    has not been judged yet, as no round refers to it."""
    corrected: bool
    """Whether the mask was made from the corrected embedding, as q did not exceed beta."""

    @property
    def found(self) -> bool:
        """Whether the mask holds any pixel."""
        return bool(self.mask.any())


@dataclass(frozen=True, eq=False)
class ConversationRound:
    """One question of a conversation and its answer."""

    round: int
    """Counted from 1: "the output of round 2" of a question."""
    prompt: str
    """The question as it was asked."""
    instances: tuple[Instance, ...] = ()
    """One mask for each object asked for; none in a round that was answered in words alone."""
    references: tuple[tuple[int, int], ...] = ()
    """(round, instance) of the masks that the question was taken to refer to; (0, 0) is the mask
    that came with it."""
    resolution: str = ""
    """How the question's words were understood: which words, and what they were taken for."""
    revised: tuple[int, ...] = ()
    """Numbers of earlier instances whose masks were corrected now, as this round refers to them."""
    answer: str = ""
    """The answer in words."""
    cached_tokens: int = 0
    """Tokens of the prompt that the language model had from earlier rounds."""
    computed_tokens: int = 0
    """Tokens of the prompt that it computed for this round."""
    kind: str = "auto"
    """What was asked for: `auto`, `mask` or `text`."""
    beta: float = 0.6
    """The beta of this round."""
    drawn_mask: NDArray[np.bool_] | None = None
    """(H, W) bool, the mask that was given with the question."""
    correct_instance: int | None = None
    """Instance that `drawn_mask` was given as the correction of."""
    turn_id: str = ""
    """Key under which the server took this question, once, however often it was sent."""
    request_id: str = ""
    """Id under which the server logged the request."""
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    """Wall time on this side: `prepare`, `round_trip` (network and server, every attempt),
    `decode`, `total`."""

    @property
    def masks(self) -> NDArray[np.bool_]:
        """The masks of all instances, (N, H, W) bool; N = 0 without instances."""
        if not self.instances:
            return np.zeros((0, 0, 0), np.bool_)
        return np.stack([instance.mask for instance in self.instances])

    @property
    def found(self) -> bool:
        """Whether any mask holds a pixel."""
        return any(instance.found for instance in self.instances)

    def __repr__(self) -> str:
        instances = ", ".join(
            f"{one.number}: {int(one.mask.sum())} px, q {one.quality:.2f}"
            + (", corrected" if one.corrected else "")
            for one in self.instances
        )
        return (
            f"ConversationRound(round={self.round}, prompt={self.prompt!r}, "
            f"instances=[{instances}], references={list(self.references)}, answer={self.answer!r})"
        )
