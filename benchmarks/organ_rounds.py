"""One round of Organ-Seg: loop and server take turns, each while the other idles."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Self

from saymask import OrganFinding

from benchmarks import closed_loop
from benchmarks.agreement import least_agreement
from benchmarks.model_runs import model_runs
from benchmarks.organ_loop import OrganLoop
from benchmarks.organ_workload import OrganWorkload
from benchmarks.ratios import CONCURRENCY, Figures
from benchmarks.rounds import SETTLING_S
from benchmarks.served import Served
from benchmarks.workload import Case
from training.networks.profiles import ProfileName

PIPELINE = "organseg"

ENCODER = "medsam_image_encoder"


@dataclass(frozen=True)
class OrganSetup:
    """One profile and how much is asked of it."""

    profile: ProfileName
    repository: Path
    long_side: int
    """Pixels of the pictures' longer side."""
    rounds: int
    questions: dict[int, int]
    """Concurrency -> questions of each kind per round."""
    loop: int
    """Questions to the loop per round."""

    def quick(self) -> Self:
        """The least that fills every figure."""
        few = {concurrency: concurrency for concurrency in CONCURRENCY}
        return replace(self, rounds=1, questions=few, loop=1)


class OrganBench:
    """One round after another on a running server and a running loop.

    Args:
        setup: How much to ask.
        served: The server.
        loop: The research-style loop of the same weights.
    """

    def __init__(self, setup: OrganSetup, served: Served, loop: OrganLoop) -> None:
        self._setup, self._served, self._loop = setup, served, loop
        self._workload = OrganWorkload(setup.long_side)

    def warm_up(self) -> Figures:
        """Let both sides reach their pace, and compare their masks."""
        for case in self._workload.every_repeated():
            self._ask(case)
        cases = self._workload.fresh(4) + self._workload.irrelevant(4)
        masks = [self._ask(case).mask for case in cases]
        closed_loop.run(self._ask, self._workload.fresh(8), 8)
        time.sleep(SETTLING_S)
        answers = self._loop.answer(cases)
        time.sleep(SETTLING_S)
        return {"mask_agreement": least_agreement(masks, answers.masks)}

    def round(self, *, backwards: bool) -> Figures:
        """Everything once; figures of this round."""
        parts: list[Callable[[], Figures]] = [self._loop_turn, self._refusals]
        for concurrency in CONCURRENCY:
            parts.append(partial(self._server_turn, "fresh", concurrency))
            parts.append(partial(self._server_turn, "repeated", concurrency))
        figures: Figures = {}
        for part in reversed(parts) if backwards else parts:
            figures |= part()
            time.sleep(SETTLING_S)
        return figures | organ_ratios(figures)

    def _loop_turn(self) -> Figures:
        # Fresh or not, found or refused makes no difference to it. What has idled is slow at first.
        self._loop.answer(self._workload.fresh(1))
        measured = self._loop.answer(self._workload.fresh(self._setup.loop)).measured
        return {"loop_latency_ms": measured.latency_ms, "loop_throughput": measured.throughput}

    def _server_turn(self, kind: str, concurrency: int) -> Figures:
        count = self._setup.questions[concurrency]
        draw = self._workload.fresh if kind == "fresh" else self._workload.repeated
        answers: list[OrganFinding] = []
        if concurrency == 1:
            self._ask(draw(1)[0])
        with model_runs(self._served.raw_client, [ENCODER]) as spent:
            measured = closed_loop.run(
                lambda case: answers.append(self._ask(case)), draw(count), concurrency
            )
        figures = {f"throughput_{kind}_c{concurrency}": measured.throughput}
        if concurrency == 1:
            found = [answer for answer in answers if answer.found]
            figures[f"found_share_{kind}"] = len(found) / count
            figures[f"encoder_runs_{kind}"] = spent[ENCODER].runs / count
            if found:
                figures[f"latency_ms_{kind}"] = _latency_ms(found)
        return figures

    def _refusals(self) -> Figures:
        """Questions that the slice cannot answer, about fresh pictures."""
        cases = self._workload.irrelevant(self._setup.questions[1])
        with model_runs(self._served.raw_client, [ENCODER]) as spent:
            answers = [self._ask(case) for case in cases]
        refused = [answer for answer in answers if not answer.found]
        figures = {
            "refused_share": len(refused) / len(cases),
            "encoder_runs_refused": spent[ENCODER].runs / len(cases),
        }
        if refused:
            figures["latency_ms_refused"] = _latency_ms(refused)
        return figures

    def _ask(self, case: Case) -> OrganFinding:
        (finding,) = self._served.client.find_organs(case.image, case.prompt)
        return finding


def organ_ratios(figures: Figures) -> Figures:
    """What one round's figures say about each other; none of what did not occur."""
    found = {
        f"speedup_{kind}_c{concurrency}": figures[f"throughput_{kind}_c{concurrency}"]
        / figures["loop_throughput"]
        for kind in ("fresh", "repeated")
        for concurrency in CONCURRENCY
    }
    if {"latency_ms_refused", "latency_ms_fresh"} <= figures.keys():
        found["refused_over_found"] = figures["latency_ms_refused"] / figures["latency_ms_fresh"]
    return found


def _latency_ms(answers: list[OrganFinding]) -> float:
    return median(answer.timings_ms["total"] for answer in answers)
