"""Losses of Organ-Seg: the paper's two, and those of the heads the paper leaves open.

The paper's L1 is the cross-entropy of the class, here over the cosines with the context cache; its
L2 is the Dice loss of the mask. Both have weight 1 and train extractors and adapter alone.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from training.losses import bce_loss, dice_loss, giou_loss, l1_loss

TEMPERATURE = 0.07
"""Divisor of the cosines, which makes them logits."""


@dataclass(frozen=True)
class OrganSegWeights:
    """Factors of the terms."""

    classification: float = 1.0
    """Cross-entropy over the rows of the context cache (the paper's L1)."""
    dice: float = 1.0
    """Dice loss of the masks (the paper's L2)."""
    bce: float = 0.0
    """Binary cross-entropy of the masks; not the paper's, for where Dice alone is unstable."""
    box: float = 2.0
    """Common factor of L1 and GIoU; not in the paper."""
    presence: float = 1.0
    """Binary cross-entropy of presence; not in the paper."""


def classification_loss(similarities: Tensor, rows: Tensor) -> Tensor:
    """Cross-entropy of the class, mean over N questions.

    Args:
        similarities: (N, K + 1) cosines.
        rows: (N,) int64: the organ asked for, or K.
    """
    return F.cross_entropy(similarities.float() / TEMPERATURE, rows)


def mask_loss(mask_logits: Tensor, masks: Tensor, weights: OrganSegWeights) -> Tensor:
    """Weighted Dice and BCE, mean over masks: (N, H, W) logits against (N, H, W) bool."""
    loss = weights.dice * dice_loss(mask_logits, masks)
    if weights.bce:
        loss = loss + weights.bce * bce_loss(mask_logits, masks)
    return loss.mean()


def box_loss(boxes_xyxy: Tensor, target_boxes_xyxy: Tensor) -> Tensor:
    """L1 and GIoU of (N, 4) boxes in [0, 1], mean over boxes."""
    return (
        l1_loss(boxes_xyxy, target_boxes_xyxy) + giou_loss(boxes_xyxy, target_boxes_xyxy)
    ).mean()


def presence_loss(presence: Tensor, shown: Tensor) -> Tensor:
    """Binary cross-entropy of (N,) probabilities against (N,) bool, mean."""
    return F.binary_cross_entropy(presence.float(), shown.float())
