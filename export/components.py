"""The ONNX components as modules whose arguments and results are the served tensors."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.sources import Networks
from training.networks.medisee import resize_logits
from training.networks.sam import PromptedMaskDecoder

BITS = (128, 64, 32, 16, 8, 4, 2, 1)


class ServedMaskDecoder(nn.Module):
    """Mask decoder with the way back to the picture and the packing of its bits.

    Args:
        decoder: Prompt encoder and mask decoder.
    """

    def __init__(self, decoder: PromptedMaskDecoder) -> None:
        super().__init__()
        self.decoder = decoder
        self.register_buffer("bits", torch.tensor(BITS, dtype=torch.float32), persistent=False)

    def forward(
        self,
        image_embedding: Tensor,
        text_embedding: Tensor,
        boxes_cxcywh: Tensor,
        input_size: Tensor,
        original_size: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decode, resize, threshold and pack.

        Args:
            image_embedding: (1, C, h, w).
            text_embedding: (P, 1, C).
            boxes_cxcywh: (P, 4) in [0, 1].
            input_size: (1, 2) int64, (h', w') inside the SAM frame.
            original_size: (1, 2) int64, (H, W).

        Returns:
            masks (P, H, ceil(W / 8)) uint8, boxes_xyxy (P, 4) pixels, scores (P,).
        """
        low_res = self.decoder(image_embedding, text_embedding[None], boxes_cxcywh[None])
        width = original_size[0, 1]
        # Elements of tensors where ints are expected: the tracer keeps them as inputs of the graph.
        inner, outer = list(input_size[0]), list(original_size[0])
        logits = resize_logits(low_res, self.decoder.image_size, inner, outer)[0]
        foreground = (logits > 0).float()
        area = foreground.sum(dim=(1, 2))
        scores = (torch.sigmoid(logits) * foreground).sum(dim=(1, 2)) / area.clamp(min=1)
        # Bits of one byte lie side by side in a row; the last byte is filled up with zeros.
        padded = F.pad(foreground, (0, 7))
        columns = (width + 7) // 8
        packed = padded[:, :, : columns * 8].unflatten(2, (-1, 8)) @ self.bits
        center, size = boxes_cxcywh[:, :2], boxes_cxcywh[:, 2:]
        scale = original_size.flip(1).repeat(1, 2).to(boxes_cxcywh.dtype)
        boxes_xyxy = torch.cat([center - size / 2, center + size / 2], dim=1) * scale
        return packed.to(torch.uint8), boxes_xyxy, scores


def onnx_components(networks: Networks) -> dict[str, nn.Module]:
    """ONNX component by the name of its model."""
    return {
        "medsam_image_encoder": networks.image_encoder,
        "llava_image_encoder": networks.llava_image_encoder,
        "medisee_router": networks.fusion,
        "medisee_box_decoder": networks.box_decoder,
        "medisee_mask_decoder": ServedMaskDecoder(networks.mask_decoder),
    }
