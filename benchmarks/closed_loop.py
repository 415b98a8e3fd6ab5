"""Asks a list of questions with a fixed number of them in flight, and times each."""

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """Times of one list of questions."""

    latencies_ms: list[float]
    """One per question, in no particular order."""
    wall_s: float
    """From the first question to the last answer."""

    @property
    def latency_ms(self) -> float:
        """Median."""
        return statistics.median(self.latencies_ms)

    @property
    def throughput(self) -> float:
        """Questions answered per second."""
        return len(self.latencies_ms) / self.wall_s


def run(ask: Callable[[T], object], cases: Sequence[T], concurrency: int) -> Measured:
    """Ask all questions, `concurrency` at a time; a worker takes the next one when it is free.

    Raises:
        Exception: what `ask` raised for the first of `cases` that failed.
    """
    started = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as workers:
        latencies_ms = list(workers.map(_timed, repeat(ask), cases))
    return Measured(latencies_ms, time.perf_counter() - started)


def _timed(ask: Callable[[T], object], case: T) -> float:
    started = time.perf_counter()
    ask(case)
    return 1e3 * (time.perf_counter() - started)
