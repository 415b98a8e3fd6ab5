import threading
import time
import weakref
from contextlib import closing

import pytest

from serving.sessions.memory_store import MemoryStore
from serving.sessions.store import ConversationNotFound
from tests.serving.sessions.records import a_conversation

ONE = a_conversation().size_bytes


class Clock:
    now_s = 100.0

    def __call__(self):
        return self.now_s


def has(store, conversation_id):
    try:
        store.load(conversation_id)
    except ConversationNotFound:
        return False
    return True


def test_the_least_recently_used_give_way():
    with closing(MemoryStore(ttl_s=60, capacity_bytes=3 * ONE)) as store:
        for name in "abc":
            store.create(a_conversation(name))
        store.load("a")
        store.create(a_conversation("d"))
        assert store.size_bytes == 3 * ONE
        assert [has(store, name) for name in "bacd"] == [False, True, True, True]
        grown = a_conversation("a", rounds=1)
        store.save(grown, 0)  # drives out c, then as many as it takes
        assert store.size_bytes <= 3 * ONE
        assert not has(store, "c")
        assert store.load("a") is grown


def test_time_ends_a_conversation_and_gives_back_its_bytes():
    clock = Clock()
    with closing(MemoryStore(ttl_s=10, capacity_bytes=1 << 20, clock=clock)) as store:
        store.create(a_conversation("a"))
        clock.now_s += 6
        store.create(a_conversation("b"))
        clock.now_s += 3.9
        assert has(store, "a")
        clock.now_s += 6.1
        assert store.size_bytes == ONE
        assert not store.erase("b")
        assert has(store, "a")
        clock.now_s += 10
        assert store.size_bytes == 0
        with pytest.raises(ConversationNotFound):
            store.save(a_conversation("a", rounds=1), 0)


def test_what_has_expired_is_freed_although_nobody_asks():
    with closing(MemoryStore(ttl_s=1.0, capacity_bytes=1 << 20)) as store:
        for _ in range(2):  # once more, after the store was empty for a while
            held = []
            for name in "ab":
                conversation = a_conversation(name)
                held.append(weakref.ref(conversation))
                store.create(conversation)
                del conversation
                assert held[-1]() is not None
                time.sleep(0.1)
            end = time.monotonic() + 10
            while any(each() is not None for each in held):
                assert time.monotonic() < end
                time.sleep(0.05)


def test_a_closed_store_holds_nothing_and_leaves_no_thread():
    before = threading.active_count()
    store = MemoryStore(ttl_s=10, capacity_bytes=1 << 20)
    store.create(a_conversation())
    store.close()
    assert store.size_bytes == 0
    assert threading.active_count() == before
    store.close()
