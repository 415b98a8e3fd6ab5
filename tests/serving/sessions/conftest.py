"""One Redis for the folder; each test has keys of its own."""

import itertools

import pytest

from serving.sessions.memory_store import MemoryStore
from serving.sessions.redis_store import RedisStore
from tests.redis_server import running_redis

_prefixes = (f"test-{number}" for number in itertools.count())


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
def open_stores(request):
    """Opens two handles of one empty store, as two servers (or threads) would have them."""
    opened = []

    def open_both(ttl_s=60.0, bound_bytes=1 << 24):
        if request.param == "memory":
            stores = [MemoryStore(ttl_s=ttl_s, capacity_bytes=bound_bytes)] * 2
        else:
            url = request.getfixturevalue("redis_server").url
            prefix = next(_prefixes)
            stores = [
                RedisStore(url, ttl_s=ttl_s, max_conversation_bytes=bound_bytes, key_prefix=prefix)
                for _ in range(2)
            ]
        opened.extend(stores)
        return stores

    yield open_both
    for store in opened:
        store.close()
