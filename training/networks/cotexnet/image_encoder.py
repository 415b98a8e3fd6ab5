"""CoTexNet's trunk: CLIP's vision tower, frozen and shared by all tasks."""

import torch
from torch import Tensor, nn
from transformers.models.clipseg.modeling_clipseg import (
    CLIPSegEncoderLayer,
    CLIPSegVisionEmbeddings,
)

from training.networks.conv_stem import ConvStem
from training.networks.cotexnet.profile import NORM_EPS, CoTexNetProfile


class CoTexNetImageEncoder(nn.Module):
    """ViT with taps. CLIP's norm after the last layer, which nothing reads, is not built."""

    def __init__(self, profile: CoTexNetProfile) -> None:
        super().__init__()
        config = profile.vision_config()
        self.taps = profile.taps
        self.embeddings = CLIPSegVisionEmbeddings(config)
        # transformers leaves the scale to its whole models.
        nn.init.normal_(self.embeddings.class_embedding, std=profile.vision.width**-0.5)
        nn.init.normal_(self.embeddings.position_embedding.weight, std=config.initializer_range)
        if profile.convolutional_stem:
            stem = ConvStem(profile.vision.width, profile.patch_size)
            self.embeddings.add_module("patch_embedding", stem)
        self.first_norm = nn.LayerNorm(profile.vision.width, eps=NORM_EPS)
        self.layers = nn.ModuleList(
            CLIPSegEncoderLayer(config) for _ in range(config.num_hidden_layers)
        )

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Encode preprocessed images.

        Args:
            pixels: (B, 3, S, S) float32, RGB, normalised by ImageNet's mean and deviation.

        Returns:
            features (B, 3, T, E) after the layers of `profile.taps`, in their order, class token
            first, T = 1 + (S / patch_size)^2; class_token (B, E) after the last layer.

        Raises:
            ValueError: if the images are not of the side S: positions are not interpolated.
        """
        hidden, taps = self.embed(pixels), []
        for number, layer in enumerate(self.layers):
            hidden = layer(hidden, None)
            if number in self.taps:
                taps.append(hidden)
        return torch.stack(taps, dim=1), hidden[:, 0]

    def embed(self, pixels: Tensor) -> Tensor:
        """What the first layer reads, (B, T, E)."""
        return self.first_norm(self.embeddings(pixels, interpolate_pos_encoding=False))
