"""Organ-Seg from pixels and words: other people's code, and what the paper says of its heads.

The paper published no code; what it leaves open is as docs/organseg.md has it.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file
from torch import Tensor

from benchmarks.references.language import SHOWN, LanguageReference
from benchmarks.references.layers import linear, stack
from benchmarks.references.llava import LlavaReference
from benchmarks.references.sam import SamReference, corners_of, unstretched
from export.sources import Networks, OrganSegNetworks, OrganSegTexts
from training.networks.profiles import Profile


@dataclass(frozen=True)
class OrganSegReading:
    """What the extractors read from B joint embeddings."""

    seg_embedding: Tensor
    """(B, 1, C)."""
    boxes_cxcywh: Tensor
    """(B, 4) in [0, 1]."""
    interest: Tensor
    """(B, D) of unit length."""
    presence: Tensor
    """(B,) in [0, 1]."""


@dataclass(frozen=True)
class OrganSegAnswer:
    """Answer to one question."""

    outcome: str
    label: str
    snomed_code: str
    margin: float
    similarities: np.ndarray
    """(K + 1,)."""
    presence: float
    box_xyxy: Tensor
    """(4,) pixels; zeros where nothing is found."""
    probabilities: Tensor
    """(H, W); zeros where nothing is found."""


class OrganSegReference:
    """Organ-Seg with the weights and texts that are served.

    Args:
        profile: Sizes.
        networks: Where the weights come from.
        own: Organ-Seg's part of them.
        texts: Context cache and template.
        mllm_folder: Version folder of the model `mllm`.
    """

    def __init__(
        self,
        profile: Profile,
        networks: Networks,
        own: OrganSegNetworks,
        texts: OrganSegTexts,
        mllm_folder: Path,
    ) -> None:
        self.sam = SamReference(profile, networks.image_encoder, own.mask_decoder)
        self.llava = LlavaReference(profile, networks.llava_image_encoder)
        self.language = LanguageReference(mllm_folder, "organseg")
        self.extractors = own.extractors.state_dict()
        self.template = texts.template
        self.context = load_file(texts.context / "context.safetensors")["context"].astype(float)
        self.organs = json.loads((texts.context / "context.json").read_text())["organs"]

    def token_ids(self, question: str) -> list[int]:
        """Ids of one question in its template."""
        words = self.template.replace("{question}", question)
        return self.language.token_ids(f"[INST] {SHOWN}\n {words} [/INST]")

    def patch_tokens(self, rgb: np.ndarray) -> Tensor:
        """(T, E) of the whole picture."""
        return self.llava.tokens(self.llava.padded_frame(rgb))[0, 1:]

    def read(self, hidden: Tensor) -> OrganSegReading:
        """What the extractors say of joint embeddings (B, E)."""
        state = self.extractors
        segment = F.relu(linear(state, "segment_information.0", hidden))
        rows = linear(state, "segment_rows", segment)
        channels = rows.shape[-1] // 2
        box = stack(state, ("box_head.0", "box_head.2"), F.relu, rows[:, channels:])
        interest = stack(state, ("interest.0", "interest.2"), F.gelu, hidden)
        return OrganSegReading(
            seg_embedding=rows[:, None, :channels],
            boxes_cxcywh=box.sigmoid(),
            interest=interest / interest.norm(dim=-1, keepdim=True),
            presence=linear(state, "presence_head", segment).sigmoid()[:, 0],
        )

    def similarities(self, interest: np.ndarray) -> np.ndarray:
        """Cosines (B, K + 1) in float64: each organ's row, then the nearest irrelevant one."""
        vectors = interest.astype(float)
        lengths = np.outer(np.linalg.norm(vectors, axis=1), np.linalg.norm(self.context, axis=1))
        cosines = np.einsum("bd,kd->bk", vectors, self.context) / lengths
        organs = len(self.organs)
        return np.c_[cosines[:, :organs], cosines[:, organs:].max(axis=1)]

    def answer(self, rgb: np.ndarray, question: str, least_margin: float) -> OrganSegAnswer:
        """Answer one question about a picture (H, W, 3) uint8."""
        hidden = self.language.hidden_states(
            self.token_ids(question), [self.patch_tokens(rgb)], positions=[-1]
        )
        reading = self.read(hidden)
        (similarities,) = self.similarities(reading.interest.numpy())
        best = int(similarities.argmax())
        margin = float(similarities[best] - np.delete(similarities, best).max())
        height, width = rgb.shape[:2]
        low_res = self.sam.low_res_logits(
            self.sam.embedding(self.sam.stretched_frame(rgb)),
            reading.seg_embedding,
            reading.boxes_cxcywh,
        )
        probabilities = unstretched(low_res, (height, width))[0]
        if best == len(self.organs):
            outcome = "irrelevant"
        elif margin < least_margin:
            outcome = "uncertain"
        elif reading.presence < 0.1 or not _outvotes(reading.presence, probabilities):
            outcome = "absent"
        else:
            outcome = "found"
        found = outcome == "found"
        organ = {"name": "", "snomed": ""} if outcome == "irrelevant" else self.organs[best]
        scale = torch.tensor([width, height, width, height])
        return OrganSegAnswer(
            outcome=outcome,
            label=organ["name"],
            snomed_code=organ["snomed"],
            margin=margin,
            similarities=similarities,
            presence=float(reading.presence),
            box_xyxy=found * corners_of(reading.boxes_cxcywh)[0] * scale,
            probabilities=found * probabilities,
        )


def _outvotes(presence: Tensor, probabilities: Tensor) -> bool:
    """Whether presence and the mean probability inside the outline together speak for an organ."""
    inside = probabilities[probabilities > 0.5]
    return len(inside) > 0 and float(presence.logit() + inside.mean().logit(eps=1e-6)) >= 2.0
