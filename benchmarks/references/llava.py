"""LLaVA's image side as Hugging Face computes it, with the projector written out."""

import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

from training.networks.llava import LlavaImageEncoder
from training.networks.profiles import Profile


class LlavaReference:
    """Hugging Face's whole CLIP vision model, read at the hidden state before the last layer.

    Args:
        profile: Sizes.
        encoder: Where the weights come from; the last layer, which is not read, stays random.
    """

    def __init__(self, profile: Profile, encoder: LlavaImageEncoder) -> None:
        config = CLIPVisionConfig.from_dict(profile.clip.to_dict())
        self.model = CLIPVisionModel(config).eval()
        self.select_layer = profile.clip_select_layer
        if profile.convolutional_stem:
            inner = getattr(self.model, "vision_model", self.model)
            inner.embeddings.patch_embedding = encoder.embeddings.patch_embedding
        self.model.load_state_dict(encoder.vision_tower.state_dict(), strict=False)
        self.projector = encoder.projector.state_dict()
        self.size = size = profile.clip_size
        """Side of the frame."""
        self.processor = CLIPImageProcessorPil(
            size={"shortest_edge": size}, crop_size={"height": size, "width": size}
        )

    def frame(self, rgb: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 -> pixels (1, 3, S, S) of the picture's middle."""
        pixels: Tensor = self.processor(Image.fromarray(rgb), return_tensors="pt")["pixel_values"]
        return pixels

    def padded_frame(self, rgb: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 -> pixels (1, 3, S, S) of all of it (LLaVA's `expand2square`)."""
        height, width = rgb.shape[:2]
        side = max(height, width)
        square = np.empty((side, side, 3), np.uint8)
        square[:] = [int(255 * mean) for mean in self.processor.image_mean]
        top, left = (side - height) // 2, (side - width) // 2
        square[top : top + height, left : left + width] = rgb
        return self.frame(square)

    def tokens(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, 1 + T, E), CLS first."""
        hidden = self.model(pixels, output_hidden_states=True).hidden_states[self.select_layer]
        inner = F.gelu(F.linear(hidden, self.projector["0.weight"], self.projector["0.bias"]))
        return F.linear(inner, self.projector["2.weight"], self.projector["2.bias"])
