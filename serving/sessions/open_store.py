"""Which store: from the configuration, or from the environment, where secrets belong.

Secrets stay out of `config.pbtxt`, which everyone may read and Triton shows to its clients.
"""

import os
from pathlib import Path

from serving.sessions.memory_store import MemoryStore
from serving.sessions.redis_store import RedisStore
from serving.sessions.store import ConversationStore

VARIABLE = "SAYMASK_SESSION_STORE"
"""Environment variable that comes before the configuration."""

MEMORY = "memory"
"""Name of the store in this process."""

_FILE = "file:"


def open_store(
    configured: str = MEMORY,
    *,
    ttl_s: float,
    capacity_bytes: int,
    max_conversation_bytes: int,
    key_prefix: str = "saymask",
    timeout_s: float = 2.0,
) -> ConversationStore:
    """Open the store that `SAYMASK_SESSION_STORE` names; where it is not set, the configured one.

    Args:
        configured: "memory", a Redis URL without a password (see `RedisStore`), or "file:PATH".
            The variable takes the same and a URL with a password; so does the file, in one line.
        ttl_s: Seconds a conversation is kept after its last use.
        capacity_bytes: Bytes of all conversations in memory; Redis has its own `maxmemory`.
        max_conversation_bytes: Bytes of the largest conversation in Redis.
        key_prefix: First part of every key in Redis.
        timeout_s: Longest wait for Redis.

    Raises:
        ValueError: What is named cannot be used, or a password stands in the configuration.
        OSError: The file cannot be read.
        Unavailable: It is a cluster, and cannot be reached.
    """
    named = os.environ.get(VARIABLE)
    if named is None:
        named = configured
        if _has_password(named):
            raise ValueError(
                "session store: the configuration holds a password, and Triton shows it to every "
                f"client; put the URL into the environment variable {VARIABLE}, or into a file and "
                "name it: file:PATH"
            )
    if named.startswith(_FILE):
        named = Path(named.removeprefix(_FILE)).read_text(encoding="utf-8").strip()
    if named == MEMORY:
        return MemoryStore(ttl_s=ttl_s, capacity_bytes=capacity_bytes)
    return RedisStore(
        named,
        ttl_s=ttl_s,
        max_conversation_bytes=max_conversation_bytes,
        key_prefix=key_prefix,
        timeout_s=timeout_s,
    )


def _has_password(url: str) -> bool:
    return "@" in url or "password=" in url.lower()
