"""MediSee from pixels and words: other people's code, and the paper's formulas for its heads."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.references.language import SHOWN, LanguageReference
from benchmarks.references.layers import stack
from benchmarks.references.llava import LlavaReference
from benchmarks.references.sam import SamReference
from export.sources import MediSeeNetworks, Networks
from training.networks.profiles import Profile


class MediSeeReference:
    """MediSee with the weights that are served.

    Args:
        profile: Sizes.
        networks: Where the weights come from.
        own: MediSee's part of them.
        mllm_folder: Version folder of the model `mllm`.
    """

    def __init__(
        self, profile: Profile, networks: Networks, own: MediSeeNetworks, mllm_folder: Path
    ) -> None:
        self.sam = SamReference(profile, networks.image_encoder, own.mask_decoder)
        self.llava = LlavaReference(profile, networks.llava_image_encoder)
        self.language = LanguageReference(mllm_folder, "medisee", ("[SEG]", "[BBOX]"))
        self.fusion = own.fusion.state_dict()
        self.box = own.box_decoder.state_dict()

    def answer(self, rgb: np.ndarray, question: str) -> tuple[Tensor, Tensor]:
        """Probabilities (1, H, W) and box_cxcywh (1, 4) for a picture (H, W, 3) uint8."""
        ids, positions = self.prompt(question)
        patches = self.llava.tokens(self.llava.frame(rgb))[0, 1:]
        text, box_hidden = self.fused(self.language.hidden_states(ids, [patches], positions)[None])
        box = self.box_of(box_hidden)
        pixels, inner = self.sam.padded_frame(rgb)
        low_res = self.sam.low_res_logits(self.sam.embedding(pixels), text, box)
        height, width, _ = rgb.shape
        return self.sam.unpadded(low_res, inner, (height, width)), box

    def prompt(self, question: str) -> tuple[list[int], list[int]]:
        """Ids of a question with its answer, and where `[SEG]` and `[BBOX]` are predicted."""
        ids = self.language.token_ids(f"[INST] {SHOWN}\n {question} [/INST] [SEG] and [BBOX].")
        return ids, [ids.index(self.language.special[token]) - 1 for token in ("[SEG]", "[BBOX]")]

    def fused(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """h_seg and h_box (B, 2, E) -> text embedding (B, 1, C), and the box's state (B, E)."""
        h_seg, h_box = hidden_states[:, 0], hidden_states[:, 1]
        fused = self._democratic("router_seg", h_seg, h_box)
        layers = ("text_projection.0", "text_projection.2")
        return (
            stack(self.fusion, layers, F.relu, fused)[:, None],
            self._democratic("router_box", h_seg, h_box),
        )

    def box_of(self, hidden: Tensor) -> Tensor:
        """Three layers with ReLU, then sigmoid: (B, E) -> (B, 4) in [0, 1]."""
        return stack(self.box, ("layers.0", "layers.2", "layers.4"), F.relu, hidden).sigmoid()

    def _democratic(self, router: str, h_seg: Tensor, h_box: Tensor) -> Tensor:
        """Eq. 2: z = W2 GELU(W1 [h_box ; h_seg]), w = sigmoid(z) / sum."""
        layers = (f"{router}.gate.0", f"{router}.gate.2")
        z = stack(self.fusion, layers, F.gelu, torch.cat([h_box, h_seg], dim=-1))
        weights = z.sigmoid() / z.sigmoid().sum(dim=-1, keepdim=True)
        return weights[..., 0:1] * h_box + weights[..., 1:2] * h_seg
