"""Joint loss of CoTexNet: segmentation and distillation of the text into the class token.

Segmentation is Dice and cross-entropy as MONAI's DiceCELoss computes them with its defaults, of
the planes' independent probabilities. Where paper and code differ, `Reading` decides.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.networks.cotexnet.network import CoTexNetOutput
from training.networks.cotexnet.reading import Reading

DICE_EPS = 1e-5


@dataclass(frozen=True)
class CoTexNetLoss:
    """Unweighted terms and their weighted sum, all scalars, float32."""

    dice: Tensor
    cross_entropy: Tensor
    distillation: Tensor
    total: Tensor
    """The one to differentiate."""


def cotexnet_loss(output: CoTexNetOutput, planes: Tensor, reading: Reading) -> CoTexNetLoss:
    """Loss of Eq. 15.

    Args:
        output: Of the network in training.
        planes: (B, K, S, S) bool, from `mask_planes`.
        reading: The network's.
    """
    dice, cross_entropy = segmentation_losses(output.mask_logits, planes, reading)
    distillation = distillation_loss(output, reading)
    total = dice + cross_entropy + reading.distillation_weight * distillation
    return CoTexNetLoss(dice, cross_entropy, distillation, total)


def mask_planes(masks: Tensor) -> Tensor:
    """Ground truth in the planes of a head.

    Args:
        masks: (B, n, H, W) bool, one per class, which do not overlap.

    Returns:
        (B, K, H, W) bool: the masks, behind the background where there are several classes.
    """
    if masks.shape[1] == 1:
        return masks
    return torch.cat([~masks.any(dim=1, keepdim=True), masks], dim=1)


def segmentation_losses(
    mask_logits: Tensor, planes: Tensor, reading: Reading
) -> tuple[Tensor, Tensor]:
    """Dice loss and cross-entropy, both scalars.

    Dice is 1 - (2 sum(p m) + e) / (sum(p) + sum(m) + e) of every plane, mean over all planes. The
    cross-entropy is binary for one plane and over the planes otherwise. Under
    `probabilities_as_logits` it is given the probabilities in the logits' place.

    Args:
        mask_logits: (B, K, H, W).
        planes: (B, K, H, W) bool.
        reading: Of `probabilities_as_logits`.

    Raises:
        ValueError: if the shapes differ.
    """
    if mask_logits.shape != planes.shape:
        raise ValueError(
            f"planes: expected {tuple(mask_logits.shape)} as mask_logits, got "
            f"{tuple(planes.shape)}; make them with mask_planes()"
        )
    logits, truth = mask_logits.float(), planes.float()
    probabilities = logits.sigmoid()
    overlap = (probabilities * truth).sum(dim=(2, 3))
    areas = probabilities.sum(dim=(2, 3)) + truth.sum(dim=(2, 3))
    dice = (1 - (2 * overlap + DICE_EPS) / (areas + DICE_EPS)).mean()
    given = probabilities if reading.probabilities_as_logits else logits
    if planes.shape[1] == 1:
        return dice, F.binary_cross_entropy_with_logits(given, truth)
    return dice, F.cross_entropy(given, truth)


def distillation_loss(output: CoTexNetOutput, reading: Reading) -> Tensor:
    """Divergence of the predicted embedding from the text's, sum over D and mean over B (Eq. 10).

    Nothing is learned through the target. Elementwise, the embeddings' values do not sum to one:
    printed as it is, Eq. 10 falls without end as T_c does, and with its sign turned it falls as
    T_c grows beyond T'. The two terms of the generalised divergence, T_c - T', put its minimum
    where both agree.
    """
    student = output.class_embedding.float()
    if reading.divergence == "softmax":
        teacher = torch.sigmoid(output.text_embedding.detach().float())
        return F.kl_div(student.log_softmax(dim=1), teacher.softmax(dim=1), reduction="batchmean")
    target = output.noisy_embedding.detach().float()
    terms = target * (target.log() - student.log()) - target + student
    return terms.sum(dim=1).mean()
