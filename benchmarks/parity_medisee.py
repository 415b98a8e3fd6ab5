"""Parity of MediSee: its heads, its mask decoder, and the pipeline from pixels and words."""

import numpy as np
import torch
from torch import Tensor

from benchmarks.differences import outlines, relative
from benchmarks.parity_encoders import language_difference
from benchmarks.references.medisee import MediSeeReference
from benchmarks.references.sam import corners_of
from benchmarks.served_models import ServedModels
from training.networks.profiles import Profile

PICTURES = ((181, 217, 3), (160, 160, 1), (97, 300, 3))
"""Shapes (H, W, C) of the pictures the pipeline is asked about."""

PROMPT = "which structure consolidates memories?"


class MediSeeParity:
    """Compares the served models of MediSee with its reference."""

    def __init__(self, served: ServedModels, reference: MediSeeReference, profile: Profile) -> None:
        self.served, self.reference, self.profile = served, reference, profile

    def differences(self) -> dict[str, float]:
        """Worst relative difference by name."""
        return {
            "mllm.medisee": self._language(),
            "medisee_router": self._router(),
            "medisee_box_decoder": self._box_decoder(),
            "medisee_mask_decoder": self._mask_decoder(),
            "medisee": max(self._pipeline(shape) for shape in PICTURES),
        }

    def _language(self) -> float:
        rows = torch.randn(self.profile.image_tokens, self.profile.mistral.hidden_size)
        ids, positions = self.reference.prompt(PROMPT)
        return language_difference(self.served, self.reference.language, ids, [rows], positions)

    def _router(self) -> float:
        states = torch.randn(3, 2, self.profile.mistral.hidden_size)
        routed = self.served.ask("medisee_router", hidden_states=states)
        text, box = self.reference.fused(states)
        return max(
            relative(routed["text_embedding"], text), relative(routed["box_hidden_state"], box)
        )

    def _box_decoder(self) -> float:
        hidden = torch.randn(3, self.profile.mistral.hidden_size)
        decoded = self.served.ask("medisee_box_decoder", box_hidden_state=hidden)
        return relative(decoded["boxes_cxcywh"], self.reference.box_of(hidden))

    def _mask_decoder(self) -> float:
        channels, size = self.profile.sam_decoder.hidden_size, self.profile.sam_size
        grid = size // self.profile.sam_patch
        embedding, text = torch.randn(1, channels, grid, grid), torch.randn(3, 1, channels)
        boxes = torch.rand(3, 4) * 0.4 + 0.2
        inner, outer = (size * 3 // 4, size), (151, 201)
        answer = self.served.ask(
            "medisee_mask_decoder",
            image_embedding=embedding,
            text_embedding=text,
            boxes_cxcywh=boxes,
            input_size=np.array([inner], np.int64),
            original_size=np.array([outer], np.int64),
        )
        sam = self.reference.sam
        low_res = sam.low_res_logits(embedding, text, boxes)
        return _compared(answer, sam.unpadded(low_res, inner, outer), boxes)

    def _pipeline(self, shape: tuple[int, int, int]) -> float:
        image = np.random.default_rng(shape[0]).integers(0, 256, shape, dtype=np.uint8)
        answer = self.served.ask("medisee", image=image, prompt=PROMPT)
        rgb = np.broadcast_to(image, (*shape[:2], 3)).copy()
        return _compared(answer, *self.reference.answer(rgb, PROMPT))


def _compared(answer: dict[str, np.ndarray], probabilities: Tensor, boxes: Tensor) -> float:
    """Masks, scores and boxes against probabilities (P, H, W) and boxes_cxcywh (P, 4)."""
    height, width = probabilities.shape[1:]
    corners = corners_of(boxes) * torch.tensor([width, height, width, height])
    return max(
        outlines(answer["masks"], answer["scores"], probabilities),
        relative(answer["boxes_xyxy"], corners),
    )
