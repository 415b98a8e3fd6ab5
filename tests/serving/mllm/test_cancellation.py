import threading
import time

from serving.mllm.cancellation import CancellationWatch


class FakeSender:
    def __init__(self):
        self.cancelled = False
        self.asked = 0

    def is_cancelled(self):
        self.asked += 1
        return self.cancelled


def test_a_cancelled_request_is_cancelled_once():
    watch = CancellationWatch()
    sender, called = FakeSender(), threading.Event()
    calls = []
    watch.add(sender, lambda: (calls.append(1), called.set()))
    sender.cancelled = True
    assert called.wait(2)
    time.sleep(0.15)
    watch.close()
    assert calls == [1]


def test_nobody_is_asked_after_the_request_was_closed():
    watch = CancellationWatch()
    sender = FakeSender()
    watched = watch.add(sender, lambda: None)
    while not sender.asked:
        time.sleep(0.01)
    watched.close()
    asked = sender.asked
    time.sleep(0.15)
    watch.close()
    assert sender.asked == asked


def test_all_live_requests_are_asked_about_twenty_times_a_second():
    watch = CancellationWatch()
    senders = [FakeSender() for _ in range(3)]
    for sender in senders:
        watch.add(sender, lambda: None)
    time.sleep(0.6)
    watch.close()
    assert all(3 <= sender.asked <= 14 for sender in senders)
