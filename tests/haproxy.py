"""A real HAProxy of a test's own, from `deploy/haproxy.cfg` with other addresses in it."""

import contextlib
import csv
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from serving.model_config import ROOT
from tests.redis_server import free_port

INSTALL = "apt-get install -y haproxy"
# Debian installs it where the search path of a user does not always lead.
PROGRAM = shutil.which("haproxy", path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))
CONFIG = ROOT / "deploy" / "haproxy.cfg"
START_TIMEOUT_S = 20.0


class Haproxy:
    """One running HAProxy.

    Args:
        folder: For its configuration, log and socket.
        servers: Name in the configuration -> (gRPC, HTTP), each host:port.
        replaced: Other text of the configuration, and what takes its place.
    """

    def __init__(
        self,
        folder: Path,
        servers: Mapping[str, tuple[str, str]],
        replaced: Mapping[str, str],
    ):
        self.url = f"127.0.0.1:{free_port()}"
        self._stats_path = folder / "haproxy.sock"
        self._log_path = folder / "haproxy.log"
        text = CONFIG.read_text()
        changes = {
            re.escape("/run/haproxy/saymask.sock"): str(self._stats_path),
            r"(?<=bind ):8001(?= proto)": self.url,
            **{re.escape(old): new for old, new in replaced.items()},
        }
        for name, (grpc_url, http_url) in servers.items():
            changes[rf"(?<=server {name} )\S+(?= )"] = grpc_url
            changes[rf"(?<=server {name} )(.* port) 8000"] = rf"\1 {http_url.partition(':')[2]}"
        for old, new in changes.items():
            text, count = re.subn(old, new, text)
            assert count == 1, f"{old} stands {count} times in {CONFIG}"
        config = folder / "haproxy.cfg"
        config.write_text(text)
        command = [PROGRAM or "haproxy", "-db", "-f", str(config)]
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def servers(self) -> dict[str, dict[str, str]]:
        """Statistics of each server: `status`, `scur` (requests in flight), `stot` and so on."""
        lines = self.command("show stat saymask 4 -1").removeprefix("# ").splitlines()
        return {row["svname"]: row for row in csv.DictReader(filter(None, lines))}

    def command(self, text: str) -> str:
        """Give the operator's socket a command and return its answer."""
        with socket.socket(socket.AF_UNIX) as stats:
            stats.connect(str(self._stats_path))
            stats.sendall(text.encode() + b"\n")
            with stats.makefile() as answer:
                return answer.read()

    def wait_until(self, status: str, *names: str, timeout_s: float = 60.0) -> None:
        """Wait until these servers are `UP` or `DOWN`."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            with contextlib.suppress(OSError):  # it is starting
                found = self.servers()
                if all(found[name]["status"] == status for name in names):
                    return
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        pytest.fail(f"{names} not {status} for HAProxy:\n{self._log_path.read_text()}")

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def running_haproxy(
    folder: Path,
    servers: Mapping[str, tuple[str, str]],
    replaced: Mapping[str, str] | None = None,
) -> Iterator[Haproxy]:
    """HAProxy with all its servers up, killed at the end; skips where it is not installed."""
    if PROGRAM is None:
        pytest.skip(f"needs haproxy: {INSTALL}")
    folder.mkdir()
    haproxy = Haproxy(folder, servers, replaced or {})
    try:
        haproxy.wait_until("UP", *servers)
        yield haproxy
    finally:
        haproxy.kill()
