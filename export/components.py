"""The ONNX components as modules whose arguments and results are the served tensors."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.sources import Networks
from training.networks.medisee import resize_logits
from training.networks.organseg import resize_probabilities
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

    def packed(self, probabilities: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor]:
        """Pack the masks and score them.

        Args:
            probabilities: (P, H, W) in [0, 1].
            foreground: (P, H, W) bool.

        Returns:
            masks (P, H, ceil(W / 8)) uint8, scores (P,): the mean probability inside each mask.
        """
        inside = foreground.float()
        area = inside.sum(dim=(1, 2))
        scores = (probabilities * inside).sum(dim=(1, 2)) / area.clamp(min=1)
        # Bits of one byte lie side by side in a row; the last byte is filled up with zeros.
        columns = (foreground.shape[2] + 7) // 8
        bytes_apart = F.pad(inside, (0, 7))[:, :, : columns * 8].unflatten(2, (-1, 8))
        return (bytes_apart @ self.bits).to(torch.uint8), scores


class MediSeeMaskDecoder(ServedMaskDecoder):
    """Prompted by text and box, in the padded frame."""

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
        logits = _unpadded(low_res, self.decoder.image_size, input_size, original_size)
        masks, scores = self.packed(torch.sigmoid(logits), logits > 0)
        return masks, boxes_in_pixels(boxes_cxcywh, original_size), scores


class MediRoundMaskDecoder(ServedMaskDecoder):
    """Prompted by text alone, in the padded frame."""

    def forward(
        self,
        image_embedding: Tensor,
        text_embedding: Tensor,
        input_size: Tensor,
        original_size: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Decode, resize, threshold and pack.

        Args:
            image_embedding: (1, C, h, w).
            text_embedding: (P, 1, C).
            input_size: (1, 2) int64, (h', w') inside the SAM frame.
            original_size: (1, 2) int64, (H, W).

        Returns:
            masks (P, H, ceil(W / 8)) uint8, scores (P,).
        """
        low_res = self.decoder(image_embedding, text_embedding[None], None)
        logits = _unpadded(low_res, self.decoder.image_size, input_size, original_size)
        return self.packed(torch.sigmoid(logits), logits > 0)


class OrganSegMaskDecoder(ServedMaskDecoder):
    """Prompted by segment information and box, in MedSAM's stretched frame."""

    def forward(
        self,
        image_embedding: Tensor,
        seg_embedding: Tensor,
        boxes_cxcywh: Tensor,
        original_size: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decode, resize, threshold and pack.

        Args:
            image_embedding: (1, C, h, w).
            seg_embedding: (P, 1, C).
            boxes_cxcywh: (P, 4) in [0, 1].
            original_size: (1, 2) int64, (H, W).

        Returns:
            masks (P, H, ceil(W / 8)) uint8, boxes_xyxy (P, 4) pixels, scores (P,).
        """
        low_res = self.decoder(image_embedding, seg_embedding[None], boxes_cxcywh[None])
        probabilities = resize_probabilities(low_res, list(original_size[0]))[0]
        masks, scores = self.packed(probabilities, probabilities > 0.5)
        return masks, boxes_in_pixels(boxes_cxcywh, original_size), scores


class Extractors(nn.Module):
    """Organ-Seg's extractors, for hidden states as the engine gives them: (B, 1, E)."""

    def __init__(self, extractors: nn.Module) -> None:
        super().__init__()
        self.extractors = extractors

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return seg_embedding (B, 1, C), boxes_cxcywh (B, 4), interest (B, D), presence (B)."""
        outputs: tuple[Tensor, Tensor, Tensor, Tensor] = self.extractors(hidden_states[:, 0])
        return outputs


def boxes_in_pixels(boxes_cxcywh: Tensor, original_size: Tensor) -> Tensor:
    """(P, 4) boxes in [0, 1] -> (x0, y0, x1, y1) in pixels of a picture of (1, 2) size (H, W)."""
    center, size = boxes_cxcywh[:, :2], boxes_cxcywh[:, 2:]
    scale = original_size.flip(1).repeat(1, 2).to(boxes_cxcywh.dtype)
    return torch.cat([center - size / 2, center + size / 2], dim=1) * scale


def onnx_components(networks: Networks) -> dict[str, nn.Module]:
    """ONNX component by the name of its model; only of the systems that are there."""
    components: dict[str, nn.Module] = {
        "medsam_image_encoder": networks.image_encoder,
        "llava_image_encoder": networks.llava_image_encoder,
    }
    if networks.medisee is not None:
        components |= {
            "medisee_router": networks.medisee.fusion,
            "medisee_box_decoder": networks.medisee.box_decoder,
            "medisee_mask_decoder": MediSeeMaskDecoder(networks.medisee.mask_decoder),
        }
    if networks.mediround is not None:
        components |= {
            "mediround_box_encoder": networks.mediround.box_encoder,
            "mediround_text_projection": networks.mediround.text_projection,
            "mediround_jcm": networks.mediround.jcm,
            "mediround_mask_decoder": MediRoundMaskDecoder(networks.mediround.mask_decoder),
        }
    if networks.organseg is not None:
        components |= {
            "organseg_extractors": Extractors(networks.organseg.extractors),
            "organseg_mask_decoder": OrganSegMaskDecoder(networks.organseg.mask_decoder),
        }
    return components


def _unpadded(
    low_res_logits: Tensor, frame: int, input_size: Tensor, original_size: Tensor
) -> Tensor:
    """Logits (P, H, W) of low-resolution ones (1, P, h, w)."""
    # Elements of tensors where ints are expected: the tracer keeps them as inputs of the graph.
    inner, outer = list(input_size[0]), list(original_size[0])
    return resize_logits(low_res_logits, frame, inner, outer)[0]
