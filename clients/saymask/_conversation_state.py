"""What a client knows of one conversation, and what it sends next; does no networking itself.

Each operation is a generator: it yields a `Send` and is given the response, or has the error thrown
in, or yields a `Wait`; its return value is the operation's. So the blocking and the asyncio client
share how turns are delivered: a turn keeps its key in every attempt, and goes to a server that does
not know the conversation with the order to resume it. Whoever runs an operation runs no other of
the same conversation meanwhile.
"""

import contextlib
import uuid
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, TypeVar

from saymask import _conversation_protocol as protocol
from saymask._conversation_protocol import Question, Turn
from saymask._inputs import ImageLike
from saymask._protocol import Stopwatch
from saymask._retry import Deadline, RetryPolicy
from saymask.conversation_file import ConversationImage, SavedConversation, load
from saymask.conversation_round import ConversationRound
from saymask.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    SaymaskError,
    Unavailable,
)

_ATTEMPTS_FACTOR = 4
"""Further attempts of a turn for each that the client makes elsewhere: repeating is safe here, and
the other server behind a balancer may take seconds to be chosen."""

_UNKNOWN_MODEL = "unknown model"  # Triton's text, where it serves no such pipeline


class ConversationLost(NotFound):
    """The server no longer has the conversation: it expired, was erased, or went with its server.

    The rounds that this side has are kept.
    """

    next_step: ClassVar[str] = (
        "The rounds that this side has are kept: chat.rounds has them, chat.save(path) writes "
        "them, and client.replay_conversation(path) asks them again in a new conversation."
    )


@dataclass(frozen=True)
class Send:
    """Send this message and give back its response, or throw in its error."""

    message: Any
    deadline: Deadline
    metadata: protocol.Metadata
    """Headers of this call, beside the client's own."""


@dataclass(frozen=True)
class Wait:
    """Let this time pass."""

    seconds: float


BETA, JUDGE = 0.6, "every"
"""What a conversation has where nothing else is said."""

_T = TypeVar("_T")

Steps: TypeAlias = Generator[Send | Wait, Any, _T]
"""An operation that is under way."""


class Stored(Enum):
    """Whether the server has the conversation in its store."""

    NO = "no"
    MAYBE = "maybe"  # something was sent that may have arrived
    YES = "yes"


class ConversationState:
    """One conversation as its client sees it.

    Args:
        image: what it is about; None for a stored one of which only the id is known.
        beta: see `saymask.Client.conversation`.
        judge: see `saymask.Client.conversation`.
        retry: when the client sends its other calls again.
        max_message_bytes: limit of the channel.
        conversation_id: of a stored conversation; None begins a new one.
        rounds: rounds known of it.
    """

    def __init__(
        self,
        image: ConversationImage | None,
        beta: float,
        judge: str,
        *,
        retry: RetryPolicy,
        max_message_bytes: int,
        conversation_id: str | None = None,
        rounds: Iterable[ConversationRound] = (),
    ) -> None:
        self.id = conversation_id or uuid.uuid4().hex
        self.image = image
        self.beta = protocol.check_beta(beta)
        self.judge = protocol.check_judge(judge)
        self.rounds = tuple(rounds)
        self.ended = False
        self._retry = retry
        self._patience = replace(retry, retries=_ATTEMPTS_FACTOR * retry.retries)
        self._max_message_bytes = max_message_bytes
        self._metadata = protocol.metadata(self.id)
        self._stored = Stored.NO if conversation_id is None else Stored.YES
        self._here = False  # the server that answered last goes on with the sequence
        self._place = False  # that server may hold a place for it, if only for a refused request
        self._unanswered: Turn | None = None

    @property
    def size_hw(self) -> tuple[int, int]:
        """Rows and columns of the image; a stored conversation is recalled before any question."""
        assert self.image is not None
        return self.image.saved.size_hw

    def saved(self) -> SavedConversation:
        """Return the conversation as a file has it."""
        assert self.image is not None
        return SavedConversation(self.id, self.image.saved, self.beta, self.judge, self.rounds)

    def check_open(self) -> None:
        """Raise `SaymaskError` if the conversation has ended."""
        if self.ended:
            raise SaymaskError(
                f"this conversation has ended; client.resume_conversation({self.id!r}) goes on "
                "with it for as long as the server stores it"
            )

    def ask(self, question: Question, deadline: Deadline) -> Steps[ConversationRound]:
        """Ask one question and keep its round."""
        self.check_open()
        stopwatch, beta = Stopwatch(), self.beta
        turn = yield from self._settled(protocol.ask(question, beta, self.judge), deadline)
        stopwatch.lap("prepare")
        response = yield from self._deliver(turn, deadline)
        stopwatch.lap("round_trip")
        answer = protocol.round_of(response, question, beta, turn.turn_id, self.size_hw)
        stopwatch.lap("decode")
        answer = replace(answer, timings_ms=stopwatch.timings_ms())
        # Numbers are the server's: whoever else holds this conversation may have undone rounds.
        self.rounds = (*self._up_to(answer.round - 1), answer)
        return answer

    def undo(self, to_round: int, deadline: Deadline) -> Steps[None]:
        """Forget all rounds after `to_round`; 0 forgets all."""
        self.check_open()
        turn = protocol.undo(protocol.check_number("to_round", to_round, 0))
        turn = yield from self._settled(turn, deadline)
        self._check_round("to_round", to_round)
        if self._stored is not Stored.NO:
            yield from self._deliver(turn, deadline)
        self.rounds = self._up_to(to_round)

    def branch(self, at_round: int, deadline: Deadline) -> Steps["ConversationState"]:
        """Begin another conversation as the rounds of this one up to `at_round`."""
        self.check_open()
        protocol.check_number("at_round", at_round, 0)
        turn = protocol.branch(self.id, at_round, self.beta, self.judge)
        yield from self._settled(turn, deadline)
        self._check_round("at_round", at_round)
        other = ConversationState(
            self.image,
            self.beta,
            self.judge,
            retry=self._retry,
            max_message_bytes=self._max_message_bytes,
            rounds=self._up_to(at_round),
        )
        if self._stored is not Stored.NO:
            yield from other._deliver(turn, deadline)
        return other

    def recall(self, deadline: Deadline) -> Steps[protocol.Recalled | None]:
        """Read what the server has stored, None where nothing is, and keep the rounds as they are.

        Of rounds that this side knows, its own record is kept, as the server's lacks the masks
        that were drawn.
        """
        self.check_open()
        if self._stored is Stored.NO:
            return None
        try:
            response = yield from self._deliver(protocol.recall(), deadline)
        except ConversationLost:
            if self._stored is Stored.YES:
                raise
            self._stored, self._unanswered = Stored.NO, None  # it never arrived
            return None
        recalled = protocol.recalled_of(response)
        if self.image is None:
            self.image = ConversationImage.of_stored(recalled.size_hw, recalled.pixels_sha256)
        self._check_image(recalled)
        self._unanswered = None
        known = {(one.round, one.turn_id): one for one in self.rounds}
        self.rounds = tuple(known.get((one.round, one.turn_id), one) for one in recalled.rounds)
        return recalled

    def resume(self, deadline: Deadline) -> Steps[None]:
        """Take up a stored conversation, with the settings of its last round if none are known."""
        is_known = bool(self.rounds)
        recalled = yield from self.recall(deadline)
        if recalled is not None and recalled.judge is not None and not is_known:
            self.beta, self.judge = recalled.rounds[-1].beta, recalled.judge

    def erase(self, deadline: Deadline) -> Steps[None]:
        """Have the server forget the conversation, and end it."""
        self.check_open()
        if self._stored is not Stored.NO:
            with contextlib.suppress(ConversationLost):  # then it is what was wanted
                yield from self._deliver(protocol.erase(), deadline, end=True)
        self.ended = True

    def end(self, deadline: Deadline) -> Steps[None]:
        """Give the server's place back; the stored conversation stays."""
        if not self.ended and self._place:
            yield Send(self._message(protocol.end(), end=True), deadline, self._metadata)
        self.ended = True

    def _settled(self, turn: Turn, deadline: Deadline) -> Steps[Turn]:
        """Return the turn to send, once it is known what became of the one before.

        A turn without an answer, cut off by its time say, may have been taken all the same. The
        same thing asked again is that turn, with its key; anything else has the server asked first.
        """
        before = self._unanswered
        if before is not None:
            if before.tensors == turn.tensors:
                return before
            yield from self.recall(deadline)
        return turn

    def _deliver(self, turn: Turn, deadline: Deadline, *, end: bool = False) -> Steps[Any]:
        """Send a turn until it is answered, or no further attempt is due."""
        opens = turn.opens and self._stored is not Stored.YES
        start = not self._here
        resume = start and self._stored is not Stored.NO
        if opens:
            self._stored = Stored.MAYBE
        if turn.changes:
            self._unanswered = turn
        attempt = 0
        while True:
            try:
                message = self._message(turn, opens=opens, start=start, resume=resume, end=end)
                self._place = True
                response = yield Send(message, deadline, self._metadata)
            except Unavailable as error:
                self._here = self._place = False
                delay_s = self._patience.delay_s(attempt, error, deadline)
                if delay_s is None:
                    raise
                start = resume = True
                attempt += 1
                yield Wait(delay_s)
            except InvalidArgument:
                if start:
                    self._settle(turn)
                    raise
                # This server or its slot is not the one of the last turn: it knows no sequence, or
                # has one that it has left behind, and does not see rounds that another one made.
                start = resume = True
            except NotFound as error:
                if _UNKNOWN_MODEL in error.message:
                    self._settle(turn)
                    raise
                if not (opens and resume):
                    raise ConversationLost(
                        f"the conversation is lost: {error.message}",
                        code=error.code,
                        request_id=error.request_id,
                    ) from error
                resume = False  # what was sent first never arrived
            except PermissionDenied:
                self._settle(turn)
                raise
            else:
                self._here = self._place = not end
                self._stored = Stored.YES
                self._settle(turn)
                return response

    def _message(
        self,
        turn: Turn,
        *,
        opens: bool = False,
        start: bool = False,
        resume: bool = False,
        end: bool = False,
    ) -> Any:
        pixels = None if self.image is None else self.image.pixels
        return protocol.request(
            self.id,
            turn,
            image=pixels if opens and turn.takes_image else None,
            start=start,
            resume=resume,
            end=end,
            max_message_bytes=self._max_message_bytes,
        )

    def _settle(self, turn: Turn) -> None:
        """Note that what became of a turn is known."""
        if self._unanswered is turn:
            self._unanswered = None

    def _up_to(self, last: int) -> tuple[ConversationRound, ...]:
        return tuple(one for one in self.rounds if one.round <= last)

    def _check_image(self, recalled: protocol.Recalled) -> None:
        assert self.image is not None
        ours = self.image.saved
        same_pixels = ours.pixels_sha256 in (None, recalled.pixels_sha256)
        if ours.size_hw != recalled.size_hw or not same_pixels:
            raise InvalidArgument(
                f"image: expected the one of conversation {self.id}, of {recalled.size_hw} pixels "
                f"with SHA-256 {recalled.pixels_sha256[:12]}, got one of {ours.size_hw} with "
                f"{(ours.pixels_sha256 or 'unknown')[:12]}; take the same file, slice, frame and "
                "window, or begin a new conversation"
            )

    def _check_round(self, name: str, number: int) -> None:
        if number > len(self.rounds):
            there_are = (
                f"there are rounds 1 to {len(self.rounds)}"
                if self.rounds
                else "there is none yet, so ask something first"
            )
            raise InvalidArgument(f"{name}: there is no round {number}; {there_are}")


def state_to_resume(
    conversation: str | Path,
    image: "ImageLike | None",
    *,
    retry: RetryPolicy,
    max_message_bytes: int,
) -> ConversationState:
    """Return the state of a stored conversation, before it has been recalled.

    Args:
        conversation: its id; or the file it was saved in, as a `Path` or a name ending in .json.
        image: what it is about, where the caller has it.
        retry: as for `ConversationState`.
        max_message_bytes: as for `ConversationState`.

    Raises:
        InvalidArgument: if the file is no conversation, or was about another image.
    """
    if isinstance(conversation, Path) or conversation.endswith(".json"):
        before = load(conversation)
        return ConversationState(
            ConversationImage(before.image) if image is None else before.checked(image),
            before.beta,
            before.judge,
            retry=retry,
            max_message_bytes=max_message_bytes,
            conversation_id=before.id,
            rounds=before.rounds,
        )
    if not conversation:
        raise InvalidArgument("conversation: expected an id or a saved file, got nothing")
    return ConversationState(
        None if image is None else ConversationImage.of(image),
        BETA,
        JUDGE,
        retry=retry,
        max_message_bytes=max_message_bytes,
        conversation_id=conversation,
    )


def waited_for_another() -> DeadlineExceeded:
    """Return the error for a question that waited for another of its conversation."""
    return DeadlineExceeded(
        "another question of this conversation was not answered within timeout_s; questions of "
        "one conversation wait for each other"
    )


def run_through(steps: Steps[_T], send: Callable[[Send], Any], wait: Callable[[float], Any]) -> _T:
    """Run an operation to its end, blocking; the asyncio client has the same loop with awaits."""
    try:
        step = next(steps)
        while True:
            try:
                reply = send(step) if isinstance(step, Send) else wait(step.seconds)
            except SaymaskError as error:
                step = steps.throw(error)
            else:
                step = steps.send(reply)
    except StopIteration as stop:
        result: _T = stop.value
        return result
    finally:
        steps.close()
