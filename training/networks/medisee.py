"""MediSee in one piece, for training and as the plain reference of what the server computes.

The server runs the same parts as separate models; the cuts between them are the arguments and
results of the methods here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from serving.llava_prompt import MEDISEE_HIDDEN_POSITIONS
from training.networks.medisee_heads import BoxDecoder, DemocraticFusion
from training.networks.profiles import Profile
from training.networks.sam import PromptedMaskDecoder
from training.networks.system import System

ADAPTER = "medisee"
ADDED_TOKENS = 2


@dataclass(frozen=True)
class MediSeeOutput:
    """Answer to one question about one image."""

    mask_logits: Tensor
    """(H, W) float32 in the original image's size; > 0 is foreground."""
    box_cxcywh: Tensor
    """(4,) in [0, 1], relative to the original image."""
    hidden_states: Tensor
    """(2, E): h_seg, h_box after the final norm."""


class MediSee(System):
    """All networks of MediSee.

    The base language model carries the LoRA adapter `medisee`; its own token embedding and head
    stay those of the base, and MediSee's fully trained ones stand beside them.
    """

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile, ADAPTER, ADDED_TOKENS)
        self.fusion = DemocraticFusion(profile)
        self.box_decoder = BoxDecoder(profile)
        self.mask_decoder = PromptedMaskDecoder(profile)

    @torch.no_grad()
    def answer(
        self,
        sam_pixels: Tensor,
        clip_pixels: Tensor,
        token_ids: Sequence[int],
        input_size: tuple[int, int],
        original_size: tuple[int, int],
    ) -> MediSeeOutput:
        """Answer one question as the released scripts do: everything computed, nothing kept.

        Args:
            sam_pixels: (3, S, S) from `serving.preprocessing.sam_frame`.
            clip_pixels: (3, S, S) from `serving.preprocessing.clip_frame`.
            token_ids: From `serving.llava_prompt.medisee_prompt`.
            input_size: (h', w') of the picture inside the SAM frame.
            original_size: (H, W) of the picture.
        """
        image_embedding = self.image_encoder(sam_pixels[None])
        patch_tokens, _ = self.llava_image_encoder(clip_pixels[None])
        prompt = self.embed_prompt(list(token_ids), [patch_tokens[0]])
        hidden = self.mllm.model.model(inputs_embeds=prompt, use_cache=False).last_hidden_state
        hidden_states = hidden[0, list(MEDISEE_HIDDEN_POSITIONS)]
        text_embedding, box_hidden_state = self.fusion(hidden_states)
        box = self.box_decoder(box_hidden_state)
        low_res = self.mask_decoder(image_embedding, text_embedding[None, None], box[None, None])
        logits = resize_logits(low_res, self.profile.sam_size, input_size, original_size)
        return MediSeeOutput(logits[0, 0], box, hidden_states)


def resize_logits(
    low_res_logits: Tensor,
    frame: int,
    input_size: Sequence[int | Tensor],
    original_size: Sequence[int | Tensor],
) -> Tensor:
    """Bring low-resolution logits back to the picture (SAM's `postprocess_masks`).

    Args:
        low_res_logits: (B, P, h, w).
        frame: Side of SAM's padded frame.
        input_size: (h', w') of the picture inside the frame.
        original_size: (H, W) of the picture.

    Returns:
        (B, P, H, W) float32.
    """
    logits = F.interpolate(low_res_logits.float(), (frame, frame), mode="bilinear")
    logits = logits[..., : input_size[0], : input_size[1]]
    # torch's stubs know ints only; the export traces elements of a tensor through here.
    size: Any = tuple(original_size)
    return F.interpolate(logits, size, mode="bilinear")
