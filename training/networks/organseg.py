"""Organ-Seg in one piece, for training and as the plain reference of what the server computes.

The paper (Iftee et al., Organ-Seg) published no code; what it leaves open is decided as in
docs/training.md. The server runs the same parts as separate models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serving.organseg_prompt import ORGANSEG_HIDDEN_POSITIONS
from training.context_cache import CONTEXT_WIDTH, Context
from training.networks.profiles import Profile
from training.networks.sam import PromptedMaskDecoder
from training.networks.system import System

ADAPTER = "organseg"

INTEREST_HIDDEN_SIZE = 1024
"""Inner width of the information of interest extractor, where E is not smaller."""


@dataclass(frozen=True)
class OrganSegOutput:
    """Answer to one question about one image; all of it is computed whatever the outcome."""

    similarities: Tensor
    """(K + 1,) cosines with the context cache: K organs, then the irrelevant texts."""
    presence: Tensor
    """() in [0, 1]: whether the slice shows the organ."""
    box_cxcywh: Tensor
    """(4,) in [0, 1], relative to the original image."""
    mask_probabilities: Tensor
    """(H, W) in [0, 1], in the original image's size; > 0.5 is foreground."""
    hidden_state: Tensor
    """(E,): the joint vision-language embedding, after the final norm."""


class OrganSegExtractors(nn.Module):
    """What Organ-Seg reads from the joint vision-language embedding.

    The segment information extractor gives the mask decoder's text token and, from a second row of
    its own, the box: the token stays free to be what a frozen decoder listens to. The information
    of interest extractor gives the vector that is compared with the context cache. The presence
    head is not in the paper, whose irrelevant text cannot tell a missing organ from nonsense.
    """

    def __init__(self, profile: Profile) -> None:
        super().__init__()
        width, channels = profile.mistral.hidden_size, profile.sam_decoder.hidden_size
        interest_width = min(INTEREST_HIDDEN_SIZE, width)
        self.segment_information = nn.Sequential(nn.Linear(width, width), nn.ReLU())
        self.segment_rows = nn.Linear(width, 2 * channels)
        self.box_head = nn.Sequential(
            nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, 4)
        )
        self.presence_head = nn.Linear(width, 1)
        self.interest = nn.Sequential(
            nn.Linear(width, interest_width), nn.GELU(), nn.Linear(interest_width, CONTEXT_WIDTH)
        )

    def forward(self, hidden_state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Read one joint embedding.

        Args:
            hidden_state: (..., E) float, last prompt token's, after the final norm.

        Returns:
            seg_embedding (..., 1, C) for the mask decoder; boxes_cxcywh (..., 4) in [0, 1],
            relative to the original image; interest (..., D) of unit length; presence (...) in
            [0, 1].
        """
        segment = self.segment_information(hidden_state)
        seg_embedding, box_row = self.segment_rows(segment).chunk(2, dim=-1)
        return (
            seg_embedding[..., None, :],
            torch.sigmoid(self.box_head(box_row)),
            F.normalize(self.interest(hidden_state), dim=-1),
            torch.sigmoid(self.presence_head(segment))[..., 0],
        )


class OrganSeg(System):
    """All networks of Organ-Seg.

    The base language model carries the LoRA adapter `organseg` and keeps its own vocabulary. The
    context cache is no part of the network: an organ is added without it.
    """

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile, ADAPTER)
        self.extractors = OrganSegExtractors(profile)
        self.mask_decoder = PromptedMaskDecoder(profile)

    @torch.no_grad()
    def answer(
        self,
        sam_pixels: Tensor,
        clip_pixels: Tensor,
        token_ids: Sequence[int],
        original_size: tuple[int, int],
        context: Context,
    ) -> OrganSegOutput:
        """Answer one question: everything computed, nothing kept.

        Args:
            sam_pixels: (3, S, S), MedSAM's frame: stretched to a square, min-max to [0, 1].
            clip_pixels: (3, S, S), CLIP's frame of the picture padded to a square.
            token_ids: From `serving.organseg_prompt.organseg_prompt`.
            original_size: (H, W) of the picture.
            context: The cache that the question is compared with.
        """
        patch_tokens, _ = self.llava_image_encoder(clip_pixels[None])
        prompt = self.embed_prompt(token_ids, [patch_tokens[0]])
        states = self.mllm.model.model(inputs_embeds=prompt, use_cache=False).last_hidden_state
        (hidden_state,) = states[0, list(ORGANSEG_HIDDEN_POSITIONS)]
        seg_embedding, box, interest, presence = self.extractors(hidden_state)
        low_res = self.mask_decoder(
            self.image_encoder(sam_pixels[None]), seg_embedding[None, None], box[None, None]
        )
        probabilities = resize_probabilities(low_res, original_size)[0, 0]
        return OrganSegOutput(
            context.similarities(interest), presence, box, probabilities, hidden_state
        )


def resize_probabilities(low_res_logits: Tensor, original_size: Sequence[int | Tensor]) -> Tensor:
    """Bring low-resolution logits of a stretched frame to the picture (`MedSAM_Inference`).

    Args:
        low_res_logits: (B, P, h, w).
        original_size: (H, W) of the picture.

    Returns:
        Probabilities (B, P, H, W) float32; > 0.5 is foreground.
    """
    # torch's stubs know ints only; the export traces elements of a tensor through here.
    size: Any = tuple(original_size)
    return F.interpolate(low_res_logits.float().sigmoid(), size, mode="bilinear")
