"""Command: how good the answers are, asked of the running server on held-out data.

The last line is one JSON object, also written to `benchmarks/results/quality.json`.
"""

import argparse
from collections.abc import Callable

import torch

from benchmarks import goals
from benchmarks.quality_mediround import measure_mediround
from benchmarks.quality_medisee import measure_medisee
from benchmarks.quality_organseg import measure_organseg
from benchmarks.results import report
from serving.launcher import launch

MEASURES: dict[str, tuple[Callable[[str, int], dict[str, float]], int]] = {
    "medisee": (measure_medisee, 20),
    "organseg": (measure_organseg, 20),
    "mediround": (measure_mediround, 60),
}
"""By pipeline: the measure, and how many questions per structure or organ, or conversations."""


def main(argv: list[str] | None = None) -> int:
    """Ask, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="a running server; one is started by default")
    parser.add_argument("--only", choices=list(MEASURES), help="one pipeline; all by default")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the usual number of questions (default 1)"
    )
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)  # data are made here while the server computes
    chosen = [arguments.only] if arguments.only else list(MEASURES)

    def measure(url: str) -> dict[str, dict[str, float]]:
        figures = {}
        for name in chosen:
            print(f"{name}:", flush=True)
            measure_one, count = MEASURES[name]
            figures[name] = measure_one(url, max(1, round(count * arguments.share)))
        return figures

    if arguments.url:
        figures = measure(arguments.url)
    else:
        with launch(chosen) as server:
            figures = measure(server.grpc_url)
    print("\n" + goals.table(goals.read_goals("quality"), figures))
    report("quality", figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
