"""Command: the three systems through Triton beside their research-style loops, same weights.

Server and loop take turns in every round, in reversed order every other round; each figure is the
median over the rounds, each ratio that of the rounds' ratios. docs/performance.md says what the
figures mean. The last line is one JSON object, also written to `benchmarks/results/bench.json`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from benchmarks import conversation_rounds, footprint, goals, organ_rounds
from benchmarks.conversation_loop import ConversationLoop
from benchmarks.conversation_rounds import (
    ConversationBench,
    ConversationSetup,
    conversation_table,
)
from benchmarks.hops import PIPELINE
from benchmarks.loop_process import LoopProcess
from benchmarks.organ_loop import OrganLoop
from benchmarks.organ_rounds import OrganBench, OrganSetup
from benchmarks.ratios import Figures, hop_table
from benchmarks.research_loop import ResearchLoop
from benchmarks.results import report
from benchmarks.rounds import Bench, Setup
from benchmarks.served import Served, serve
from benchmarks.step_traces import StepTraces
from benchmarks.together import TogetherSetup, measure_together
from serving.model_config import MODEL_REPOSITORY, ROOT
from training.run import WEIGHTS

FULL_SAM = ROOT / "build" / "repository-full-sam"

AnySetup = Setup | ConversationSetup | OrganSetup | TogetherSetup

SETUPS: dict[str, AnySetup] = {
    "medisee.demo": Setup(
        profile="demo",
        repository=MODEL_REPOSITORY,
        long_side=160,
        rounds=7,
        fresh={1: 12, 4: 24, 8: 48},
        repeated={1: 12, 4: 24, 8: 48},
        loop=12,
    ),
    "mediround.demo": ConversationSetup(
        profile="demo",
        repository=MODEL_REPOSITORY,
        long_side=160,
        rounds=7,
        lengths=(4, 6, 8, 10),
    ),
    "organseg.demo": OrganSetup(
        profile="demo",
        repository=MODEL_REPOSITORY,
        long_side=160,
        rounds=7,
        questions={1: 12, 4: 24, 8: 48},
        loop=12,
    ),
    "together.demo": TogetherSetup(
        profile="demo",
        repository=MODEL_REPOSITORY,
        long_side=160,
        rounds=5,
        conversations=16,
        adapter_requests=16,
    ),
    "medisee.full_sam": Setup(
        profile="full-sam",
        repository=FULL_SAM,
        long_side=512,
        rounds=3,
        fresh={1: 1, 4: 4, 8: 8},
        repeated={1: 12, 4: 24, 8: 48},
        loop=1,
    ),
    "mediround.full_sam": ConversationSetup(
        profile="full-sam",
        repository=FULL_SAM,
        long_side=512,
        # A round of the loop takes a quarter of a minute, and there are fourteen in each.
        rounds=1,
        lengths=(4, 10),
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Measure, print the tables, report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=list(SETUPS), help="repeatable; default: all"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one round of a few questions: shows that it runs; nothing is written",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        default=WEIGHTS,
        help="demo weights that the demo's repository was exported from (default: the committed)",
    )
    parser.add_argument(
        "--repository",
        type=Path,
        default=MODEL_REPOSITORY,
        help="the demo's repository (default: the checkout's own)",
    )
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)  # this process draws pictures and asks
    names = arguments.only or list(SETUPS)
    if any(SETUPS[name].repository == FULL_SAM for name in names):
        _export("full-sam", FULL_SAM)
    figures = {}
    for name in names:
        setup = SETUPS[name]
        if setup.profile == "demo":
            setup = replace(setup, repository=arguments.repository)
        if arguments.quick:
            setup = setup.quick()
        figures[name] = measure(name, setup, arguments.weights)
    print("\n" + goals.table(goals.read_goals("bench"), figures))
    if arguments.quick:
        print(json.dumps(figures))
    else:
        report("bench", figures)
    return 0


def measure(name: str, setup: AnySetup, weights: Path) -> Figures:
    """All figures of one name."""
    if isinstance(setup, Setup):
        return _measure_medisee(name, setup, weights)
    if isinstance(setup, ConversationSetup):
        return _measure_mediround(name, setup, weights)
    if isinstance(setup, OrganSetup):
        return _measure_organseg(name, setup, weights)
    return measure_together(name, setup)


def _measure_medisee(name: str, setup: Setup, weights: Path) -> Figures:
    with (
        tempfile.TemporaryDirectory(prefix="saymask-traces-") as folder,
        serve(name, [PIPELINE], setup.repository, StepTraces.options(Path(folder))) as served,
        ResearchLoop(setup.profile, weights) as loop,
    ):
        bench = Bench(setup, served.client, served.raw_client, Path(folder), loop)
        figures = {**loop.about, **bench.warm_up()}
        figures |= _rounds(
            name,
            setup.rounds,
            lambda number: bench.round(backwards=number % 2 == 1),
            lambda one: (
                f"loop {one['loop_latency_ms']:.0f} ms, server fresh "
                f"{one['latency_ms_fresh']:.0f} ms, repeated {one['latency_ms_repeated']:.0f} ms, "
                f"repeated at 8 {one['speedup_repeated_c8']:.1f} x the loop"
            ),
        )
        figures |= _memory(served, loop)
    print(f"\n{name}: one request at concurrency 1, ms\n{hop_table(figures)}", flush=True)
    return figures


def _measure_mediround(name: str, setup: ConversationSetup, weights: Path) -> Figures:
    longest = setup.lengths[-1]
    with (
        serve(name, [conversation_rounds.PIPELINE], setup.repository) as served,
        ConversationLoop(setup.profile, weights) as loop,
    ):
        bench = ConversationBench(setup, served, loop)
        figures: Figures = {**loop.about}
        bench.warm_up()
        figures |= _rounds(
            name,
            setup.rounds,
            lambda number: bench.round(backwards=number % 2 == 1),
            lambda one: (
                f"{longest} rounds {one[f'conversation_ms_rounds_{longest}']:.0f} ms, loop "
                f"{one[f'loop_conversation_ms_rounds_{longest}']:.0f} ms; later rounds "
                f"{one['later_over_first']:.2f} of the first"
            ),
        )
        figures |= _memory(served, loop)
    print(f"\n{name}\n{conversation_table(figures, setup.lengths)}", flush=True)
    return figures


def _measure_organseg(name: str, setup: OrganSetup, weights: Path) -> Figures:
    with (
        serve(name, [organ_rounds.PIPELINE], setup.repository) as served,
        OrganLoop(setup.profile, weights) as loop,
    ):
        bench = OrganBench(setup, served, loop)
        figures: Figures = {**loop.about, **bench.warm_up()}
        figures |= _rounds(
            name,
            setup.rounds,
            lambda number: bench.round(backwards=number % 2 == 1),
            lambda one: (
                f"loop {one['loop_latency_ms']:.0f} ms; repeated at 8 "
                f"{one['speedup_repeated_c8']:.1f} x the loop"
            ),
        )
        return figures | _memory(served, loop)


def _rounds(
    name: str, rounds: int, one: Callable[[int], Figures], headline: Callable[[Figures], str]
) -> Figures:
    """Medians of all figures over the rounds; of masks' agreement the least."""
    measured = []
    for number in range(rounds):
        measured.append(one(number))
        print(f"{name}: round {number + 1} of {rounds}: {headline(measured[-1])}", flush=True)
    figures: Figures = {"rounds": rounds}
    for key in dict.fromkeys(key for one_round in measured for key in one_round):
        values = [one_round[key] for one_round in measured if key in one_round]
        figures[key] = min(values) if key == "mask_agreement" else median(values)
    return figures


def _memory(served: Served, loop: LoopProcess) -> Figures:
    return served.memory() | footprint.memory("loop", loop.pid)


def _export(profile: str, repository: Path) -> None:
    """Write a repository anew; the demo's is measured as it stands."""
    print(f"exporting profile {profile} with random weights", flush=True)
    command = [sys.executable, "-m", "export", "--profile", profile, "--random"]
    subprocess.run([*command, "--repository", str(repository)], cwd=ROOT, check=True)


if __name__ == "__main__":
    raise SystemExit(main())
