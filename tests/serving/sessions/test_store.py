"""What every store does, over all of them."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from serving.errors import INVALID_ARG, NOT_FOUND, UNAVAILABLE, kind_of
from serving.sessions.conversation import append_round, undo
from serving.sessions.store import (
    Conflict,
    ConversationNotFound,
    ConversationTooLarge,
    DuplicateConversation,
)
from tests.serving.sessions.records import a_conversation, a_round, an_instance, plain


def with_one_more(conversation, seed=1):
    rng = np.random.default_rng(seed)
    number = len(conversation.rounds) + 1
    instance = an_instance(rng, len(conversation.instances) + 1)
    turn_id = f"{seed}:{number}"
    return append_round(conversation, a_round(rng, number, [instance], turn_id=turn_id))


def save_next(store, conversation, seed=1):
    grown = with_one_more(conversation, seed)
    store.save(grown, conversation.revision)
    return grown


@pytest.mark.parametrize("conversation_id", ["c-1", "é }{:*", "x" * 128])
def test_what_is_saved_is_what_another_loads(open_stores, conversation_id):
    one, other = open_stores()
    conversation = a_conversation(conversation_id, rounds=2)
    one.create(conversation)
    assert plain(other.load(conversation_id)) == plain(conversation)
    grown = save_next(other, other.load(conversation_id))
    assert plain(one.load(conversation_id)) == plain(grown)
    fewer = undo(grown, 1)
    one.save(fewer, grown.revision)
    assert plain(other.load(conversation_id)) == plain(fewer)


def test_an_id_in_use_is_refused_and_what_is_stored_stays(open_stores):
    one, other = open_stores()
    first = a_conversation(rounds=1)
    one.create(first)
    with pytest.raises(DuplicateConversation, match=r"'c-1'.*resume it") as refused:
        other.create(a_conversation(seed=5, created_s=5.0))
    assert kind_of(refused.value) == INVALID_ARG
    assert plain(one.load("c-1")) == plain(first)


def test_an_unknown_conversation_is_not_found(open_stores):
    store, _ = open_stores()
    with pytest.raises(ConversationNotFound, match=r"'c-1'.*start a new one") as unknown:
        store.load("c-1")
    assert kind_of(unknown.value) == NOT_FOUND
    with pytest.raises(ConversationNotFound):
        store.save(a_conversation(rounds=1), 0)
    with pytest.raises(ConversationNotFound):
        store.load("c-1")  # and was not made by the save
    for action in (store.load, store.erase):
        with pytest.raises(ValueError, match="conversation id"):
            action("a\n")


def test_the_second_of_two_writers_of_one_revision_is_told(open_stores):
    one, other = open_stores()
    one.create(a_conversation())
    seen_by_one, seen_by_other = one.load("c-1"), other.load("c-1")
    won = save_next(one, seen_by_one, seed=1)
    with pytest.raises(Conflict, match=r"since revision 0.*try again") as told:
        save_next(other, seen_by_other, seed=2)
    assert kind_of(told.value) == UNAVAILABLE
    assert plain(other.load("c-1")) == plain(won)
    both = save_next(other, other.load("c-1"), seed=2)
    assert plain(one.load("c-1")) == plain(both)


def test_a_revision_that_does_not_grow_is_refused(open_stores):
    store, _ = open_stores()
    conversation = a_conversation(rounds=1)
    store.create(conversation)
    with pytest.raises(ValueError, match="revision 1 cannot follow 1"):
        store.save(conversation, 1)


def test_rounds_are_not_put_under_another_picture_of_the_same_id(open_stores):
    one, other = open_stores()
    old = a_conversation()
    one.create(old)
    assert other.erase("c-1")
    new = a_conversation(seed=9, created_s=old.created_s + 1)
    other.create(new)
    with pytest.raises(Conflict):
        save_next(one, old)
    assert plain(one.load("c-1")) == plain(new)


def test_many_writers_lose_and_repeat_no_round(open_stores):
    stores = open_stores()
    stores[0].create(a_conversation())
    begin = threading.Barrier(4)
    conflicts = []

    def write(writer):
        begin.wait()
        for turn in range(5):
            while True:
                seen = stores[writer % 2].load("c-1")
                number = len(seen.rounds) + 1
                added = a_round(np.random.default_rng(0), number, turn_id=f"{writer}:{turn}")
                time.sleep(0.001)  # lets another in between
                try:
                    stores[writer % 2].save(append_round(seen, added), seen.revision)
                    break
                except Conflict:
                    conflicts.append(writer)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))
    final = stores[0].load("c-1")
    written = [each.turn_id for each in final.rounds]
    assert sorted(written) == sorted(f"{w}:{t}" for w in range(4) for t in range(5))
    assert [turn for turn in written if turn.startswith("2:")] == [f"2:{t}" for t in range(5)]
    assert final.revision == 20
    assert conflicts


def test_of_many_creators_one_succeeds(open_stores):
    stores = open_stores()
    begin = threading.Barrier(8)

    def create(number):
        begin.wait()
        try:
            stores[number % 2].create(a_conversation(seed=number, rounds=1))
        except DuplicateConversation:
            return None
        return number

    with ThreadPoolExecutor(8) as threads:
        winners = [each for each in threads.map(create, range(8)) if each is not None]
    assert len(winners) == 1
    assert plain(stores[0].load("c-1")) == plain(a_conversation(seed=winners[0], rounds=1))


def test_erased_is_gone_and_the_id_is_free(open_stores):
    one, other = open_stores()
    one.create(a_conversation(rounds=1))
    one.create(a_conversation("c-2"))
    assert other.erase("c-1")
    assert not one.erase("c-1")
    with pytest.raises(ConversationNotFound):
        one.load("c-1")
    with pytest.raises(ConversationNotFound):
        save_next(one, a_conversation(rounds=1))
    one.create(a_conversation(seed=3))
    assert one.load("c-2").id == "c-2"


def test_every_use_renews_the_time(open_stores):
    store, _ = open_stores(ttl_s=0.6)
    store.create(a_conversation())
    store.create(a_conversation("unused"))
    time.sleep(0.4)
    seen = store.load("c-1")
    time.sleep(0.4)  # past the first end
    save_next(store, seen)
    with pytest.raises(ConversationNotFound):
        store.load("unused")
    time.sleep(0.4)  # past the second
    assert len(store.load("c-1").rounds) == 1
    time.sleep(0.7)
    with pytest.raises(ConversationNotFound):
        store.load("c-1")
    store.create(a_conversation())


def test_a_conversation_beyond_the_bound_is_refused_and_the_stored_one_stays(open_stores):
    bound = a_conversation(rounds=2).size_bytes
    store, _ = open_stores(bound_bytes=bound)
    fits = a_conversation(rounds=2)
    store.create(fits)
    large = with_one_more(fits)
    with pytest.raises(ConversationTooLarge, match=rf"{bound} of one: undo rounds") as refused:
        store.save(large, fits.revision)
    assert kind_of(refused.value) == INVALID_ARG
    with pytest.raises(ConversationTooLarge, match=str(a_conversation(rounds=3).size_bytes)):
        store.create(a_conversation("c-2", rounds=3))
    assert plain(store.load("c-1")) == plain(fits)


@pytest.mark.parametrize(
    "bad",
    [{"ttl_s": 0}, {"ttl_s": -1}, {"ttl_s": np.nan}, {"ttl_s": np.inf}, {"bound_bytes": 0}],
)
def test_a_store_that_would_keep_nothing_or_for_ever_is_refused(open_stores, bad):
    with pytest.raises(ValueError, match="expected at least"):
        open_stores(**bad)
