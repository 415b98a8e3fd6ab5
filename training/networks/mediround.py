"""MediRound in one piece, for training and as the plain reference of what the server computes.

The server runs the same parts as separate models, keeps what earlier rounds computed, and reads
references from the user's words; here every round is one full pass, and references are given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from serving.llava_prompt import LlavaTokenizer
from serving.mediround_prompt import MEDIROUND_ADDED_TOKENS, Turn, conversation_prompt
from serving.preprocessing import clip_frame, sam_frame
from serving.reference_region import reference_region
from training.networks.medisee import resize_logits
from training.networks.profiles import Profile
from training.networks.sam import PromptedMaskDecoder
from training.networks.system import System

ADAPTER = "mediround"
ADDED_TOKENS = len(MEDIROUND_ADDED_TOKENS)
BETA = 0.6
"""Score up to which an embedding is corrected (paper, Algorithm 1 and figure 7)."""

Judge = Literal["every", "referenced", "never"]
"""Whose embeddings are judged: every round's (paper, Algorithm 1), those that a later round refers
to (released code), or nobody's."""

Mask = NDArray[np.bool_]


class TextProjection(nn.Sequential):
    """From a hidden state to what the mask decoder reads: hidden_states (..., E) -> (..., C)."""

    def __init__(self, profile: Profile) -> None:
        width = profile.mistral.hidden_size
        super().__init__(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, profile.sam_decoder.hidden_size)
        )


class BoxEncoder(nn.Linear):
    """Linear layer from a reference's box to one token: boxes_xyxy (..., 4) -> (..., E).

    The boxes are in [0, 1], relative to the picture's width and height.
    """

    def __init__(self, profile: Profile) -> None:
        super().__init__(4, profile.mistral.hidden_size)


class JudgmentCorrection(nn.Module):
    """Judges a text embedding and offers a corrected one (paper, appendix A, Eq. 1 and 2)."""

    def __init__(self, profile: Profile) -> None:
        super().__init__()
        width, inner = profile.sam_decoder.hidden_size, profile.jcm_hidden_size
        self.judge = _three_layers(width, inner, 1)
        self.corrector = _three_layers(width, inner, width)

    def forward(self, text_embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Judge and correct.

        Args:
            text_embedding: (..., 1, C), from `TextProjection`.

        Returns:
            quality (...) in [0, 1], an estimate of the mask's IoU, and corrected_embedding
            (..., 1, C). Which of the two embeddings is decoded is the caller's choice.
        """
        return torch.sigmoid(self.judge(text_embedding)[..., 0, 0]), self.corrector(text_embedding)


def _three_layers(width: int, inner: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, inner),
        nn.GELU(),
        nn.Linear(inner, inner),
        nn.GELU(),
        nn.Linear(inner, outputs),
    )


@dataclass(frozen=True)
class Question:
    """One turn of a conversation."""

    prompt: str
    """What the user asks."""
    references: Sequence[int | Mask] = ()
    """Masks it refers to: indices of earlier turns from 0, or masks (H, W) the user drew."""


@dataclass(frozen=True)
class TurnOutput:
    """Answer to one turn."""

    mask_logits: Tensor
    """(H, W) float32 in the original image's size; > 0 is foreground."""
    text_embedding: Tensor
    """(1, C), as the text projection gives it: before any correction."""
    quality: float
    """Score of the judge, in [0, 1]."""
    corrected: bool
    """Whether the mask was decoded from the corrected embedding."""

    @property
    def mask(self) -> Mask:
        """(H, W)."""
        return (self.mask_logits > 0).cpu().numpy()


class MediRound(System):
    """All networks of MediRound.

    The base language model carries the LoRA adapter `mediround`; its own token embedding and head
    stay those of the base, and MediRound's fully trained ones stand beside them.
    """

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile, ADAPTER, ADDED_TOKENS)
        self.box_encoder = BoxEncoder(profile)
        self.text_projection = TextProjection(profile)
        self.jcm = JudgmentCorrection(profile)
        self.mask_decoder = PromptedMaskDecoder(profile)

    def reference_tokens(self, clip_pixels: Tensor, boxes_xyxy: Tensor) -> Tensor:
        """What references put into the prompt.

        Args:
            clip_pixels: (N, 3, S, S), crops in the CLIP frame.
            boxes_xyxy: (N, 4) in [0, 1].

        Returns:
            (N, 2, E): the crop's projected CLS token, then the box token.
        """
        _, cls_token = self.llava_image_encoder(clip_pixels)
        return torch.cat([cls_token, self.box_encoder(boxes_xyxy)[:, None]], dim=1)

    @torch.no_grad()
    def answer_conversation(
        self,
        tokenizer: LlavaTokenizer,
        image: np.ndarray,
        questions: Sequence[Question],
        beta: float = BETA,
        judge: Judge = "every",
    ) -> list[TurnOutput]:
        """Answer a conversation as the released loop does: a full pass per turn, nothing kept.

        Args:
            tokenizer: With `serving.mediround_prompt.MEDIROUND_ADDED_TOKENS`.
            image: (H, W, 3) uint8.
            questions: Oldest first; a reference is shown by the mask predicted for it.
            beta: Embeddings with a score up to this are corrected.
            judge: Whose embeddings are judged.

        Returns:
            One per question.

        Raises:
            ValueError: if a question refers to itself or a later one, or the picture is black.
        """
        height, width = image.shape[:2]
        referenced = {r for q in questions for r in q.references if isinstance(r, int)}
        outputs: list[TurnOutput] = []
        for number, question in enumerate(questions):
            for reference in question.references:
                if isinstance(reference, int) and not 0 <= reference < number:
                    raise ValueError(
                        f"references of question {number}: expected earlier questions, "
                        f"0 to {number - 1}, got {reference}"
                    )
            asked = questions[: number + 1]
            masks = [
                outputs[reference].mask if isinstance(reference, int) else reference
                for one in asked
                for reference in one.references
            ]
            text_embedding = self._text_embedding(tokenizer, image, asked, masks)
            quality, correction = self.jcm(text_embedding)
            judged = judge == "every" or (judge == "referenced" and number in referenced)
            corrected = judged and quality.item() <= beta
            pixels, input_size = sam_frame(image, self.profile.sam_size)
            low_res = self.mask_decoder(
                self.image_encoder(self._tensor(pixels)[None]),
                (correction if corrected else text_embedding)[None, None],
                None,
            )
            logits = resize_logits(low_res, self.profile.sam_size, input_size, (height, width))
            outputs.append(TurnOutput(logits[0, 0], text_embedding, quality.item(), corrected))
        return outputs

    def _text_embedding(
        self,
        tokenizer: LlavaTokenizer,
        image: np.ndarray,
        asked: Sequence[Question],
        masks: Sequence[Mask],
    ) -> Tensor:
        """(1, C) of the last question; `masks` are those of all references, in order."""
        side = self.profile.clip_size
        patch_tokens, _ = self.llava_image_encoder(self._tensor(clip_frame(image, side))[None])
        segments = [patch_tokens[0]]
        for mask in masks:
            crop, box = reference_region(image, mask)
            pixels = self._tensor(clip_frame(crop, side))
            tokens = self.reference_tokens(pixels[None], self._tensor(box)[None])
            segments += tokens[0].split(1)
        turns = [Turn(question.prompt, len(question.references)) for question in asked]
        token_ids, hidden_positions = conversation_prompt(tokenizer, turns)
        prompt = self.embed_prompt(token_ids, segments)
        hidden = self.mllm.model.model(inputs_embeds=prompt, use_cache=False).last_hidden_state
        text_embedding: Tensor = self.text_projection(hidden[0, hidden_positions[-1:]])
        return text_embedding

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.embed_tokens.weight.device)
