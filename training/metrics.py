"""Metrics of MediSee's evaluation: Dice, gIoU and cIoU of masks, IoU and accuracy of boxes.

Definitions and eps are those of its released code, so that numbers compare with the paper's.
Accumulators take one case at a time and hold sums only; how masks are made from logits is the
caller's.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

DICE_EPS = 1e-6
GIOU_EPS = 1e-5
BOX_ACCURACY_THRESHOLD = 0.5
"""A box counts as right when its IoU is above, not at, this value."""


def _counts(prediction: NDArray, ground_truth: NDArray) -> tuple[int, int, int]:
    prediction, ground_truth = np.asarray(prediction), np.asarray(ground_truth)
    if prediction.dtype != bool or ground_truth.dtype != bool:
        raise ValueError(
            f"masks: expected bool, got {prediction.dtype} and {ground_truth.dtype}; "
            "threshold logits with > 0 first"
        )
    if prediction.shape != ground_truth.shape:
        raise ValueError(
            f"masks: expected equal shapes, got {prediction.shape} and {ground_truth.shape}"
        )
    intersection = int(np.count_nonzero(prediction & ground_truth))
    return intersection, int(np.count_nonzero(prediction)), int(np.count_nonzero(ground_truth))


@dataclass(frozen=True)
class MaskScores:
    """Metrics over all cases, each in [0, 1]."""

    dice: float
    """Mean over cases of 2 I / (P + G + 1e-6); 1 for a case where both masks are empty."""
    giou: float
    """Mean over cases of I / (U + 1e-5); 1 for a case where both masks are empty."""
    ciou: float
    """Sum of I over sum of U; large objects weigh more. 1 if every mask is empty."""
    count: int
    """Number of cases."""


class MaskMetrics:
    """Running Dice, gIoU and cIoU over cases, one mask each."""

    def __init__(self) -> None:
        self._dice = 0.0
        self._iou = 0.0
        self._intersection = 0
        self._union = 0
        self._count = 0

    def update(self, prediction: NDArray, ground_truth: NDArray) -> None:
        """Add one case.

        Args:
            prediction: (H, W) bool.
            ground_truth: (H, W) bool.

        Raises:
            ValueError: if a mask is not bool or the shapes differ.
        """
        intersection, predicted, true = _counts(prediction, ground_truth)
        union = predicted + true - intersection
        empty = float(union == 0)
        self._dice += 2 * intersection / (predicted + true + DICE_EPS) + empty
        self._iou += intersection / (union + GIOU_EPS) + empty
        self._intersection += intersection
        self._union += union
        self._count += 1

    def compute(self) -> MaskScores:
        """Metrics of the cases added so far.

        Raises:
            ValueError: if there are none.
        """
        if self._count == 0:
            raise ValueError("mask metrics: no case was added; call update() first")
        return MaskScores(
            dice=self._dice / self._count,
            giou=self._iou / self._count,
            ciou=self._intersection / self._union if self._union else 1.0,
            count=self._count,
        )


def box_iou(box_xyxy: ArrayLike, other_xyxy: ArrayLike) -> float:
    """Intersection over union of two boxes.

    MediSee multiplies its normalised boxes by 1000 before; the ratio does not change by that.

    Args:
        box_xyxy: (4,), x before y, any one unit, not clamped.
        other_xyxy: (4,), likewise.

    Returns:
        IoU in [0, 1]; 0 when both boxes have no area.

    Raises:
        ValueError: if a box is not four finite numbers.
    """
    a, b = np.asarray(box_xyxy, np.float64), np.asarray(other_xyxy, np.float64)
    for box in (a, b):
        if box.shape != (4,) or not np.isfinite(box).all():
            raise ValueError(f"box: expected four finite numbers x0, y0, x1, y1, got {box}")
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    intersection = max(width, 0.0) * max(height, 0.0)
    union = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - intersection)
    return float(intersection / union) if union > 0 else 0.0


@dataclass(frozen=True)
class BoxScores:
    """Metrics over all cases, each in [0, 1]."""

    iou: float
    """Mean box IoU."""
    accuracy: float
    """Share of cases with box IoU above 0.5."""
    count: int
    """Number of cases."""


class BoxMetrics:
    """Running box IoU and accuracy over cases, one box each."""

    def __init__(self) -> None:
        self._iou = 0.0
        self._right = 0
        self._count = 0

    def update(self, box_xyxy: ArrayLike, ground_truth_xyxy: ArrayLike) -> None:
        """Add one case; arguments and errors as `box_iou`."""
        iou = box_iou(box_xyxy, ground_truth_xyxy)
        self._iou += iou
        self._right += iou > BOX_ACCURACY_THRESHOLD
        self._count += 1

    def compute(self) -> BoxScores:
        """Metrics of the cases added so far.

        Raises:
            ValueError: if there are none.
        """
        if self._count == 0:
            raise ValueError("box metrics: no case was added; call update() first")
        return BoxScores(self._iou / self._count, self._right / self._count, self._count)
