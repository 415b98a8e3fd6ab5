"""Command: train the demo weights, stage by stage, resuming where a run was stopped.

`python -m training.run` runs every stage and writes the weights to `training/weights/demo`.
"""

import argparse
import json
from pathlib import Path

import torch

from training.data.templates import TEST_TEMPLATE, TRAIN_TEMPLATE, load_template
from training.networks.profiles import demo_profile
from training.stages.image_encoder import ImageEncoderStage
from training.trainer import Schedule, Trainer


def main(argv: list[str] | None = None) -> int:
    """Run the stages; the last line of the output is one JSON object of held-out figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", choices=["image_encoder"], action="append")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="checkpoints and logs")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)

    profile = demo_profile()
    cache = Path("build/templates")
    train, held_out = (load_template(name, cache) for name in (TRAIN_TEMPLATE, TEST_TEMPLATE))
    stage = ImageEncoderStage(profile, train, held_out, decoder_from_step=1200)
    figures = Trainer(stage, Schedule(steps=2200, learning_rate=1e-3), arguments.runs).run()
    print(json.dumps({stage.name: figures}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
