"""Command: MediSee through Triton beside the research-style loop, same weights, same run.

Server and loop take turns in every round, in reversed order every other round; each figure is the
median over the rounds, each ratio that of the rounds' ratios. docs/performance.md says what the
figures mean. The last line is one JSON object, also written to `benchmarks/results/bench.json`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

import psutil
import torch
import tritonclient.grpc as triton
from saymask import Client

from benchmarks import footprint, goals
from benchmarks.hops import PIPELINE
from benchmarks.ratios import CONCURRENCY, Figures, hop_table
from benchmarks.research_loop import ResearchLoop
from benchmarks.results import report
from benchmarks.rounds import Bench, Setup
from benchmarks.step_traces import StepTraces
from serving.launcher import launch
from serving.model_config import MODEL_REPOSITORY, ROOT
from training.run import WEIGHTS

REQUEST_TIMEOUT_S = 600.0

ENSEMBLES = ROOT / "ensembles"

SETUPS = {
    "medisee.demo": Setup(
        profile="demo",
        repository=MODEL_REPOSITORY,
        long_side=160,
        rounds=7,
        fresh={1: 12, 4: 24, 8: 48},
        repeated={1: 12, 4: 24, 8: 48},
        loop=12,
    ),
    "medisee.full_sam": Setup(
        profile="full-sam",
        repository=ROOT / "build" / "repository-full-sam",
        long_side=512,
        rounds=5,
        fresh={1: 1, 4: 4, 8: 8},
        repeated={1: 12, 4: 24, 8: 48},
        loop=1,
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
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)  # this process draws pictures and asks
    figures = {
        name: measure(name, quick(SETUPS[name]) if arguments.quick else SETUPS[name], arguments)
        for name in arguments.only or SETUPS
    }
    print("\n" + goals.table(goals.read_goals(), figures))
    if arguments.quick:
        print(json.dumps(figures))
    else:
        report("bench", figures)
    return 0


def quick(setup: Setup) -> Setup:
    """The least that fills every figure."""
    few = {concurrency: concurrency for concurrency in CONCURRENCY}
    return replace(setup, rounds=1, fresh=few, repeated=few, loop=1)


def measure(name: str, setup: Setup, arguments: argparse.Namespace) -> Figures:
    """All figures of one profile."""
    _export(setup)
    log_file = ROOT / "build" / f"bench-{name}.log"
    log_file.parent.mkdir(exist_ok=True)
    print(f"{name}: starting the server (its log: {log_file}) and the loop", flush=True)
    children = set(psutil.Process().children())
    with (
        tempfile.TemporaryDirectory(prefix="saymask-traces-") as folder,
        log_file.open("w", buffering=1) as log,
        launch(
            [PIPELINE],
            repositories=[setup.repository, ENSEMBLES],
            extra_options=StepTraces.options(Path(folder)),
            on_log=lambda line: print(line, file=log),
        ) as server,
        ResearchLoop(setup.profile, arguments.weights) as loop,
        Client(server.grpc_url, timeout_s=REQUEST_TIMEOUT_S) as client,
        triton.InferenceServerClient(server.grpc_url) as raw_client,
    ):
        supervisor = next(
            child.pid
            for child in set(psutil.Process().children()) - children
            if any(part.endswith("supervisor.py") for part in child.cmdline())
        )
        bench = Bench(setup, client, raw_client, Path(folder), loop)
        figures: Figures = {"rounds": setup.rounds, **loop.about, **bench.warm_up()}
        rounds = []
        for number in range(setup.rounds):
            rounds.append(bench.round(backwards=number % 2 == 1))
            headline = _headline(rounds[-1])
            print(f"{name}: round {number + 1} of {setup.rounds}: {headline}", flush=True)
        figures |= {key: median(one[key] for one in rounds) for key in rounds[0]}
        figures["server_memory_mib"] = footprint.memory_mib(supervisor)
        figures["loop_memory_mib"] = footprint.memory_mib(loop.pid)
        if held := footprint.gpu_memory_mib(supervisor):
            figures["server_gpu_memory_mib"] = held
        if held := footprint.gpu_memory_mib(loop.pid):
            figures["loop_gpu_memory_mib"] = held
    print(f"\n{name}: one request at concurrency 1, ms\n{hop_table(figures)}", flush=True)
    return figures


def _headline(figures: Figures) -> str:
    return (
        f"loop {figures['loop_latency_ms']:.0f} ms, server fresh "
        f"{figures['latency_ms_fresh']:.0f} ms, repeated {figures['latency_ms_repeated']:.0f} ms, "
        f"repeated at 8 {figures['speedup_repeated_c8']:.1f} x the loop"
    )


def _export(setup: Setup) -> None:
    """Write the repository anew, except the checkout's own, which is measured as it stands."""
    if setup.repository == MODEL_REPOSITORY:
        return
    print(f"exporting profile {setup.profile} with random weights", flush=True)
    command = [sys.executable, "-m", "export", "--profile", setup.profile, "--random"]
    subprocess.run([*command, "--repository", str(setup.repository)], cwd=ROOT, check=True)


if __name__ == "__main__":
    raise SystemExit(main())
