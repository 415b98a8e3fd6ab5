"""SAM in the two halves it is served in: the image encoder, and prompt encoder with mask decoder.

Built from the SAM classes of `transformers`. The image encoder is shared by MediSee, MediRound
and Organ-Seg; the decoders differ per system only in weights and in the prompts they get.
"""

import torch
from torch import Tensor, nn
from transformers import SamConfig
from transformers.models.sam.modeling_sam import (
    SamMaskDecoder,
    SamPromptEncoder,
    SamVisionEncoder,
)

from training.networks.conv_stem import ConvStem
from training.networks.profiles import Profile


class SamImageEncoder(nn.Module):
    """ViT of SAM with its neck."""

    def __init__(self, profile: Profile) -> None:
        super().__init__()
        self.vision_encoder = SamVisionEncoder(profile.sam_vision)
        if profile.convolutional_stem:
            self.vision_encoder.patch_embed.projection = ConvStem(
                profile.sam_vision.hidden_size, profile.sam_patch
            )

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode preprocessed images.

        Args:
            pixels: (B, 3, S, S) float, normalised and zero-padded by `serving.preprocessing`.

        Returns:
            Image embedding (B, C, h, w); h = w = S / patch size.
        """
        return self.vision_encoder(pixels).last_hidden_state


class PromptedMaskDecoder(nn.Module):
    """Prompt encoder and mask decoder of SAM, prompted by a text embedding and perhaps a box.

    Sparse prompts stand in the order [top-left corner, bottom-right corner, text], the dense
    prompt is "no mask", and mask token 0 is used, as in MediSee's released code. MediRound's
    prompts have no box.
    """

    def __init__(self, profile: Profile) -> None:
        super().__init__()
        self.image_size = profile.sam_size
        self.prompt_encoder = SamPromptEncoder(
            SamConfig(
                vision_config=profile.sam_vision.to_dict(),
                prompt_encoder_config=profile.sam_prompt.to_dict(),
                mask_decoder_config=profile.sam_decoder.to_dict(),
            )
        )
        decoder = type(profile.sam_decoder).from_dict(profile.sam_decoder.to_dict())
        decoder._attn_implementation = "sdpa"
        self.mask_decoder = SamMaskDecoder(decoder)
        frequencies = self.prompt_encoder.shared_embedding.positional_embedding
        frequencies.requires_grad_(False)
        # transformers scales its random frequencies by half the ViT's width, which published
        # weights overwrite; from scratch, SAM's own scale of one is the one that can be learned.
        nn.init.normal_(frequencies)

    def forward(
        self, image_embedding: Tensor, text_embedding: Tensor, boxes_cxcywh: Tensor | None
    ) -> Tensor:
        """Decode one mask per prompt.

        Args:
            image_embedding: (B, C, h, w), one per image.
            text_embedding: (B, P, 1, C), P prompts per image.
            boxes_cxcywh: (B, P, 4) in [0, 1], relative to the original image's width and height.
                They are scaled by the padded frame's side without correcting for the aspect
                ratio: the published weights were trained so. None: the text embedding is the only
                prompt.

        Returns:
            Mask logits (B, P, 4 h, 4 w); > 0 is foreground.
        """
        corners = None
        if boxes_cxcywh is not None:
            center, size = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:]
            corners = torch.cat([center - size / 2, center + size / 2], dim=-1) * self.image_size
        boxes, dense = self.prompt_encoder(
            input_points=None, input_labels=None, input_boxes=corners, input_masks=None
        )
        sparse = text_embedding if boxes is None else torch.cat([boxes, text_embedding], dim=2)
        masks, _ = self.mask_decoder(
            image_embeddings=image_embedding,
            image_positional_embeddings=self.image_positions().expand(
                image_embedding.shape[0], -1, -1, -1
            ),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        return masks[:, :, 0]

    def image_positions(self) -> Tensor:
        """Positional encoding of the embedding's grid, (1, C, h, w)."""
        height, width = self.prompt_encoder.image_embedding_size
        embedding = self.prompt_encoder.shared_embedding
        like = embedding.positional_embedding
        y = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) / height
        x = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) / width
        points = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        return embedding(points[None]).permute(0, 3, 1, 2)
