"""Conversations about one image, blocking: rounds whose questions refer to earlier masks.

What is sent when, and what follows a lost server, is in `_conversation_state`; the asyncio twin is
`saymask.aio_conversation`.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from saymask import conversation_file
from saymask._conversation_protocol import check_beta, check_question
from saymask._conversation_state import (
    ConversationLost,
    ConversationState,
    Send,
    Steps,
    run_through,
    waited_for_another,
)
from saymask._retry import Deadline
from saymask.conversation_file import SavedConversation
from saymask.conversation_replay import Difference, Replay
from saymask.conversation_round import ConversationRound, Instance
from saymask.errors import SaymaskError
from saymask.source_image import SourceImage

if TYPE_CHECKING:
    from saymask.client import Client

__all__ = [
    "Conversation",
    "ConversationLost",
    "ConversationRound",
    "Difference",
    "Instance",
    "Replay",
]

END_TIMEOUT_S = 5.0
"""Longest time to tell a server that a conversation is over; its place expires without that."""

_T = TypeVar("_T")


class Conversation:
    """Rounds of questions about one image; made by `Client.conversation`.

    Several threads may use it: one question is asked at a time, the others wait. After a lost
    connection the same question goes to whichever server answers, which continues where the stored
    conversation is; it is taken once, however often it has to be sent.

    Leaving its `with` block, or `close`, gives its place on the server back. The server keeps the
    conversation for its time to live; `erase` removes it.
    """

    def __init__(self, client: "Client", state: ConversationState, timeout_s: float | None) -> None:
        self._client = client
        self._state = state
        self._timeout_s = timeout_s
        self._one_at_a_time = threading.Lock()

    @property
    def id(self) -> str:
        """Id of the conversation on the server; whoever knows it can resume it."""
        return self._state.id

    @property
    def rounds(self) -> tuple[ConversationRound, ...]:
        """The rounds so far, each as it was answered."""
        return self._state.rounds

    @property
    def image(self) -> SourceImage | None:
        """The file's picture that it is about; None for an array, or where it is not known."""
        return None if self._state.image is None else self._state.image.source

    @property
    def judge(self) -> str:
        """Which masks are judged and corrected: `every`, or those `referenced` by a later round."""
        return self._state.judge

    @property
    def beta(self) -> float:
        """Quality in [0, 1] up to which a mask is corrected; may be set, for the rounds to come."""
        return self._state.beta

    @beta.setter
    def beta(self, beta: float) -> None:
        self._state.beta = check_beta(beta)

    def ask(
        self,
        prompt: str,
        *,
        reference_rounds: int | Sequence[int] | None = None,
        reference_instances: int | Sequence[int] | None = None,
        mask: NDArray[np.bool_] | None = None,
        correct_instance: int | None = None,
        kind: str = "auto",
        timeout_s: float | None = None,
    ) -> ConversationRound:
        """Ask the next question.

        After an error that leaves open whether the server took the question, such as
        `DeadlineExceeded`, asking the same again fetches its answer and makes no further round.

        Args:
            prompt: the question, in plain words; it may refer to earlier rounds or instances.
            reference_rounds: rounds whose masks it refers to, from 1; None leaves it to its words.
            reference_instances: the same by the numbers of instances.
            mask: (H, W) bool on the image's grid: a mask that you drew, and the question refers to.
            correct_instance: the instance that `mask` replaces from now on.
            kind: `mask` or `text` for an answer of that kind; `auto` leaves it to the words.
            timeout_s: longest time for this round, the wait for another thread's included; None
                takes the conversation's.

        Raises:
            InvalidArgument: for what cannot be asked, such as a reference to a round to come.
            ConversationLost: if the server no longer has the conversation.
            SaymaskError: of the kind the server answered.
        """
        question = check_question(
            prompt,
            reference_rounds,
            reference_instances,
            mask,
            correct_instance,
            kind,
            self._state.size_hw,
        )
        return self._run(lambda deadline: self._state.ask(question, deadline), timeout_s)

    def undo(self, to_round: int, *, timeout_s: float | None = None) -> None:
        """Forget all rounds after `to_round`; 0 forgets all of them."""
        self._run(lambda deadline: self._state.undo(to_round, deadline), timeout_s)

    def branch(self, at_round: int, *, timeout_s: float | None = None) -> "Conversation":
        """Begin another conversation as the rounds of this one up to `at_round`."""
        state = self._run(lambda deadline: self._state.branch(at_round, deadline), timeout_s)
        return Conversation(self._client, state, self._timeout_s)

    def recall(self, *, timeout_s: float | None = None) -> tuple[ConversationRound, ...]:
        """Read the rounds that the server has stored, and return `rounds`."""
        self._run(self._state.recall, timeout_s)
        return self.rounds

    def erase(self, *, timeout_s: float | None = None) -> None:
        """Have the server forget the conversation, and end it; `rounds` stay here."""
        self._run(self._state.erase, timeout_s)

    def saved(self) -> SavedConversation:
        """Return what `save` writes."""
        return self._state.saved()

    def save(self, path: str | Path) -> None:
        """Write the conversation to a JSON file, from which it can be resumed or replayed.

        Raises:
            OSError: if it cannot be written.
        """
        conversation_file.save(path, self.saved())

    def close(self) -> None:
        """Give the place on the server back; the stored conversation stays and can be resumed."""
        # A server that cannot be told takes the place back by itself, after its idle time.
        with contextlib.suppress(SaymaskError):
            self._run(self._state.end, END_TIMEOUT_S)
        self._state.ended = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Conversation(id={self.id!r}, rounds={len(self.rounds)}, beta={self.beta})"

    def _run(self, operation: Callable[[Deadline], Steps[_T]], timeout_s: float | None) -> _T:
        deadline = self._client._deadline(self._timeout_s if timeout_s is None else timeout_s)
        if not self._one_at_a_time.acquire(timeout=deadline.remaining_s()):
            raise waited_for_another()
        try:
            return run_through(operation(deadline), self._send, time.sleep)
        finally:
            self._one_at_a_time.release()

    def _send(self, step: Send) -> Any:
        return self._client._send(
            self._client._stub.ModelInfer, step.message, step.deadline, metadata=step.metadata
        )
