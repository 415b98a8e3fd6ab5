"""Three systems on one engine, against three servers with an engine each."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Self

from benchmarks import footprint
from benchmarks.adapter_switch import AdapterSwitch
from benchmarks.mixed_load import SYSTEMS, MixedLoad
from benchmarks.ratios import Figures
from benchmarks.rounds import SETTLING_S
from benchmarks.served import Served, serve
from training.networks.profiles import ProfileName, profile


@dataclass(frozen=True)
class TogetherSetup:
    """One profile and how much is asked of it."""

    profile: ProfileName
    repository: Path
    long_side: int
    """Pixels of the pictures' longer side."""
    rounds: int
    conversations: int
    """Per round and load; at least as many as are held at a time."""
    adapter_requests: int
    """To the language model per round and adapter."""

    def quick(self) -> Self:
        """The least that fills every figure."""
        return replace(self, rounds=1, conversations=1, adapter_requests=1)


def measure_together(name: str, setup: TogetherSetup) -> Figures:
    """All figures; first of one server with three pipelines, then of three servers at once."""
    with serve(name, SYSTEMS, setup.repository) as served:
        load = MixedLoad(dict.fromkeys(SYSTEMS, served), setup.long_side)
        switch = AdapterSwitch(served.raw_client, profile(setup.profile))
        load.warm_up()
        switch.measure(1)
        parts = [
            partial(load.mixed, setup.conversations),
            partial(load.separate, setup.conversations),
            partial(switch.measure, setup.adapter_requests),
        ]
        figures = _medians(name, parts, setup.rounds)
        figures |= footprint.memory("one_engine", served.pid)
    with ExitStack() as running:
        servers: dict[str, Served] = {}
        for system in SYSTEMS:
            servers[system] = running.enter_context(
                serve(f"{name}-{system}", [system], setup.repository)
            )
        apart = MixedLoad(servers, setup.long_side)
        apart.warm_up()
        mixed = _medians(
            f"{name}, three engines", [partial(apart.mixed, setup.conversations)], setup.rounds
        )
        figures["throughput_mixed_three_engines"] = mixed["throughput_mixed"]
        # Beside each other, as they would run: pages that they share count once.
        for system, server in servers.items():
            figures |= footprint.memory(system, server.pid)
    return figures | memory_ratios(figures)


def memory_ratios(figures: Figures) -> Figures:
    """What the three servers hold together, and how many times that of the one."""
    found: Figures = {}
    for kind in ("memory_mib", "gpu_memory_mib"):
        if f"one_engine_{kind}" in figures:
            three = sum(figures[f"{system}_{kind}"] for system in SYSTEMS)
            found[f"three_engines_{kind}"] = three
            found[f"{kind.removesuffix('_mib')}_three_over_one"] = (
                three / figures[f"one_engine_{kind}"]
            )
    return found


def _medians(name: str, parts: Sequence[Callable[[], Figures]], rounds: int) -> Figures:
    """Medians of all figures over the rounds, in reversed order every other round."""
    measured: list[Figures] = []
    for number in range(rounds):
        figures: Figures = {}
        for part in reversed(parts) if number % 2 else parts:
            figures |= part()
            time.sleep(SETTLING_S)
        if "throughput_separate" in figures:
            figures["mixed_over_separate"] = (
                figures["throughput_mixed"] / figures["throughput_separate"]
            )
        measured.append(figures)
        print(
            f"{name}: round {number + 1} of {rounds}: mixed "
            f"{figures['throughput_mixed']:.1f} requests/s",
            flush=True,
        )
    return {key: median(one[key] for one in measured) for key in measured[0]}
