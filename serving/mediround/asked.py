"""What one request to `mediround` asks for, read from its tensors and checked."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.preprocessing import check_image
from serving.prompts import check_prompt

ACTIONS = ("ask", "undo", "branch", "recall", "erase")
KINDS = ("auto", "mask", "text")
JUDGES = ("every", "referenced")

DEFAULT_BETA = 0.6
"""Score up to which an embedding is corrected (paper, Algorithm 1 and figure 7)."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request, in order as far as that can be said without its conversation."""

    action: str = "ask"
    """One of `ACTIONS`."""
    image: np.ndarray | None = None
    """(H, W, C) uint8, C = 1 or 3: the picture of a new conversation."""
    prompt: str | None = None
    """The question; None only where a mask is corrected and nothing asked."""
    reference_rounds: tuple[int, ...] = ()
    """Rounds whose masks the question refers to."""
    reference_instances: tuple[int, ...] = ()
    """Masks that it refers to."""
    mask: np.ndarray | None = None
    """(H, ceil(W / 8)) uint8, one bit a pixel: drawn by the user."""
    mask_instance: int | None = None
    """The instance that `mask` takes the place of; None: of none."""
    round: int | None = None
    """Last round to keep, for `undo` and `branch`; 0 keeps the picture alone."""
    source: str | None = None
    """Id of the conversation to branch from."""
    turn_id: str = ""
    """The client's key of this request, "" for none."""
    resume: bool = False
    """The request continues a stored conversation, where it starts a sequence."""
    kind: str = "auto"
    """One of `KINDS`: how the question is to be answered."""
    beta: float = DEFAULT_BETA
    """Score in [0, 1] up to which an embedding is corrected."""
    judge: str = "every"
    """One of `JUDGES`: whose embeddings are judged."""

    def __post_init__(self) -> None:
        _one_of("action", self.action, ACTIONS)
        _one_of("kind", self.kind, KINDS)
        _one_of("judge", self.judge, JUDGES)
        if self.image is not None:
            check_image(self.image)
        if self.prompt is not None:
            check_prompt(self.prompt)
        if not (math.isfinite(self.beta) and 0 <= self.beta <= 1):
            raise ValueError(f"beta: expected a number from 0 to 1, got {self.beta:g}")
        if self.mask_instance is not None and self.mask is None:
            raise ValueError(
                f"mask_instance {self.mask_instance}: expected the mask that corrects it in mask"
            )
        if self.action == "ask" and self.prompt is None and self.mask_instance is None:
            raise ValueError(
                "prompt: missing; expected a question, or mask with mask_instance to correct a mask"
            )
        if self.action in ("undo", "branch") and (self.round is None or self.round < 0):
            raise ValueError(
                f"round: expected the last round to keep, from 0, with action {self.action!r}, "
                f"got {self.round}"
            )
        if self.action == "branch" and not self.source:
            raise ValueError("source: expected the id of a conversation with action 'branch'")
        pointed = self.reference_rounds or self.reference_instances or self.mask is not None
        if self.kind == "text" and pointed:
            raise ValueError(
                "kind 'text': the base model answers about the picture alone; leave out mask, "
                "reference_rounds and reference_instances, or ask with kind 'mask'"
            )


def one(array: np.ndarray | None, name: str) -> Any:
    """The one value of a tensor of shape (1,); None where there is no tensor.

    Raises:
        ValueError: if it holds another number of values.
    """
    if array is None:
        return None
    if array.size != 1:
        raise ValueError(f"{name} has shape {array.shape}: expected one value, shape (1,)")
    return array.reshape(-1)[0]


def numbers(array: np.ndarray | None) -> tuple[int, ...]:
    """The values of a tensor; none where there is no tensor."""
    return () if array is None else tuple(map(int, array.reshape(-1)))


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")
