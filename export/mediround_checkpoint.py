"""A checkpoint of MediRound in its authors' layout -> a source for the export.

Names and shapes follow the released code after its second stage, with the JCM; no weights have been
published. What it shares with MediSee's is `export.published_checkpoint`.
"""

from pathlib import Path

import torch

from export.published_checkpoint import PublishedSystem, published_shapes, published_source
from export.sources import MediRoundNetworks, Networks, Source
from training.networks.llava import LlavaImageEncoder
from training.networks.mediround import (
    ADAPTER,
    ADDED_TOKENS,
    BoxEncoder,
    JudgmentCorrection,
    TextProjection,
)
from training.networks.profiles import Profile
from training.networks.sam import PromptedMaskDecoder, SamImageEncoder

_SYSTEM = PublishedSystem(
    name="MediRound",
    adapter=ADAPTER,
    added_tokens=ADDED_TOKENS,
    prefixes={
        "text_projection": {"": "model.text_hidden_fcs.0."},
        "box_encoder": {"": "model.bbox_encoder."},
        "jcm": {
            f"{ours}.{2 * layer}.": f"model.{theirs}.fc{layer + 1}."
            for ours, theirs in (("judge", "mask_quality_MLP"), ("corrector", "refine_MLP"))
            for layer in range(3)
        },
    },
)


def mediround_source(
    profile: Profile, folder: Path, tokenizer: Path, llava_med: Path | None = None
) -> Source:
    """Open a checkpoint; arguments and errors are those of `published_source`."""
    return published_source(_SYSTEM, profile, _networks(profile), folder, tokenizer, llava_med)


def checkpoint_shapes(profile: Profile) -> dict[str, torch.Size]:
    """Every name of the checkpoint, as it stands after PEFT's prefix, and its shape."""
    with torch.device("meta"):
        return published_shapes(_SYSTEM, profile, _networks(profile))


def _networks(profile: Profile) -> Networks:
    networks = Networks(
        SamImageEncoder(profile),
        LlavaImageEncoder(profile),
        mediround=MediRoundNetworks(
            BoxEncoder(profile),
            TextProjection(profile),
            JudgmentCorrection(profile),
            PromptedMaskDecoder(profile),
        ),
    )
    networks.modules().eval()
    return networks
