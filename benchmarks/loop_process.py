"""A research-style loop in a process of its own.

So its threads and memory are not those of the client that asks the server, and it is idle while the
server is measured.
"""

import multiprocessing
import os
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from benchmarks.plain_network import source_of
from export.sources import Source
from training.networks.profiles import ProfileName

Start = Callable[[Source, torch.device], Callable[[Any], Any]]
"""Builds the networks of a source on a device; returns what answers one piece of work."""


class LoopProcess:
    """Handle of the process; leaving its `with` block ends it.

    Args:
        start: A function of a module, so that the process finds it.
        profile: As in `benchmarks.plain_network.source_of`.
        weights: Likewise.
    """

    def __init__(self, start: Start, profile: ProfileName, weights: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, start, profile, weights), daemon=True
        )
        self._process.start()
        theirs.close()
        self._about: dict[str, Any] = {}

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def about(self) -> dict[str, Any]:
        """`loop_threads` and `loop_device`; waits until the networks are there."""
        if not self._about:
            self._about = self._receive()
        return self._about

    def work(self, piece: Any) -> Any:
        """Have one piece of work done.

        Raises:
            RuntimeError: if the process failed; its own error stands above.
        """
        assert self.about
        self._connection.send(piece)
        return self._receive()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._connection.send(None)
        self._process.join(timeout=30)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except EOFError:
            raise RuntimeError("the research-style loop ended; its error stands above") from None


def _serve(connection: Connection, start: Start, profile: ProfileName, weights: Path) -> None:
    """Body of the process: does pieces of work until it receives None."""
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    work = start(source_of(profile, weights), device)
    connection.send({"loop_threads": threads, "loop_device": device.type})
    while (piece := connection.recv()) is not None:
        connection.send(work(piece))
