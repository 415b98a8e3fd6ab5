"""Losses of MediRound's two stages, from the same terms as MediSee's.

Weights follow the released code (model/mediround.py): the paper leaves them open, and gives the
score of the judge no weight of its own where the code has 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.losses import LossWeights, bce_loss, dice_loss, text_loss

SCORE_WEIGHT = 2.0
"""Factor of the judge's term."""


@dataclass(frozen=True)
class MediRoundLoss:
    """Unweighted terms and their weighted sum, all scalars, float32."""

    text: Tensor
    bce: Tensor
    dice: Tensor
    total: Tensor
    """The one to differentiate."""


@dataclass(frozen=True)
class JcmLoss:
    """Unweighted terms and their weighted sum, all scalars, float32."""

    score: Tensor
    bce: Tensor
    dice: Tensor
    total: Tensor
    """The one to differentiate."""


def mediround_loss(
    *,
    text_logits: Tensor,
    labels: Tensor,
    mask_logits: Sequence[Tensor],
    masks: Sequence[Tensor],
    weights: LossWeights | None = None,
) -> MediRoundLoss:
    """Loss of the end-to-end stage (Eq. 4), mask terms averaged over all N masks.

    Args:
        text_logits: (B, T, V), see `training.losses.text_loss`.
        labels: (B, T) int64.
        mask_logits: (N_i, H_i, W_i) per image.
        masks: as mask_logits.
        weights: MediSee's by default, which are MediRound's.
    """
    weights = weights or LossWeights()
    text = text_loss(text_logits, labels)
    bce, dice = _mask_terms(mask_logits, masks)
    total = weights.text * text + weights.bce * bce + weights.dice * dice
    return MediRoundLoss(text, bce, dice, total)


def jcm_loss(
    *,
    quality: Tensor,
    uncorrected_logits: Sequence[Tensor],
    corrected_logits: Sequence[Tensor],
    masks: Sequence[Tensor],
    weights: LossWeights | None = None,
) -> JcmLoss:
    """Loss of the judgment and correction stage (appendix A, Eq. 3).

    The corrector learns from the masks it makes, the judge from the IoU of those that would have
    been made without it.

    Args:
        quality: (N,) in [0, 1], in the order of all masks.
        uncorrected_logits: (N_i, H_i, W_i) per image; nothing is learned through them.
        corrected_logits: as uncorrected_logits.
        masks: as uncorrected_logits.
        weights: MediSee's by default, which are MediRound's.
    """
    weights = weights or LossWeights()
    pairs = zip(uncorrected_logits, masks, strict=True)
    truth = torch.cat([iou(logits > 0, mask) for logits, mask in pairs])
    score = F.binary_cross_entropy(quality.float(), truth)
    bce, dice = _mask_terms(corrected_logits, masks)
    total = SCORE_WEIGHT * score + weights.bce * bce + weights.dice * dice
    return JcmLoss(score, bce, dice, total)


def iou(masks: Tensor, truth: Tensor) -> Tensor:
    """IoU of (N, H, W) bool masks: (N,) float32; 0 where both are empty."""
    overlap = (masks & truth).flatten(1).sum(dim=1)
    return overlap / (masks | truth).flatten(1).sum(dim=1).clamp(min=1)


def _mask_terms(logits: Sequence[Tensor], masks: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    pairs = list(zip(logits, masks, strict=True))
    bce = torch.cat([bce_loss(*pair) for pair in pairs]).mean()
    return bce, torch.cat([dice_loss(*pair) for pair in pairs]).mean()
