"""Ends a call of the blocking client from another thread."""

import threading
from typing import Any

from saymask.errors import Cancelled


class Cancellation:
    """Ends one call from another thread: the requests it has out, and its wait between two."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._rpcs: list[Any] = []

    def watch(self, rpc: Any) -> None:
        """Have `cancel` cancel this request too; at once if it came first."""
        with self._lock:
            self._rpcs = [known for known in self._rpcs if not known.done()] + [rpc]
        if self._cancelled.is_set():
            rpc.cancel()

    def cancel(self) -> None:
        """Cancel the call; does nothing where all is answered."""
        self._cancelled.set()
        with self._lock:
            rpcs = list(self._rpcs)
        for rpc in rpcs:
            rpc.cancel()

    def sleep(self, seconds: float) -> None:
        """Wait, or raise `Cancelled` as soon as the call is cancelled."""
        if self._cancelled.wait(seconds):
            raise Cancelled("cancelled here, while waiting to try again")
