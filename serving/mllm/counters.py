"""Numbers the engine counts; `serving.mllm.metrics` shows them to Triton."""

from __future__ import annotations

import threading
from collections import Counter


class Counters:
    """Totals and one gauge, safe to change and read from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals: Counter[tuple[str, str]] = Counter()
        self._in_flight = 0

    def add(self, name: str, label: str = "", amount: int = 1) -> None:
        """Raise the total `name` for one label value."""
        with self._lock:
            self._totals[name, label] += amount

    def totals(self) -> dict[tuple[str, str], int]:
        """(name, label value) to total so far."""
        with self._lock:
            return dict(self._totals)

    @property
    def in_flight(self) -> int:
        """Requests accepted and not yet answered."""
        return self._in_flight

    def enter(self, limit: int) -> bool:
        """Count one more request in flight; False if `limit` are already."""
        with self._lock:
            if self._in_flight >= limit:
                return False
            self._in_flight += 1
            return True

    def leave(self) -> None:
        """Count one request less in flight."""
        with self._lock:
            self._in_flight -= 1
