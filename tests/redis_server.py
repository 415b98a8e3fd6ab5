"""A real `redis-server` of a test's own: on a Unix socket and a free port, ended with the test."""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

INSTALL = "apt-get install -y redis-server"
START_TIMEOUT_S = 20.0


class RedisServer:
    """One server over a folder; started again, it has the same address and, persistent, its data.

    Without `persistent` nothing is written to disk. With it, every change is in the log before it
    is acknowledged (`appendfsync always`).
    """

    def __init__(self, folder: Path, *options: str, password: str = "", persistent: bool = False):
        self.folder = folder
        self.password = password
        self.socket_path = folder / "redis.sock"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._command = [
            shutil.which("redis-server") or "redis-server",
            *("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(folder)),
            *("--unixsocket", str(self.socket_path), "--save", "", "--loglevel", "warning"),
            *("--appendonly", "yes" if persistent else "no", "--appendfsync", "always"),
            *(("--requirepass", password) if password else ()),
            *options,
        ]

    @property
    def url(self) -> str:
        login = f":{self.password}@" if self.password else ""
        return f"redis://{login}127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def client(self) -> redis.Redis:
        """A connection that does not go through the code under test."""
        return redis.Redis.from_url(self.url)

    def start(self) -> None:
        """Start, and wait until it answers."""
        log = (self.folder / "redis.log").open("ab")
        with log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        end = time.monotonic() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(redis.exceptions.RedisError), self.client() as client:
                if client.ping():
                    return
            if self._process.poll() is not None or time.monotonic() > end:
                log_text = (self.folder / "redis.log").read_text(errors="replace")
                self.kill()
                pytest.fail(f"redis-server did not start:\n{log_text}")
            time.sleep(0.02)

    def stop(self) -> None:
        """SIGTERM: it closes its files first."""
        assert self._process is not None, "not started"
        self._process.terminate()
        self._process.wait(timeout=START_TIMEOUT_S)

    def kill(self) -> None:
        """SIGKILL, as `kill -9` does it; harmless if it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def running_redis(
    folder: Path, *options: str, password: str = "", persistent: bool = False
) -> Iterator[RedisServer]:
    """A started server in `folder`, killed at the end; skips the test where there is no Redis."""
    if shutil.which("redis-server") is None:
        pytest.skip(f"needs redis-server: {INSTALL}")
    server = RedisServer(folder, *options, password=password, persistent=persistent)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
