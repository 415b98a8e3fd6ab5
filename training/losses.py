"""Losses of MediSee: text, mask, box, and the similarity map of its fine-tuning stage.

Values follow the released code where it exists (weights, the Dice scale and eps, averaging over
masks) and Eq. 4 and 5 of the paper elsewhere. All losses are computed in float32. Masking the
labels and gathering hidden states are the trainer's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE_INDEX = -100
"""Label of a token that carries no text loss."""
DICE_SCALE = 1000.0
"""Divisor of the sums in the Dice loss; with eps it weighs small masks as MediSee does."""
DICE_EPS = 1e-6
GIOU_EPS = 1e-7
"""Added to the areas that GIoU divides by, so that empty boxes give finite gradients."""


@dataclass(frozen=True)
class LossWeights:
    """Factors of the terms; defaults are those of MediSee's training script."""

    text: float = 1.0
    """Cross-entropy of the answer's tokens."""
    bce: float = 2.0
    """Binary cross-entropy of the masks."""
    dice: float = 0.5
    """Dice loss of the masks."""
    box: float = 2.0
    """Common factor of L1 and GIoU; the paper says 1, the released code 2."""
    js: float = 2.0
    """Jensen-Shannon divergence of the similarity maps; fine-tuning only."""
    mse: float = 1.0
    """Mean squared error of the similarity maps; fine-tuning only."""


@dataclass(frozen=True)
class MediSeeLoss:
    """Unweighted terms and their weighted sum, all scalars, float32."""

    text: Tensor
    bce: Tensor
    dice: Tensor
    l1: Tensor
    giou: Tensor
    total: Tensor
    """text + bce + dice + (l1 + giou), each times its weight; the one to differentiate."""


def _check_same_shape(name: str, got: Tensor, name_of_other: str, other: Tensor) -> None:
    if got.shape != other.shape or got.shape[0] == 0:
        raise ValueError(
            f"{name}: expected the shape of {name_of_other} with at least one row, "
            f"got {tuple(got.shape)} and {tuple(other.shape)}"
        )


def text_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the next token over all supervised positions of the batch.

    Args:
        logits: (B, T, V); row t predicts token t + 1.
        labels: (B, T) int64, the token ids themselves (not shifted); `IGNORE_INDEX` where nothing
            is supervised: in MediSee up to and including the `]` of `[/INST]`, and padding.

    Returns:
        Scalar float32.

    Raises:
        ValueError: if shapes disagree or no position is supervised.
    """
    if logits.shape[:2] != labels.shape:
        raise ValueError(
            f"labels: expected {tuple(logits.shape[:2])} as logits, got {tuple(labels.shape)}"
        )
    targets = labels[:, 1:]
    if not bool((targets != IGNORE_INDEX).any()):
        raise ValueError(
            f"labels: every position is {IGNORE_INDEX}; supervise at least the answer's tokens"
        )
    return F.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX
    )


def bce_loss(mask_logits: Tensor, masks: Tensor) -> Tensor:
    """Binary cross-entropy, mean over the pixels of each mask.

    Args:
        mask_logits: (N, H, W); > 0 is foreground.
        masks: (N, H, W) bool, or numbers in [0, 1].

    Returns:
        (N,) float32.
    """
    _check_same_shape("mask_logits", mask_logits, "masks", masks)
    loss = F.binary_cross_entropy_with_logits(mask_logits.float(), masks.float(), reduction="none")
    return loss.flatten(1).mean(1)


def dice_loss(mask_logits: Tensor, masks: Tensor) -> Tensor:
    """Soft Dice loss of each mask: 1 - (2 sum(p m) / s + eps) / (sum(p) / s + sum(m) / s + eps).

    s is `DICE_SCALE`; p is the sigmoid of the logits.

    Args:
        mask_logits: (N, H, W).
        masks: (N, H, W) bool, or numbers in [0, 1].

    Returns:
        (N,) float32 in [0, 1).
    """
    _check_same_shape("mask_logits", mask_logits, "masks", masks)
    probabilities = mask_logits.float().sigmoid().flatten(1)
    targets = masks.float().flatten(1)
    numerator = 2 * (probabilities / DICE_SCALE * targets).sum(1)
    denominator = (probabilities / DICE_SCALE).sum(1) + (targets / DICE_SCALE).sum(1)
    return 1 - (numerator + DICE_EPS) / (denominator + DICE_EPS)


def l1_loss(boxes_xyxy: Tensor, target_boxes_xyxy: Tensor) -> Tensor:
    """Mean absolute difference of the four corner coordinates of each box.

    Args:
        boxes_xyxy: (N, 4), normalised to [0, 1] by the image's width and height.
        target_boxes_xyxy: (N, 4), likewise.

    Returns:
        (N,) float32.
    """
    _check_same_shape("boxes_xyxy", boxes_xyxy, "target_boxes_xyxy", target_boxes_xyxy)
    return (boxes_xyxy.float() - target_boxes_xyxy.float()).abs().mean(1)


def giou_loss(boxes_xyxy: Tensor, target_boxes_xyxy: Tensor) -> Tensor:
    """1 - generalised IoU (Rezatofighi et al. 2019) of each pair of boxes.

    Args:
        boxes_xyxy: (N, 4) with x0 <= x1 and y0 <= y1; boxes made of a centre and sigmoid sizes
            are so.
        target_boxes_xyxy: (N, 4), likewise.

    Returns:
        (N,) float32 in [0, 2].
    """
    _check_same_shape("boxes_xyxy", boxes_xyxy, "target_boxes_xyxy", target_boxes_xyxy)
    boxes, targets = boxes_xyxy.float(), target_boxes_xyxy.float()

    def area(top_left: Tensor, bottom_right: Tensor) -> Tensor:
        return (bottom_right - top_left).clamp(min=0).prod(1)

    intersection = area(
        torch.maximum(boxes[:, :2], targets[:, :2]), torch.minimum(boxes[:, 2:], targets[:, 2:])
    )
    union = area(boxes[:, :2], boxes[:, 2:]) + area(targets[:, :2], targets[:, 2:]) - intersection
    hull = area(
        torch.minimum(boxes[:, :2], targets[:, :2]), torch.maximum(boxes[:, 2:], targets[:, 2:])
    )
    giou = intersection / (union + GIOU_EPS) - (hull - union) / (hull + GIOU_EPS)
    return 1 - giou


def medisee_loss(
    *,
    text_logits: Tensor,
    labels: Tensor,
    mask_logits: Tensor | Sequence[Tensor],
    masks: Tensor | Sequence[Tensor],
    boxes_xyxy: Tensor,
    target_boxes_xyxy: Tensor,
    weights: LossWeights | None = None,
) -> MediSeeLoss:
    """End-to-end loss of MediSee (Eq. 4), mask and box terms averaged over all N masks.

    Args:
        text_logits: (B, T, V), see `text_loss`.
        labels: (B, T) int64.
        mask_logits: (N, H, W), or one (N_i, H_i, W_i) per image where sizes differ.
        masks: as mask_logits.
        boxes_xyxy: (N, 4) in [0, 1].
        target_boxes_xyxy: (N, 4) in [0, 1].
        weights: MediSee's by default.

    Returns:
        The terms and their weighted sum.
    """
    weights = weights or LossWeights()
    logits_list = [mask_logits] if isinstance(mask_logits, Tensor) else list(mask_logits)
    masks_list = [masks] if isinstance(masks, Tensor) else list(masks)
    pairs = list(zip(logits_list, masks_list, strict=True))
    text = text_loss(text_logits, labels)
    bce = torch.cat([bce_loss(*pair) for pair in pairs]).mean()
    dice = torch.cat([dice_loss(*pair) for pair in pairs]).mean()
    l1 = l1_loss(boxes_xyxy, target_boxes_xyxy).mean()
    giou = giou_loss(boxes_xyxy, target_boxes_xyxy).mean()
    total = (
        weights.text * text + weights.bce * bce + weights.dice * dice + weights.box * (l1 + giou)
    )
    return MediSeeLoss(text, bce, dice, l1, giou, total)


def similarity_map(image_hidden_states: Tensor, h_seg: Tensor) -> Tensor:
    """Dot product of every image token with h_seg, divided by sqrt(E).

    Args:
        image_hidden_states: (N, T, E) last-layer hidden states at the image's positions.
        h_seg: (N, E) input feature of the mask decoder's branch.

    Returns:
        (N, T) float32.

    Raises:
        ValueError: if N or E disagree.
    """
    n, _, e = image_hidden_states.shape
    if h_seg.shape != (n, e):
        raise ValueError(f"h_seg: expected ({n}, {e}), got {tuple(h_seg.shape)}")
    products = torch.einsum("nte,ne->nt", image_hidden_states.float(), h_seg.float())
    return products / math.sqrt(e)


def js_divergence(logits: Tensor, other_logits: Tensor) -> Tensor:
    """Jensen-Shannon divergence of softmax(logits) and softmax(other_logits), in nats.

    Args:
        logits: (N, T).
        other_logits: (N, T).

    Returns:
        (N,) float32 in [0, ln 2].
    """
    log_p = logits.float().log_softmax(1)
    log_q = other_logits.float().log_softmax(1)
    log_mean = torch.logaddexp(log_p, log_q) - math.log(2)
    kl_p = (log_p.exp() * (log_p - log_mean)).sum(1)
    kl_q = (log_q.exp() * (log_q - log_mean)).sum(1)
    return (kl_p + kl_q) / 2


def similarity_loss(
    student_map: Tensor, teacher_map: Tensor, weights: LossWeights | None = None
) -> Tensor:
    """Similarity-map loss of the fine-tuning stage (Eq. 5): js * JS + mse * MSE.

    No code of this loss was published and the paper leaves the normalisation open. The choice
    here: both maps are dot products divided by sqrt(E), as in attention, so that neither term
    grows with the width of the model. JS needs distributions, so each map goes through a softmax
    over its image tokens (temperature 1): that compares where the maps point. MSE compares the
    scaled maps themselves, without softmax, which keeps their level and contrast. Both are means
    over the N queries.

    Args:
        student_map: (N, T) from the reasoning question, see `similarity_map`.
        teacher_map: (N, T) from the plain name of the same object; detached here.
        weights: 2.0 for JS and 1.0 for MSE by default.

    Returns:
        Scalar float32, weighted; add it to the total of `medisee_loss`.
    """
    _check_same_shape("student_map", student_map, "teacher_map", teacher_map)
    weights = weights or LossWeights()
    teacher_map = teacher_map.detach()
    js = js_divergence(student_map, teacher_map).mean()
    mse = F.mse_loss(student_map.float(), teacher_map.float())
    return weights.js * js + weights.mse * mse
