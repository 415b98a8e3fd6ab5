"""Ends an engine whose owner is gone.

vLLM ends its workers with the engine, but the engine itself would outlive an owner that was
killed. Linux's parent-death signal does not serve: it follows the thread that started a process.
"""

from __future__ import annotations

import os
import signal
import threading
import time

INTERVAL_S = 0.5
"""Seconds between two looks at the parent."""


def end_with(owner_pid: int) -> None:
    """Kill this process as soon as its parent is no longer `owner_pid`."""

    def watch() -> None:
        while os.getppid() == owner_pid:
            time.sleep(INTERVAL_S)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="owner-watch", daemon=True).start()
