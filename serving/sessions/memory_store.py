"""Conversations in the memory of this process: gone with it, and unknown to other servers."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from serving.sessions.conversation import Conversation, check_conversation_id
from serving.sessions.store import (
    Conflict,
    ConversationNotFound,
    DuplicateConversation,
    check_bounds,
    check_newer,
    check_size,
)


class MemoryStore:
    """A `ConversationStore` with a bound for all conversations together.

    A thread drops what has expired, so that nothing stays longer because nobody asks.

    Args:
        ttl_s: Seconds a conversation is kept after its last use.
        capacity_bytes: Bytes of all conversations (`Conversation.size_bytes`); the least recently
            used give way. A conversation larger than that is refused.
        clock: Seconds that only grow.
    """

    def __init__(
        self, *, ttl_s: float, capacity_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        check_bounds(ttl_s, capacity_bytes)
        self._ttl_s = ttl_s
        self._capacity_bytes = capacity_bytes
        self._clock = clock
        # Notified when there is something to expire again, or nothing will be.
        self._lock = threading.Condition()
        # In the order of use, and therefore of expiry.
        self._kept: OrderedDict[str, tuple[float, Conversation]] = OrderedDict()
        self._size_bytes = 0
        self._closed = False
        self._sweeper = threading.Thread(target=self._sweep, name="session-expiry", daemon=True)
        self._sweeper.start()

    @property
    def size_bytes(self) -> int:
        """Bytes held now."""
        with self._lock:
            self._drop_expired()
            return self._size_bytes

    def create(self, conversation: Conversation) -> None:
        """See `ConversationStore.create`."""
        check_size(conversation, self._capacity_bytes)
        with self._lock:
            self._drop_expired()
            if conversation.id in self._kept:
                raise DuplicateConversation(conversation.id)
            self._keep(conversation)

    def load(self, conversation_id: str) -> Conversation:
        """See `ConversationStore.load`."""
        check_conversation_id(conversation_id)
        with self._lock:
            conversation = self._stored(conversation_id)
            self._keep(conversation)
            return conversation

    def save(self, conversation: Conversation, expected_revision: int) -> None:
        """See `ConversationStore.save`."""
        check_newer(conversation, expected_revision)
        check_size(conversation, self._capacity_bytes)
        with self._lock:
            stored = self._stored(conversation.id)
            if (stored.revision, stored.created_s) != (expected_revision, conversation.created_s):
                raise Conflict(conversation.id, expected_revision)
            self._keep(conversation)

    def erase(self, conversation_id: str) -> bool:
        """See `ConversationStore.erase`."""
        check_conversation_id(conversation_id)
        with self._lock:
            self._drop_expired()
            return self._drop(conversation_id)

    def close(self) -> None:
        """Forget all conversations, and end the thread."""
        with self._lock:
            self._kept.clear()
            self._size_bytes = 0
            self._closed = True
            self._lock.notify()
        self._sweeper.join()

    def _stored(self, conversation_id: str) -> Conversation:
        self._drop_expired()
        if conversation_id not in self._kept:
            raise ConversationNotFound(conversation_id)
        return self._kept[conversation_id][1]

    def _keep(self, conversation: Conversation) -> None:
        self._drop(conversation.id)
        if not self._kept:
            self._lock.notify()
        self._kept[conversation.id] = (self._clock() + self._ttl_s, conversation)
        self._size_bytes += conversation.size_bytes
        while self._size_bytes > self._capacity_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, conversation_id: str) -> bool:
        if conversation_id not in self._kept:
            return False
        _, conversation = self._kept.pop(conversation_id)
        self._size_bytes -= conversation.size_bytes
        return True

    def _sweep(self) -> None:
        """Drop each conversation when its time is over, until the store is closed."""
        with self._lock:
            while not self._closed:
                self._drop_expired()
                next_s = next((expires_s for expires_s, _ in self._kept.values()), None)
                self._lock.wait(None if next_s is None else next_s - self._clock())

    def _drop_expired(self) -> None:
        now_s = self._clock()
        while self._kept:
            oldest, (expires_s, _) = next(iter(self._kept.items()))
            if expires_s > now_s:
                break
            self._drop(oldest)
