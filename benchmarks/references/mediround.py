"""MediRound: a whole conversation by one pass over all its rounds, from the paper's formulas.

The masks that rounds refer to are given: every round is then a function of one sequence, in which
causality keeps later rounds out of earlier ones. The text is the released code's
(multi_turn_med_seg.py), crop and box are those of its evaluation (train_ds.py), here by PIL.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from benchmarks.references.language import SHOWN, LanguageReference
from benchmarks.references.layers import linear, stack
from benchmarks.references.llava import LlavaReference
from benchmarks.references.sam import SamReference
from export.sources import MediRoundNetworks, Networks
from training.networks.profiles import Profile

JUDGE = ("judge.0", "judge.2", "judge.4")
CORRECTOR = ("corrector.0", "corrector.2", "corrector.4")


@dataclass(frozen=True)
class Turn:
    """One question of a conversation."""

    question: str
    masks: Sequence[np.ndarray] = ()
    """(H, W) bool: what it refers to."""


class MediRoundReference:
    """MediRound with the weights that are served.

    Args:
        profile: Sizes.
        networks: Where the weights come from.
        own: MediRound's part of them.
        mllm_folder: Version folder of the model `mllm`.
    """

    def __init__(
        self, profile: Profile, networks: Networks, own: MediRoundNetworks, mllm_folder: Path
    ) -> None:
        self.sam = SamReference(profile, networks.image_encoder, own.mask_decoder)
        self.llava = LlavaReference(profile, networks.llava_image_encoder)
        self.language = LanguageReference(
            mllm_folder, "mediround", ("[SEG]", "[BBOXINPUT]", "[CROPPEDIMAGE]")
        )
        self.box_encoder = {
            f"box.{name}": tensor for name, tensor in own.box_encoder.state_dict().items()
        }
        self.projection = own.text_projection.state_dict()
        self.jcm = own.jcm.state_dict()

    def prompt(self, turns: Sequence[Turn]) -> tuple[list[int], list[int]]:
        """Ids of the whole conversation, and where each turn's `[SEG]` is predicted."""
        text = f"[INST] {SHOWN}\n"
        for number, turn in enumerate(turns):
            shown = " " + 2 * SHOWN * len(turn.masks) if turn.masks else ""
            start = "[INST]" if number else ""
            text += f"{start}{shown} {turn.question} [/INST] [SEG]. </s>"
        ids = self.language.token_ids(text)
        seg = self.language.special["[SEG]"]
        return ids, [index - 1 for index, token in enumerate(ids) if token == seg]

    def segments(self, rgb: np.ndarray, turns: Sequence[Turn]) -> list[Tensor]:
        """Embedding rows for every -1 of the prompt: the picture's, then two of each reference."""
        patches = self.llava.tokens(self.llava.frame(rgb))[0, 1:]
        rows = [self._reference_rows(rgb, mask) for turn in turns for mask in turn.masks]
        return [patches, *(row[None] for pair in rows for row in pair)]

    def hidden_states(self, rgb: np.ndarray, turns: Sequence[Turn]) -> Tensor:
        """(T, E): one for each turn, all from one pass."""
        ids, positions = self.prompt(turns)
        return self.language.hidden_states(ids, self.segments(rgb, turns), positions)

    def box_token(self, boxes_xyxy: Tensor) -> Tensor:
        """(..., 4) in [0, 1] -> (..., E)."""
        return linear(self.box_encoder, "box", boxes_xyxy)

    def projected(self, hidden_states: Tensor) -> Tensor:
        """(..., E) -> text embeddings (..., C)."""
        return stack(self.projection, ("0", "2"), F.relu, hidden_states)

    def judged(self, text_embedding: Tensor) -> tuple[Tensor, Tensor]:
        """(..., C) -> quality (...) and corrected embedding (..., C) (appendix A, Eq. 1, 2)."""
        quality = stack(self.jcm, JUDGE, F.gelu, text_embedding).sigmoid()[..., 0]
        return quality, stack(self.jcm, CORRECTOR, F.gelu, text_embedding)

    def probabilities(self, rgb: np.ndarray, text_embedding: Tensor) -> Tensor:
        """(P, C) -> (P, H, W)."""
        pixels, inner = self.sam.padded_frame(rgb)
        low_res = self.sam.low_res_logits(
            self.sam.embedding(pixels), text_embedding[:, None], boxes_cxcywh=None
        )
        height, width, _ = rgb.shape
        return self.sam.unpadded(low_res, inner, (height, width))

    def _reference_rows(self, rgb: np.ndarray, mask: np.ndarray) -> tuple[Tensor, Tensor]:
        crop, box = reference_region(rgb, mask)
        crop_row = self.llava.tokens(self.llava.frame(crop))[0, 0]
        return crop_row, self.box_token(torch.tensor(box))


def reference_region(rgb: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Crop (S, S, 3) uint8 of what a mask (H, W) bool covers, and its box x0, y0, x1, y1."""
    height, width = mask.shape
    picture, black = Image.fromarray(rgb), Image.new("RGB", (width, height))
    shape = Image.fromarray(mask.astype(np.uint8) * 255)
    masked = Image.composite(picture, black, shape)
    if np.count_nonzero(np.array(masked.getchannel("R"))) <= 9:
        masked, shape = picture, Image.new("L", (width, height), 255)
    window = masked.crop(masked.getbbox())
    side = max(window.size)
    crop = Image.new("RGB", (side, side))
    crop.paste(window, (0, 0))
    extent = shape.getbbox()
    assert extent is not None
    left, top, right, bottom = extent  # the last two behind the mask's end
    box = [left / width, top / height, (right - 1) / width, (bottom - 1) / height]
    return np.array(crop), box
