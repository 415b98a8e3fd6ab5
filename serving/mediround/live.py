"""Which conversations a server holds open: a bounded number, one request at a time in each.

Triton's sequence batching knows them, too, but lets a conversation beyond its bound wait without a
word until another one ends, starts a sequence's next request before the last is answered, and tells
nobody when it gives an idle one up.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from serving.errors import Cancelled, Unavailable
from serving.sessions.conversation import Conversation

_POLL_S = 0.05
"""How often a request that waits for its conversation asks whether it is still wanted."""


@dataclass
class LiveConversation:
    """One that is open here."""

    used_s: float
    """When its last request came or was answered, on the clock."""
    stored: Conversation | None = None
    """As the store had it when this server wrote or read it last, so that a round does not fetch
    its picture again; a change elsewhere shows when the next one is saved."""
    requests: int = 0
    """Requests that hold it or wait for it."""
    answered: bool = False
    """Whether one of its requests was."""
    turn: threading.Lock = field(default_factory=threading.Lock)


class LiveConversations:
    """Admits conversations up to a limit, and lets one request of each work at a time.

    Args:
        limit: Conversations at most.
        idle_s: Seconds after which one that nobody continues gives its place back.
        clock: Seconds that only go forward.
    """

    def __init__(
        self, limit: int, idle_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit, self._idle_s, self._clock = limit, idle_s, clock
        self._conversations: dict[str, LiveConversation] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            self._forget_idle()
            return len(self._conversations)

    @contextmanager
    def turn(
        self, name: str, is_cancelled: Callable[[], bool], *, last: bool
    ) -> Iterator[LiveConversation]:
        """Work on one request of a conversation while the `with` block runs.

        What is known of the stored conversation is forgotten where the block fails.

        Args:
            name: The conversation's id.
            is_cancelled: Whether the client has given up.
            last: The conversation ends with this request, also where that fails.

        Raises:
            Unavailable: if it is not open here, and as many as may be are.
            Cancelled: if the client gave up while it waited for its turn.
        """
        conversation = self._enter(name)
        try:
            while not conversation.turn.acquire(timeout=_POLL_S):
                if is_cancelled():
                    raise Cancelled
            try:
                yield conversation
                conversation.answered = True
            except BaseException:
                conversation.stored = None
                raise
            finally:
                conversation.turn.release()
        finally:
            self._leave(name, conversation, last)

    def _enter(self, name: str) -> LiveConversation:
        with self._lock:
            self._forget_idle()
            conversation = self._conversations.get(name)
            if conversation is None:
                if len(self._conversations) >= self._limit:
                    raise Unavailable(
                        f"this server holds {self._limit} conversations, its max_conversations; "
                        "try again with the same conversation id when one has ended, or after "
                        f"{self._idle_s:g} s without a request was given up"
                    )
                conversation = self._conversations[name] = LiveConversation(self._clock())
            conversation.requests += 1
            conversation.used_s = self._clock()
            return conversation

    def _leave(self, name: str, conversation: LiveConversation, last: bool) -> None:
        with self._lock:
            conversation.requests -= 1
            conversation.used_s = self._clock()
            # A first request that failed has opened nothing.
            if conversation.requests == 0 and (last or not conversation.answered):
                del self._conversations[name]

    def _forget_idle(self) -> None:
        oldest = self._clock() - self._idle_s
        for name, conversation in list(self._conversations.items()):
            if conversation.requests == 0 and conversation.used_s < oldest:
                del self._conversations[name]
