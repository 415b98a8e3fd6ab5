"""Conversations in Redis, where every server finds them and the end of one loses none.

Two keys for a conversation, in one slot of a Redis Cluster:

    PREFIX:{ID}:picture   string, written once
    PREFIX:{ID}:rounds    hash of `revision`, `created_s` and `data`, written with every round

Each change is one Lua script, which Redis runs whole or not at all and writes to its log as one
transaction: nobody ever sees half of one, not even after a crash. Where one key is missing (a
Redis that evicts), the conversation is missing.
"""

import urllib.parse
from collections.abc import Callable
from typing import Any

import redis
import redis.exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from serving.errors import Unavailable
from serving.sessions import codec
from serving.sessions.conversation import Conversation, check_conversation_id
from serving.sessions.store import (
    Conflict,
    ConversationNotFound,
    DuplicateConversation,
    check_bounds,
    check_newer,
    check_size,
)

CLUSTER_SUFFIX = "+cluster"
"""After the scheme of a URL (`rediss+cluster://`): the server named is a node of a cluster."""

_CREATE = """
if redis.call('EXISTS', KEYS[1], KEYS[2]) == 2 then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1])
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], 'revision', ARGV[3], 'created_s', ARGV[4], 'data', ARGV[5])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return 1
"""

_LOAD = """
local picture = redis.call('GET', KEYS[1])
local rounds = redis.call('HGET', KEYS[2], 'data')
if not picture or not rounds then return false end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return {picture, rounds}
"""

_SAVE = """
if redis.call('EXISTS', KEYS[1], KEYS[2]) < 2 then return 'missing' end
local stored = redis.call('HMGET', KEYS[2], 'revision', 'created_s')
if stored[1] ~= ARGV[2] or stored[2] ~= ARGV[4] then return 'conflict' end
redis.call('HSET', KEYS[2], 'revision', ARGV[3], 'data', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return 'saved'
"""

_REFUSED_LOGIN = (
    redis.exceptions.AuthenticationError,
    redis.exceptions.AuthorizationError,
    redis.exceptions.NoPermissionError,
)

# Order matters: the first class an exception is an instance of gives the words.
_FAULTS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (
        _REFUSED_LOGIN,
        "it refused the login or lacks permission: check user and password of its URL",
    ),
    (
        redis.exceptions.OutOfMemoryError,
        "it is out of memory: raise its maxmemory, or let conversations expire sooner",
    ),
    (redis.exceptions.ReadOnlyError, "it is a replica, which takes no writes: name the primary"),
    (redis.exceptions.BusyLoadingError, "it is still reading its files: try again shortly"),
    (redis.exceptions.TimeoutError, "it did not answer in time: try again"),
    (
        (redis.exceptions.MovedError, redis.exceptions.AskError),
        "it is a node of a cluster: write the scheme of its URL as redis+cluster or rediss+cluster",
    ),
    (redis.exceptions.ConnectionError, "it cannot be reached: see that it runs, then try again"),
)


class RedisStore:
    """A `ConversationStore` in one Redis server or cluster.

    Connects with the first request, except to a cluster, whose nodes it asks for at once.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://`, with user, password and database where
            needed; `redis+cluster://` and `rediss+cluster://` for a cluster.
        ttl_s: Seconds a conversation is kept after its last use.
        max_conversation_bytes: Largest conversation taken (`Conversation.size_bytes`); Redis's own
            `maxmemory` bounds all of them together.
        key_prefix: First part of every key, without braces.
        timeout_s: Longest wait for a connection, and for each piece of an answer.

    Raises:
        ValueError: URL, prefix or a bound cannot be used. The text never holds the URL.
        Unavailable: A cluster cannot be reached.
    """

    def __init__(
        self,
        url: str,
        *,
        ttl_s: float,
        max_conversation_bytes: int,
        key_prefix: str = "saymask",
        timeout_s: float = 2.0,
    ) -> None:
        check_bounds(ttl_s, max_conversation_bytes)
        if not key_prefix or set(key_prefix) & set("{}"):
            raise ValueError(f"key prefix {key_prefix!r}: expected a word without braces")
        clustered = url.partition("://")[0].endswith(CLUSTER_SUFFIX)
        url = url.replace(CLUSTER_SUFFIX, "", 1) if clustered else url
        self._address = _address_of(url)
        self._ttl_ms = round(ttl_s * 1000)
        self._max_conversation_bytes = max_conversation_bytes
        self._key_prefix = key_prefix
        options: dict[str, Any] = {
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            # A script that may have run is not sent again, see `load` for the exception.
            "retry": Retry(NoBackoff(), 0),
        }
        build = redis.RedisCluster.from_url if clustered else redis.Redis.from_url
        self._client: Any = self._asked(lambda: build(url, **options))

    def create(self, conversation: Conversation) -> None:
        """See `ConversationStore.create`."""
        check_size(conversation, self._max_conversation_bytes)
        created = self._run(
            _CREATE,
            conversation.id,
            codec.encode_picture(conversation),
            conversation.revision,
            repr(float(conversation.created_s)),
            codec.encode_rounds(conversation),
        )
        if not created:
            raise DuplicateConversation(conversation.id)

    def load(self, conversation_id: str) -> Conversation:
        """See `ConversationStore.load`."""
        try:
            parts = self._run(_LOAD, conversation_id)
        except Unavailable as error:
            # Reading twice harms nothing, and a lost connection is often replaced by a good one.
            lost = isinstance(error.__cause__, redis.exceptions.ConnectionError)
            if not lost or isinstance(error.__cause__, _REFUSED_LOGIN):
                raise
            parts = self._run(_LOAD, conversation_id)
        if parts is None:
            raise ConversationNotFound(conversation_id)
        return codec.decode(*parts)

    def save(self, conversation: Conversation, expected_revision: int) -> None:
        """See `ConversationStore.save`."""
        check_newer(conversation, expected_revision)
        check_size(conversation, self._max_conversation_bytes)
        outcome = self._run(
            _SAVE,
            conversation.id,
            expected_revision,
            conversation.revision,
            repr(float(conversation.created_s)),
            codec.encode_rounds(conversation),
        )
        if outcome == b"missing":
            raise ConversationNotFound(conversation.id)
        if outcome == b"conflict":
            raise Conflict(conversation.id, expected_revision)

    def erase(self, conversation_id: str) -> bool:
        """See `ConversationStore.erase`."""
        keys = self._keys(conversation_id)
        return bool(self._asked(lambda: self._client.delete(*keys)))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _keys(self, conversation_id: str) -> tuple[str, str]:
        check_conversation_id(conversation_id)
        # Quoted, an id has no braces: what stands between them is all of it.
        tagged = f"{self._key_prefix}:{{{urllib.parse.quote(conversation_id, safe='')}}}"
        return f"{tagged}:picture", f"{tagged}:rounds"

    def _run(self, script: str, conversation_id: str, *arguments: bytes | str | int) -> Any:
        keys = self._keys(conversation_id)
        return self._asked(
            lambda: self._client.eval(script, len(keys), *keys, self._ttl_ms, *arguments)
        )

    def _asked(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except (
            redis.exceptions.RedisError,
            redis.exceptions.RedisClusterException,
            OSError,
        ) as error:
            fault = next((words for cls, words in _FAULTS if isinstance(error, cls)), str(error))
            raise Unavailable(f"session store at {self._address}: {fault}") from error


def _address_of(url: str) -> str:
    """Host, port and database of a URL, without user and password."""
    try:
        parts = redis.connection.parse_url(url)
    except ValueError:
        # Without the cause: its text may hold a piece of a password that was not quoted.
        raise ValueError(
            "session store: its URL cannot be read; expected redis://HOST:PORT/DATABASE, rediss:// "
            "or unix://PATH, with / # ? @ : of a password percent-encoded"
        ) from None
    if "path" in parts:
        return str(parts["path"])
    return f"{parts.get('host', 'localhost')}:{parts.get('port', 6379)}/{parts.get('db', 0)}"
