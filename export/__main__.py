"""Command: write the artifacts of every component model.

`python -m export --profile demo` fills `model_repository/*/1` from the committed demo weights;
docs/export.md has the other profiles and sources.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch

from export.build import build
from export.mediround_checkpoint import mediround_source
from export.medisee_checkpoint import medisee_source
from export.random_source import random_source
from export.sam_keys import load_medsam
from export.sources import Source, demo_source, joined
from serving.model_config import MODEL_REPOSITORY, comma_separated
from training.networks.profiles import ProfileName, full_profile, profile
from training.weights_folder import TOKENIZER

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main(argv: list[str] | None = None) -> int:
    """Export; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    _check_combination(parser, arguments)
    models = comma_separated(arguments.models) or None
    try:
        source = _source(arguments)
        print(f"profile {source.profile.name}: {source.description}", flush=True)
        build(
            source,
            arguments.repository,
            models=models,
            language_dtype=_language_dtype(arguments),
            say=lambda line: print(line, flush=True),
        )
    except (ValueError, OSError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m export", description=__doc__)
    parser.add_argument(
        "--profile", choices=get_args(ProfileName), default="demo", help="sizes of the networks"
    )
    parser.add_argument("--random", action="store_true", help="random weights, to measure speed")
    parser.add_argument("--seed", type=int, default=0, help="of random weights")
    parser.add_argument("--medisee", type=Path, metavar="DIR", help="MediSee's *.bin files")
    parser.add_argument("--mediround", type=Path, metavar="DIR", help="MediRound's *.bin files")
    parser.add_argument(
        "--medsam", type=Path, metavar="FILE", help="MedSAM's .pth for the image encoder"
    )
    parser.add_argument(
        "--llava-med",
        type=Path,
        metavar="DIR",
        help="Hugging Face folder whose embedding and head the base gets",
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FILE",
        help="sentencepiece model of the base; --llava-med brings one",
    )
    parser.add_argument("--repository", type=Path, default=MODEL_REPOSITORY, metavar="DIR")
    parser.add_argument("--models", default="", metavar="A,B", help="only these; all by default")
    parser.add_argument(
        "--language-dtype",
        choices=list(_DTYPES),
        help="of the language model; bfloat16 for profile full, float32 for the others",
    )
    return parser


def _check_combination(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    published = [f"--{name}" for name in ("medisee", "mediround") if getattr(arguments, name)]
    if arguments.random and published:
        parser.error(f"--random and {published[0]} exclude each other: name one source of weights")
    if arguments.profile != "demo" and not arguments.random and not published:
        parser.error(
            f"profile {arguments.profile} has no committed weights: "
            + ("name --medisee DIR or --mediround DIR, or " if arguments.profile == "full" else "")
            + "take random ones with --random"
        )
    if published and arguments.profile != "full":
        parser.error(f"{published[0]} needs --profile full, the size it was published in")
    if published and not (arguments.tokenizer or arguments.llava_med):
        parser.error(
            f"{published[0]} needs --tokenizer FILE: LLaVA-Med's tokenizer.model, 32000 pieces"
        )
    if arguments.llava_med and not published:
        parser.error("--llava-med adds to --medisee DIR or --mediround DIR, which is missing")
    if not (arguments.random or published) and (arguments.tokenizer or arguments.medsam):
        parser.error("the demo weights bring everything: leave out --tokenizer and --medsam")


def _source(arguments: argparse.Namespace) -> Source:
    if arguments.medisee or arguments.mediround:
        tokenizer = arguments.tokenizer or arguments.llava_med / TOKENIZER
        opened = [
            read(full_profile(), folder, tokenizer, arguments.llava_med)
            for read, folder in (
                (medisee_source, arguments.medisee),
                (mediround_source, arguments.mediround),
            )
            if folder
        ]
        source = opened[0] if len(opened) == 1 else joined(*opened)
    elif arguments.random:
        source = random_source(arguments.profile, arguments.seed, arguments.tokenizer)
    else:
        source = demo_source()
    if arguments.medsam:
        load_medsam(source.networks.image_encoder, arguments.medsam)
        source = replace(source, description=f"{source.description}; image encoder MedSAM's")
    return source


def _language_dtype(arguments: argparse.Namespace) -> torch.dtype:
    if arguments.language_dtype:
        return _DTYPES[arguments.language_dtype]
    sizes = profile(arguments.profile)
    same = sizes.mistral.hidden_size == full_profile().mistral.hidden_size
    return torch.bfloat16 if same else torch.float32


if __name__ == "__main__":
    raise SystemExit(main())
