"""Shows the engine's counters beside Triton's own metrics.

A thread writes what changed at most once a second: every change is a round trip to the server,
which serves logging and cancellation on the same thread.
"""

from __future__ import annotations

import threading
from typing import Any

from serving.mllm.counters import Counters
from serving.mllm.engine import PROMPT_TOKENS, REQUESTS, RESTARTS

FLUSH_INTERVAL_S = 1.0
"""Least seconds between two writes."""

_TOTALS = {
    REQUESTS: ("saymask_mllm_requests_total", "outcome", "Requests by outcome"),
    PROMPT_TOKENS: (
        "saymask_mllm_prompt_tokens_total",
        "source",
        "Prompt positions taken from the prefix cache, or computed",
    ),
    RESTARTS: ("saymask_mllm_engine_restarts_total", "", "Restarts of the engine after a death"),
}

_IN_FLIGHT = ("saymask_mllm_in_flight", "Requests accepted and not yet answered")


class MetricsFlusher:
    """Writes counters to Triton's metric families.

    Args:
        pb_utils: Triton's Python module, which exists only in a stub.
        counters: What to show.
    """

    def __init__(self, pb_utils: Any, counters: Counters) -> None:
        self._counters = counters
        self._families = {
            name: pb_utils.MetricFamily(
                name=metric, description=text, kind=pb_utils.MetricFamily.COUNTER
            )
            for name, (metric, _, text) in _TOTALS.items()
        }
        name, text = _IN_FLIGHT
        self._gauge_family = pb_utils.MetricFamily(
            name=name, description=text, kind=pb_utils.MetricFamily.GAUGE
        )
        self._gauge = self._gauge_family.Metric(labels={})
        self._shown_in_flight = 0
        self._metrics: dict[tuple[str, str], Any] = {}
        self._shown: dict[tuple[str, str], int] = {}
        # Present from the start, so that a rate over them is right.
        for key in ((RESTARTS, ""), (PROMPT_TOKENS, "cached"), (PROMPT_TOKENS, "computed")):
            self._metrics[key] = self._metric(*key)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mllm-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write once more, and take the metrics away."""
        self._closing.set()
        self._thread.join()
        self._flush()
        # Triton wants every metric gone before its family.
        self._metrics.clear()
        del self._gauge
        self._families.clear()
        del self._gauge_family

    def _run(self) -> None:
        while not self._closing.wait(FLUSH_INTERVAL_S):
            self._flush()

    def _flush(self) -> None:
        for key, total in self._counters.totals().items():
            change = total - self._shown.get(key, 0)
            if change:
                if key not in self._metrics:
                    self._metrics[key] = self._metric(*key)
                self._metrics[key].increment(change)
                self._shown[key] = total
        in_flight = self._counters.in_flight
        if in_flight != self._shown_in_flight:
            self._gauge.set(in_flight)
            self._shown_in_flight = in_flight

    def _metric(self, name: str, label: str) -> Any:
        label_name = _TOTALS[name][1]
        return self._families[name].Metric(labels={label_name: label} if label_name else {})
