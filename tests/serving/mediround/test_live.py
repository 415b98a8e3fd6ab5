"""Admission of conversations and the turn of their requests."""

import threading
import time

import pytest

from serving.errors import Cancelled, Unavailable
from serving.mediround.live import LiveConversations


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def never():
    return False


def use(live, name, last=False):
    with live.turn(name, never, last=last):
        pass


def test_conversations_beyond_the_limit_are_refused_until_one_ends():
    live = LiveConversations(2, idle_s=60)
    use(live, "a")
    use(live, "b")
    with pytest.raises(Unavailable, match=r"holds 2 conversations, its max_conversations"):
        use(live, "c")
    use(live, "a")
    use(live, "b", last=True)
    use(live, "c")
    assert len(live) == 2


def test_a_conversation_that_nobody_continues_gives_its_place_back():
    clock = Clock()
    live = LiveConversations(1, idle_s=60, clock=clock)
    use(live, "a")
    clock.now = 59
    use(live, "a")
    clock.now = 118
    with pytest.raises(Unavailable):
        use(live, "b")
    clock.now = 119.5
    use(live, "b")


def test_a_conversation_at_work_is_not_idle_however_long_it_takes():
    clock = Clock()
    live = LiveConversations(1, idle_s=60, clock=clock)
    with live.turn("a", never, last=False):
        clock.now = 600
        with pytest.raises(Unavailable):
            use(live, "b")


def test_a_first_request_that_fails_opens_nothing_and_a_later_one_ends_nothing():
    live = LiveConversations(1, idle_s=60)
    for expected in (0, 1):
        with pytest.raises(ZeroDivisionError), live.turn("a", never, last=False):
            1 / 0  # noqa: B018
        assert len(live) == expected
        use(live, "a")
    with pytest.raises(ZeroDivisionError), live.turn("a", never, last=True):
        1 / 0  # noqa: B018
    assert len(live) == 0


def test_requests_of_one_conversation_work_one_at_a_time_and_of_others_at_once():
    live = LiveConversations(3, idle_s=60)
    running, most = {"a": 0, "b": 0}, {"a": 0, "b": 0}
    both = threading.Barrier(2, timeout=10)

    def work(name, meet):
        with live.turn(name, never, last=False):
            running[name] += 1
            most[name] = max(most[name], running[name])
            if meet:
                both.wait()
            time.sleep(0.01)
            running[name] -= 1

    threads = [threading.Thread(target=work, args=(n, k == 0)) for k in range(6) for n in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == {"a": 1, "b": 1}


def test_a_request_that_waits_gives_up_with_its_client_and_leaves_the_turn_alone():
    live = LiveConversations(1, idle_s=60)
    with live.turn("a", never, last=False):
        with pytest.raises(Cancelled), live.turn("a", lambda: True, last=True):
            pytest.fail("two turns at once")
        assert len(live) == 1
    use(live, "a")
