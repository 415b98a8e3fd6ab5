"""The processes below a server, found by their place and not by vLLM's titles.

vLLM's processes give themselves titles where they can; in a nearly empty environment they cannot.
"""

import os
from contextlib import contextmanager

import psutil


def below(pid=None):
    """All living processes below `pid`, or below this one."""
    found = psutil.Process(pid or os.getpid()).children(recursive=True)
    return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]


def engine_and_worker(pid=None):
    """vLLM's engine, a child of the stub of `mllm`, and its worker, a child of the engine."""
    (stub,) = [
        process for process in below(pid) if any("/mllm/1/" in part for part in process.cmdline())
    ]
    (engine,) = [child for child in stub.children() if child.children()]
    (worker,) = engine.children()
    return engine, worker


@contextmanager
def engine_held(pid=None):
    """The engine stands still: what is asked meanwhile cannot be answered before its end."""
    engine, _ = engine_and_worker(pid)
    engine.suspend()
    try:
        yield
    finally:
        engine.resume()
