"""Notices that clients have given up, and cancels their requests.

Asking costs a round trip to the server, so one thread asks for all live requests, every 50 ms, and
nobody asks per token.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

POLL_INTERVAL_S = 0.05
"""Seconds between two rounds."""


class Sender(Protocol):
    """The part of Triton's response sender used here."""

    def is_cancelled(self) -> bool:
        """Whether the client has cancelled the request."""


class Watched:
    """One live request."""

    def __init__(self, sender: Sender, cancel: Callable[[], object]) -> None:
        self._sender = sender
        self._cancel = cancel
        self._lock = threading.Lock()
        self._open = True

    def close(self) -> None:
        """Ask no more; returns when no question is under way.

        The server frees what a sender asks about with the final response, so this comes first.
        """
        with self._lock:
            self._open = False

    def poll(self) -> bool:
        """Ask once; cancel the request if its client did. False when there is nothing to ask."""
        with self._lock:
            if self._open and self._sender.is_cancelled():
                self._open = False
                self._cancel()
            return self._open


class CancellationWatch:
    """Polls all live requests on one thread."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._live: list[Watched] = []
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="mllm-cancellation", daemon=True)
        self._thread.start()

    def add(self, sender: Sender, cancel: Callable[[], object]) -> Watched:
        """Watch one request; `cancel` is called, once, from the watching thread."""
        watched = Watched(sender, cancel)
        with self._condition:
            self._live.append(watched)
            self._condition.notify()
        return watched

    def close(self) -> None:
        """End the thread."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._live or self._closing)
                if self._closing:
                    return
                live = list(self._live)
            ended = {watched for watched in live if not watched.poll()}
            with self._condition:
                self._live = [watched for watched in self._live if watched not in ended]
                self._condition.wait_for(lambda: self._closing, timeout=POLL_INTERVAL_S)
