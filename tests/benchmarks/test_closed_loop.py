import threading
import time

import numpy as np
import pytest

from benchmarks.closed_loop import run
from benchmarks.workload import Case

CASES = [Case(np.zeros((2, 2), np.uint8), str(number)) for number in range(6)]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_exactly_so_many_questions_are_in_flight(concurrency):
    lock, now, most = threading.Lock(), 0, 0

    def ask(case):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1

    measured = run(ask, CASES, concurrency)
    assert most == concurrency
    assert len(measured.latencies_ms) == len(CASES)
    assert min(measured.latencies_ms) >= 20
    assert measured.throughput <= concurrency / 0.02
    assert measured.throughput == pytest.approx(len(CASES) / measured.wall_s)


def test_an_error_of_one_question_ends_the_measurement():
    def ask(case):
        if case.prompt == "3":
            raise ValueError("no answer")

    with pytest.raises(ValueError, match="no answer"):
        run(ask, CASES, 2)
