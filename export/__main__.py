"""Command: write the artifacts of every component model.

`python -m export --profile demo` fills `model_repository/*/1` from the committed demo weights.
"""

import argparse
from pathlib import Path

from export.build import build
from export.sources import demo_source
from serving.model_config import MODEL_REPOSITORY


def main(argv: list[str] | None = None) -> int:
    """Export; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m export", description=__doc__)
    parser.add_argument("--profile", choices=["demo"], default="demo")
    parser.add_argument("--repository", type=Path, default=MODEL_REPOSITORY)
    parser.add_argument("--models", help="names, separated by commas; all by default")
    arguments = parser.parse_args(argv)
    models = arguments.models.split(",") if arguments.models else None
    build(demo_source(), arguments.repository, models=models)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
