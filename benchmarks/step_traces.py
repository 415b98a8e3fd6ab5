"""When each step of a request began and ended, from Triton's own traces.

Triton's statistics cannot tell it: a Python model that answers from a thread counts as done when
it has taken the request. The traces are the server's, so no client is in these times.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tritonclient.grpc as triton

WRITING_TIMEOUT_S = 30.0
"""Seconds until the server must have written the traces of requests it has answered."""


@dataclass
class Span:
    """One model's part in one request; all times are milliseconds of the server's clock."""

    times: dict[str, float] = field(default_factory=dict)
    """Triton's timestamps by name."""

    @property
    def start_ms(self) -> float:
        """The request reached the model."""
        return self.times["REQUEST_START"]

    @property
    def computed_ms(self) -> float:
        """A backend that answers within `execute` had its outputs ready."""
        return self.times["COMPUTE_END"]

    @property
    def answered_ms(self) -> float:
        """The answer to the client was complete; only of the model that the client asked."""
        return self.times["INFER_RESPONSE_COMPLETE"]


Trace = dict[str, Span]
"""Spans of one request by model."""


class StepTraces:
    """Switches tracing on for some requests and reads what was written.

    Args:
        folder: Where the server writes its traces; give the launcher `options(folder)`.
        client: Connection to that server.
    """

    def __init__(self, folder: Path, client: triton.InferenceServerClient) -> None:
        self._folder = folder
        self._client = client
        self._traces: dict[str, Trace] = {}
        self._read: set[Path] = set()

    @staticmethod
    def options(folder: Path) -> tuple[str, ...]:
        """Options of `tritonserver`; nothing is traced yet."""
        return (
            "--trace-config=mode=triton",
            f"--trace-config=triton,file={folder / 'trace.json'}",
            "--trace-config=level=OFF",
        )

    def expect(self, count: int) -> None:
        """Trace the next `count` requests."""
        self._client.update_trace_settings(
            settings={"trace_level": ["TIMESTAMPS"], "trace_rate": "1", "trace_count": str(count)}
        )

    def of(self, request_ids: Sequence[str]) -> list[Trace]:
        """Traces of answered requests.

        Raises:
            TimeoutError: if the server has not written one of them.
        """
        deadline = time.monotonic() + WRITING_TIMEOUT_S
        while missing := [one for one in request_ids if one not in self._traces]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the server wrote no trace of requests {missing[:3]}")
            for file in set(self._folder.glob("trace.json*")) - self._read:
                self._add(file)
            time.sleep(0.02)
        return [self._traces.pop(one) for one in request_ids]

    def _add(self, file: Path) -> None:
        try:
            entries = json.loads(file.read_text())
        except json.JSONDecodeError:  # it is being written
            return
        self._read.add(file)
        self._traces |= parse(entries)


def parse(entries: Sequence[dict[str, Any]]) -> dict[str, Trace]:
    """Traces by request id, from the content of a trace file.

    Args:
        entries: Objects in any order; some name a trace's model, some carry its timestamps.
    """
    spans: dict[int, Span] = {}
    owners: dict[int, tuple[str, str]] = {}
    for entry in entries:
        span = spans.setdefault(entry["id"], Span())
        if "model_name" in entry:
            owners[entry["id"]] = (entry.get("request_id", ""), entry["model_name"])
        for stamp in entry.get("timestamps", ()):
            span.times[stamp["name"]] = stamp["ns"] / 1e6
    traces: dict[str, Trace] = {}
    for number, (request_id, model) in owners.items():
        traces.setdefault(request_id, {})[model] = spans[number]
    return traces
