"""Where conversations are kept: what every store does, and how it refuses.

`serving.sessions.memory_store` keeps them in this process, `serving.sessions.redis_store` in Redis,
where other servers find them too. Both are safe to share by threads.
"""

from typing import Protocol

from serving.errors import Unavailable
from serving.sessions.conversation import Conversation

LONGEST_TTL_S = 10 * 365 * 86400
"""Seconds; no timer waits for longer ones, infinity among them."""


class ConversationStore(Protocol):
    """Keeps conversations for a time after their last use."""

    def create(self, conversation: Conversation) -> None:
        """Keep a new conversation.

        Raises:
            DuplicateConversation: Its id is in use; what is stored stays as it is.
            ConversationTooLarge: It is beyond the store's bound.
            Unavailable: The store cannot be reached, or cannot write.
        """

    def load(self, conversation_id: str) -> Conversation:
        """Return a conversation and renew its time.

        Raises:
            ConversationNotFound: It is not there, or no longer.
            UnreadableConversation: What is stored is damaged, or of another version.
            Unavailable: The store cannot be reached.
        """

    def save(self, conversation: Conversation, expected_revision: int) -> None:
        """Put the rounds in the place of those stored, and renew the conversation's time.

        After an `Unavailable` that is no `Conflict`, the rounds may or may not have been stored:
        load before the next save.

        Args:
            conversation: With a `revision` above `expected_revision`.
            expected_revision: What `load` or the last `save` had; nothing is written if another
                server has written since.

        Raises:
            Conflict: Another revision is stored, or another conversation of the same id.
            ConversationNotFound: It is no longer there; nothing is written.
            ConversationTooLarge: It is beyond the store's bound; nothing is written.
            Unavailable: The store cannot be reached, or cannot write.
        """

    def erase(self, conversation_id: str) -> bool:
        """Remove a conversation, picture and all; returns whether it was there.

        Raises:
            Unavailable: The store cannot be reached.
        """

    def close(self) -> None:
        """Give back memory or connections; what Redis holds stays."""


class DuplicateConversation(ValueError):  # noqa: N818
    """A conversation of this id is stored already."""

    def __init__(self, conversation_id: str) -> None:
        super().__init__(
            f"conversation {conversation_id!r} is stored already: resume it, erase it, or start "
            "with another id"
        )


class ConversationNotFound(LookupError):  # noqa: N818
    """No conversation of this id is stored."""

    def __init__(self, conversation_id: str) -> None:
        super().__init__(
            f"conversation {conversation_id!r} is not stored: it has expired, was erased, gave way "
            "to newer ones, or never was; start a new one with the image, or replay a saved one"
        )


class Conflict(Unavailable):
    """Another server has written since: load the conversation again, then retry."""

    def __init__(self, conversation_id: str, expected_revision: int) -> None:
        super().__init__(
            f"conversation {conversation_id!r} was changed elsewhere since revision "
            f"{expected_revision}: nothing was written; resume it and try again"
        )


class ConversationTooLarge(ValueError):  # noqa: N818
    """A conversation is beyond what the store keeps."""

    def __init__(self, conversation_id: str, size_bytes: int, bound_bytes: int) -> None:
        super().__init__(
            f"conversation {conversation_id!r} takes {size_bytes} bytes, this store keeps at most "
            f"{bound_bytes} of one: undo rounds, or start a new conversation"
        )


def check_size(conversation: Conversation, bound_bytes: int) -> None:
    """Refuse a conversation beyond a bound.

    Raises:
        ConversationTooLarge: It is.
    """
    if conversation.size_bytes > bound_bytes:
        raise ConversationTooLarge(conversation.id, conversation.size_bytes, bound_bytes)


def check_newer(conversation: Conversation, expected_revision: int) -> None:
    """Refuse to store a revision that is none after the expected one.

    Raises:
        ValueError: It is not.
    """
    if conversation.revision <= expected_revision:
        raise ValueError(
            f"conversation {conversation.id!r}: revision {conversation.revision} cannot follow "
            f"{expected_revision}; save what append_round and the like return"
        )


def check_bounds(ttl_s: float, bound_bytes: int) -> None:
    """Refuse a time or a bound that would keep nothing, or for ever.

    Raises:
        ValueError: One of them is out of range.
    """
    if not 0.001 <= ttl_s <= LONGEST_TTL_S or bound_bytes < 1:
        raise ValueError(
            f"session store with ttl_s {ttl_s} and a bound of {bound_bytes} bytes: expected at "
            f"least 0.001 s, at most {LONGEST_TTL_S} s (ten years), and at least 1 byte"
        )
