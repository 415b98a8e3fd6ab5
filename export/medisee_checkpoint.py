"""MediSee's published checkpoint -> a source for the export.

Names and shapes follow the released code. What it shares with MediRound's is
`export.published_checkpoint`.
"""

from pathlib import Path

import torch

from export.published_checkpoint import PublishedSystem, published_shapes, published_source
from export.sources import Source, build_medisee
from training.networks.medisee import ADAPTER, ADDED_TOKENS
from training.networks.profiles import Profile

_SYSTEM = PublishedSystem(
    name="MediSee",
    adapter=ADAPTER,
    added_tokens=ADDED_TOKENS,
    prefixes={
        "fusion": {
            "text_projection.": "model.text_hidden_fcs.0.",
            "router_seg.": "model.router_seg.",
            "router_box.": "model.router_box.",
        },
        "box_decoder": {
            f"layers.{ours}.": f"model.bbox_decoder.layers.{theirs}."
            for theirs, ours in enumerate((0, 2, 4))
        },
    },
)


def medisee_source(
    profile: Profile, folder: Path, tokenizer: Path, llava_med: Path | None = None
) -> Source:
    """Open a checkpoint; arguments and errors are those of `published_source`."""
    return published_source(_SYSTEM, profile, build_medisee(profile), folder, tokenizer, llava_med)


def checkpoint_shapes(profile: Profile) -> dict[str, torch.Size]:
    """Every name of the checkpoint, as it stands after PEFT's prefix, and its shape."""
    with torch.device("meta"):
        return published_shapes(_SYSTEM, profile, build_medisee(profile))
