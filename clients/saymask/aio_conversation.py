"""Conversations about one image, for asyncio: the twin of `saymask.conversation`."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from saymask import conversation_file
from saymask._conversation_protocol import check_beta, check_question
from saymask._conversation_state import ConversationState, Send, Steps, Wait, waited_for_another
from saymask._retry import Deadline
from saymask.conversation import END_TIMEOUT_S
from saymask.conversation_file import SavedConversation
from saymask.conversation_round import ConversationRound
from saymask.errors import SaymaskError
from saymask.source_image import SourceImage

if TYPE_CHECKING:
    from saymask.aio import Client

__all__ = ["Conversation"]

_T = TypeVar("_T")


class Conversation:
    """Rounds of questions about one image; made by `saymask.aio.Client.conversation`.

    See `saymask.conversation.Conversation`, of which it has every call, awaited. Several tasks may
    use it: one question is asked at a time, the others wait.
    """

    def __init__(self, client: "Client", state: ConversationState, timeout_s: float | None) -> None:
        self._client = client
        self._state = state
        self._timeout_s = timeout_s
        self._one_at_a_time = asyncio.Lock()

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

    async def ask(
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
        """Ask the next question; see `saymask.conversation.Conversation.ask`."""
        question = check_question(
            prompt,
            reference_rounds,
            reference_instances,
            mask,
            correct_instance,
            kind,
            self._state.size_hw,
        )
        return await self._run(lambda deadline: self._state.ask(question, deadline), timeout_s)

    async def undo(self, to_round: int, *, timeout_s: float | None = None) -> None:
        """Forget all rounds after `to_round`; 0 forgets all of them."""
        await self._run(lambda deadline: self._state.undo(to_round, deadline), timeout_s)

    async def branch(self, at_round: int, *, timeout_s: float | None = None) -> "Conversation":
        """Begin another conversation as the rounds of this one up to `at_round`."""
        state = await self._run(lambda deadline: self._state.branch(at_round, deadline), timeout_s)
        return Conversation(self._client, state, self._timeout_s)

    async def recall(self, *, timeout_s: float | None = None) -> tuple[ConversationRound, ...]:
        """Read the rounds that the server has stored, and return `rounds`."""
        await self._run(self._state.recall, timeout_s)
        return self.rounds

    async def erase(self, *, timeout_s: float | None = None) -> None:
        """Have the server forget the conversation, and end it; `rounds` stay here."""
        await self._run(self._state.erase, timeout_s)

    def saved(self) -> SavedConversation:
        """Return what `save` writes."""
        return self._state.saved()

    async def save(self, path: str | Path) -> None:
        """Write the conversation to a JSON file, from which it can be resumed or replayed."""
        await asyncio.to_thread(conversation_file.save, path, self.saved())

    async def close(self) -> None:
        """Give the place on the server back; the stored conversation stays and can be resumed."""
        # A server that cannot be told takes the place back by itself, after its idle time.
        with contextlib.suppress(SaymaskError):
            await self._run(self._state.end, END_TIMEOUT_S)
        self._state.ended = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"Conversation(id={self.id!r}, rounds={len(self.rounds)}, beta={self.beta})"

    async def _run(self, operation: Callable[[Deadline], Steps[_T]], timeout_s: float | None) -> _T:
        deadline = self._client._deadline(self._timeout_s if timeout_s is None else timeout_s)
        try:
            await asyncio.wait_for(self._one_at_a_time.acquire(), deadline.remaining_s())
        except TimeoutError:
            raise waited_for_another() from None
        try:
            return await self._run_through(operation(deadline))
        finally:
            self._one_at_a_time.release()

    async def _run_through(self, steps: Steps[_T]) -> _T:
        """Run an operation to its end, as `_conversation_state.run_through` does, with awaits."""
        try:
            step = next(steps)
            while True:
                try:
                    reply = await self._take(step)
                except SaymaskError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(reply)
        except StopIteration as stop:
            result: _T = stop.value
            return result
        finally:
            steps.close()

    async def _take(self, step: Send | Wait) -> Any:
        if isinstance(step, Wait):
            return await asyncio.sleep(step.seconds)
        stub = self._client._stub()
        return await self._client._send(stub.ModelInfer, step.message, step.deadline, step.metadata)
