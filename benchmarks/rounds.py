"""One round of MediSee: loop, server and component models take turns, while the others idle."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Self

import tritonclient.grpc as triton
from saymask import Client, Segmentation

from benchmarks import closed_loop, footprint
from benchmarks.agreement import least_agreement
from benchmarks.components import Components
from benchmarks.hops import hops_of
from benchmarks.model_runs import model_runs
from benchmarks.ratios import CONCURRENCY, ENCODERS, NETWORKS, Figures, ratios
from benchmarks.research_loop import ResearchLoop
from benchmarks.step_traces import StepTraces
from benchmarks.workload import Case, Workload
from training.networks.profiles import ProfileName

SETTLING_S = 0.4
"""Pause when server and loop change turns: their threads spin for 0.2 s after their last work."""


@dataclass(frozen=True)
class Setup:
    """One profile and how much is asked of it."""

    profile: ProfileName
    """As `python -m export --profile` calls it."""
    repository: Path
    long_side: int
    """Pixels of the pictures' longer side."""
    rounds: int
    fresh: dict[int, int]
    """Concurrency -> questions about fresh pictures per round."""
    repeated: dict[int, int]
    """Concurrency -> questions about repeated pictures per round."""
    loop: int
    """Questions to the loop per round."""

    def quick(self) -> Self:
        """The least that fills every figure."""
        few = {concurrency: concurrency for concurrency in CONCURRENCY}
        return replace(self, rounds=1, fresh=few, repeated=few, loop=1)


class Bench:
    """One round after another on a running server and a running loop.

    Args:
        setup: How much to ask.
        client: Connection to the server, as users have it.
        raw_client: Another, for statistics, traces and component models.
        trace_folder: Where the server writes its traces.
        loop: The research-style loop of the same weights.
    """

    def __init__(
        self,
        setup: Setup,
        client: Client,
        raw_client: triton.InferenceServerClient,
        trace_folder: Path,
        loop: ResearchLoop,
    ) -> None:
        self._setup = setup
        self._client = client
        self._raw_client = raw_client
        self._traces = StepTraces(trace_folder, raw_client)
        self._components = Components(raw_client, self._traces)
        self._loop = loop
        self._workload = Workload(setup.long_side)

    def warm_up(self) -> Figures:
        """Let both sides reach their pace, and compare their masks."""
        cases = self._workload.repeated(len(self._workload.repeated_pictures))
        masks = [self._ask(case).mask for case in cases]
        if self._setup.fresh[8] > 8:
            closed_loop.run(self._ask, self._workload.fresh(8), 8)
        time.sleep(SETTLING_S)
        answers = self._loop.answer(cases)
        time.sleep(SETTLING_S)
        return {"mask_agreement": least_agreement(masks, answers.masks)}

    def round(self, *, backwards: bool) -> Figures:
        """Everything once; figures of this round."""
        parts: list[Callable[[], Figures]] = [self._loop_turn]
        for concurrency in CONCURRENCY:
            parts.append(partial(self._server_turn, "fresh", concurrency))
            parts.append(partial(self._server_turn, "repeated", concurrency))
        parts.append(self._components_turn)
        figures: Figures = {}
        for part in reversed(parts) if backwards else parts:
            figures |= part()
            time.sleep(SETTLING_S)
        return figures | ratios(figures)

    def _loop_turn(self) -> Figures:
        # Fresh or not makes no difference to it. What has idled is slow at first.
        self._loop.answer(self._workload.fresh(1))
        answers = self._loop.answer(self._workload.fresh(self._setup.loop))
        return {
            "loop_latency_ms": answers.measured.latency_ms,
            "loop_throughput": answers.measured.throughput,
            **{f"loop_network_ms_{name}": took for name, took in answers.network_ms.items()},
        }

    def _server_turn(self, kind: str, concurrency: int) -> Figures:
        fresh = kind == "fresh"
        count = (self._setup.fresh if fresh else self._setup.repeated)[concurrency]
        draw = self._workload.fresh if fresh else self._workload.repeated
        if concurrency == 1:
            self._ask(draw(1)[0])
        cases = draw(count)
        latencies_of: dict[str, float] = {}
        if concurrency == 1:
            self._traces.expect(count)

        def ask(case: Case) -> None:
            answer = self._ask(case)
            latencies_of[answer.request_id] = answer.timings_ms["total"]

        with model_runs(self._raw_client, NETWORKS) as spent, footprint.gpu_activity() as gpu:
            measured = closed_loop.run(ask, cases, concurrency)
        for encoder in ENCODERS:
            if spent[encoder].runs != (count if fresh else 0):
                raise RuntimeError(
                    f"{encoder} ran {spent[encoder].runs} times for {count} questions about "
                    f"{kind} pictures: the caches are not in the state these figures stand for"
                )
        figures = {f"throughput_{kind}_c{concurrency}": measured.throughput}
        if concurrency == max(CONCURRENCY):
            figures |= {f"{name}_{kind}": value for name, value in gpu.items()}
        if concurrency > 1:
            return figures
        figures[f"latency_ms_{kind}"] = measured.latency_ms
        traces = self._traces.of(list(latencies_of))
        hops = [
            hops_of(trace, latency)
            for trace, latency in zip(traces, latencies_of.values(), strict=True)
        ]
        for name in asdict(hops[0]):
            figures[f"hop_ms_{kind}_{name}"] = median(getattr(one, name) for one in hops)
        for network in NETWORKS:
            if spent[network].runs:
                figures[f"network_ms_{kind}_{network}"] = spent[network].mean_ms
        return figures

    def _components_turn(self) -> Figures:
        with model_runs(self._raw_client, NETWORKS) as spent:
            alone = self._components.measure(self._workload.fresh(self._setup.fresh[1]))
        figures = {name: median(getattr(one, name) for one in alone) for name in asdict(alone[0])}
        for name in ("cached_tokens", "computed_tokens"):
            figures[f"{name}_fresh"] = figures.pop(name)
        figures["sam_branch_network_ms"] = spent["medsam_image_encoder"].mean_ms
        asked_again = self._components.measure(self._workload.repeated(1))[0]
        figures["cached_tokens_repeated"] = asked_again.cached_tokens
        figures["computed_tokens_repeated"] = asked_again.computed_tokens
        return figures

    def _ask(self, case: Case) -> Segmentation:
        return self._client.segment(case.image, case.prompt)
