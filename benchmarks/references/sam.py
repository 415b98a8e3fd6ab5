"""SAM as `segment_anything` computes it: image encoder, prompt encoder and mask decoder."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from benchmarks.segment_anything_reference import reference
from export.sam_keys import segment_anything_name
from training.networks.profiles import Profile
from training.networks.sam import PromptedMaskDecoder, SamImageEncoder

modeling = reference("segment_anything.modeling")
transforms = reference("segment_anything.utils.transforms")


class SamReference:
    """`segment_anything`'s Sam at any size, with the weights of our two halves.

    Args:
        profile: Sizes.
        image_encoder: Where the encoder's weights come from.
        mask_decoder: Where those of prompt encoder and mask decoder come from.
    """

    def __init__(
        self, profile: Profile, image_encoder: SamImageEncoder, mask_decoder: PromptedMaskDecoder
    ) -> None:
        vision, size, patch = profile.sam_vision, profile.sam_size, profile.sam_patch
        channels, grid = profile.sam_decoder.hidden_size, size // patch
        encoder = modeling.ImageEncoderViT(
            img_size=size,
            patch_size=patch,
            embed_dim=vision.hidden_size,
            depth=vision.num_hidden_layers,
            num_heads=vision.num_attention_heads,
            mlp_ratio=(vision.mlp_dim or 4 * vision.hidden_size) / vision.hidden_size,
            out_chans=channels,
            norm_layer=lambda width: nn.LayerNorm(width, eps=1e-6),
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=tuple(vision.global_attn_indexes),
            window_size=vision.window_size,
        )
        if profile.convolutional_stem:
            # Our own stem, since the package has none; everything behind it is the package's.
            encoder.patch_embed.proj = image_encoder.vision_encoder.patch_embed.projection
        decoder = modeling.MaskDecoder(
            num_multimask_outputs=3,
            transformer=modeling.TwoWayTransformer(
                depth=2,
                embedding_dim=channels,
                mlp_dim=profile.sam_decoder.mlp_dim,
                num_heads=profile.sam_decoder.num_attention_heads,
            ),
            transformer_dim=channels,
            iou_head_depth=3,
            iou_head_hidden_dim=profile.sam_decoder.iou_head_hidden_dim,
        )
        prompts = modeling.PromptEncoder(channels, (grid, grid), (size, size), 16)
        self.sam = modeling.Sam(encoder, prompts, decoder).eval()
        state = {
            segment_anything_name(name): tensor
            for part in (image_encoder, mask_decoder)
            for name, tensor in part.state_dict().items()
        }
        self.sam.load_state_dict(state)

    @property
    def size(self) -> int:
        """Side of the frame."""
        return int(self.sam.image_encoder.img_size)

    def embedding(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, C, h, w)."""
        embedding: Tensor = self.sam.image_encoder(pixels)
        return embedding

    def padded_frame(self, rgb: np.ndarray) -> tuple[Tensor, tuple[int, int]]:
        """(H, W, 3) uint8 -> SAM's pixels (1, 3, S, S), and the size (h', w') inside the frame."""
        resized = transforms.ResizeLongestSide(self.size).apply_image(rgb)
        pixels = torch.from_numpy(resized.transpose(2, 0, 1).copy()).float()
        return self.sam.preprocess(pixels)[None], tuple(resized.shape[:2])

    def stretched_frame(self, rgb: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 -> MedSAM's pixels (1, 3, S, S): both sides to S, values to [0, 1]."""
        resized = Image.fromarray(rgb).resize((self.size, self.size), Image.Resampling.BICUBIC)
        values = torch.from_numpy(np.array(resized)).double().permute(2, 0, 1)[None]
        low, high = values.min(), values.max()
        return ((values - low) / (high - low).clamp(min=1e-8)).float()

    def low_res_logits(
        self, image_embedding: Tensor, text_embedding: Tensor, boxes_cxcywh: Tensor | None
    ) -> Tensor:
        """Logits (P, 1, 4 h, 4 w) of P prompts about one picture.

        Args:
            image_embedding: (1, C, h, w).
            text_embedding: (P, 1, C), one more token behind those of the box.
            boxes_cxcywh: (P, 4) in [0, 1]; None prompts with the text alone.
        """
        corners = None if boxes_cxcywh is None else corners_of(boxes_cxcywh) * self.size
        boxes, dense = self.sam.prompt_encoder(points=None, boxes=corners, masks=None)
        boxes = boxes.expand(len(text_embedding), -1, -1)
        low_res, _ = self.sam.mask_decoder(
            image_embeddings=image_embedding,
            image_pe=self.sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=torch.cat([boxes, text_embedding], dim=1),
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        return low_res

    def unpadded(
        self, low_res: Tensor, input_size: tuple[int, int], original_size: tuple[int, int]
    ) -> Tensor:
        """Probabilities (P, H, W) of a picture in the padded frame."""
        logits = self.sam.postprocess_masks(low_res, input_size, original_size)
        return logits[:, 0].sigmoid()


def unstretched(low_res: Tensor, original_size: tuple[int, int]) -> Tensor:
    """Probabilities (P, H, W) of a picture in MedSAM's stretched frame (`MedSAM_Inference`)."""
    return F.interpolate(low_res.sigmoid(), size=original_size, mode="bilinear")[:, 0]


def corners_of(boxes_cxcywh: Tensor) -> Tensor:
    """(P, 4) centre and size -> (P, 4) corners x0, y0, x1, y1."""
    center, size = boxes_cxcywh[:, :2], boxes_cxcywh[:, 2:]
    return torch.cat([center - size / 2, center + size / 2], dim=1)
