"""A server to measure: started for it, with its log in a file and its processes known."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import tritonclient.grpc as triton
from saymask import Client

from benchmarks import footprint
from serving.launcher import launch
from serving.model_config import ROOT

REQUEST_TIMEOUT_S = 600.0

PIPELINES = ROOT / "ensembles"


@dataclass(frozen=True)
class Served:
    """A running server."""

    client: Client
    """Connection as users have it."""
    raw_client: triton.InferenceServerClient
    """Another, for statistics, traces and component models."""
    pid: int
    """Process above all processes of the server."""

    def memory(self) -> dict[str, float]:
        """Memory of all its processes, and on GPUs where there is one."""
        return footprint.memory("server", self.pid)


@contextmanager
def serve(
    name: str, pipelines: Sequence[str], repository: Path, extra_options: Sequence[str] = ()
) -> Iterator[Served]:
    """Start a server; it ends with the block.

    Args:
        name: Of its log, `build/bench-<name>.log`.
        pipelines: What it serves.
        repository: The checkout's model repository, or another that the export filled.
        extra_options: Of `tritonserver`.
    """
    log_file = ROOT / "build" / f"bench-{name}.log"
    log_file.parent.mkdir(exist_ok=True)
    print(f"{name}: starting the server (its log: {log_file})", flush=True)
    children = set(psutil.Process().children())
    with (
        log_file.open("w", buffering=1) as log,
        launch(
            pipelines,
            repositories=[repository, PIPELINES],
            extra_options=extra_options,
            on_log=lambda line: print(line, file=log),
        ) as server,
        Client(server.grpc_url, timeout_s=REQUEST_TIMEOUT_S) as client,
        triton.InferenceServerClient(server.grpc_url) as raw_client,
    ):
        supervisor = next(
            child.pid
            for child in set(psutil.Process().children()) - children
            if any(part.endswith("supervisor.py") for part in child.cmdline())
        )
        yield Served(client, raw_client, supervisor)
