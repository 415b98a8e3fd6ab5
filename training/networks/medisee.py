"""MediSee in one piece, for training and as the plain reference of what the server computes.

The server runs the same parts as separate models; the cuts between them are the arguments and
results of the methods here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import MistralForCausalLM

from serving.llava_prompt import IMAGE_SEGMENT, MEDISEE_HIDDEN_POSITIONS
from training.networks.llava import LlavaImageEncoder
from training.networks.medisee_heads import BoxDecoder, DemocraticFusion
from training.networks.profiles import Profile
from training.networks.sam import PromptedMaskDecoder, SamImageEncoder

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


class MediSee(nn.Module):
    """All networks of MediSee.

    The base language model carries the LoRA adapter `medisee`; its own token embedding and head
    stay those of the base, and MediSee's fully trained ones stand beside them.
    """

    def __init__(self, profile: Profile) -> None:
        super().__init__()
        self.profile = profile
        width = profile.mistral.hidden_size
        vocabulary = profile.mistral.vocab_size + ADDED_TOKENS
        self.image_encoder = SamImageEncoder(profile)
        self.llava_image_encoder = LlavaImageEncoder(profile)
        self.mllm = get_peft_model(
            MistralForCausalLM(profile.mistral),
            LoraConfig(
                r=profile.lora_rank,
                lora_alpha=profile.lora_alpha,
                lora_dropout=0.05,
                target_modules=["q_proj", "v_proj"],
            ),
            adapter_name=ADAPTER,
        )
        self.embed_tokens = nn.Embedding(vocabulary, width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.fusion = DemocraticFusion(profile)
        self.box_decoder = BoxDecoder(profile)
        self.mask_decoder = PromptedMaskDecoder(profile)

    @property
    def base(self) -> MistralForCausalLM:
        """The language model inside PEFT's wrapper."""
        base = self.mllm.get_base_model()
        assert isinstance(base, MistralForCausalLM)
        return base

    def adopt_base_vocabulary(self) -> None:
        """Start MediSee's embedding and head from the base's; added tokens from their mean."""
        with torch.no_grad():
            for own, of_base in (
                (self.embed_tokens.weight, self.base.model.embed_tokens.weight),
                (self.lm_head.weight, self.base.lm_head.weight),
            ):
                own[:-ADDED_TOKENS] = of_base
                own[-ADDED_TOKENS:] = of_base.mean(dim=0)

    def embed_prompt(self, token_ids: Sequence[int], patch_tokens: Tensor) -> Tensor:
        """Prompt embeddings (1, L, E) of ids in which -1 stands for the image's T rows."""
        image = token_ids.index(IMAGE_SEGMENT)
        before, after = torch.tensor(token_ids[:image]), torch.tensor(token_ids[image + 1 :])
        device = patch_tokens.device
        parts = [
            self.embed_tokens(before.to(device)),
            patch_tokens,
            self.embed_tokens(after.to(device)),
        ]
        return torch.cat(parts)[None]

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
        prompt = self.embed_prompt(list(token_ids), patch_tokens[0])
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
