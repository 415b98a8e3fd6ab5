"""Metrics of CoTexNet's evaluation: Dice, IoU, 95 % Hausdorff distance and pixel accuracy.

One case is one class in one picture. The released code averages Dice of soft probabilities over
batches; here, as in `training.metrics`, masks are compared and cases averaged.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt

from training.metrics import MaskMetrics


@dataclass(frozen=True)
class SegmentationScores:
    """Means over cases."""

    dice: float
    """In [0, 1]."""
    iou: float
    """In [0, 1]; `training.metrics`' gIoU, the mean over cases."""
    pixel_accuracy: float
    """Share of pixels whose side of the mask is right, in [0, 1]."""
    hd95: float
    """In pixels, over the cases in which both masks show something; NaN if there are none."""
    count: int
    """Number of cases."""
    hd95_count: int
    """Number of cases that have a distance."""


class SegmentationMetrics:
    """Running metrics over cases, one mask each."""

    def __init__(self) -> None:
        self._masks = MaskMetrics()
        self._right = 0.0
        self._distances: list[float] = []

    def update(self, prediction: NDArray, ground_truth: NDArray) -> None:
        """Add one case.

        Args:
            prediction: (H, W) bool.
            ground_truth: (H, W) bool.

        Raises:
            ValueError: if a mask is not bool or the shapes differ.
        """
        self._masks.update(prediction, ground_truth)
        self._right += float((prediction == ground_truth).mean())
        if prediction.any() and ground_truth.any():
            self._distances.append(hausdorff_95(prediction, ground_truth))

    def compute(self) -> SegmentationScores:
        """Metrics of the cases added so far.

        Raises:
            ValueError: if there are none.
        """
        masks = self._masks.compute()
        return SegmentationScores(
            dice=masks.dice,
            iou=masks.giou,
            pixel_accuracy=self._right / masks.count,
            hd95=float(np.mean(self._distances)) if self._distances else float("nan"),
            count=masks.count,
            hd95_count=len(self._distances),
        )


def hausdorff_95(prediction: NDArray, ground_truth: NDArray) -> float:
    """95 % Hausdorff distance between the edges of two masks, as MONAI defines it.

    The edge of a mask is its pixels with one of four neighbours outside it; beyond the picture is
    outside. The percentile is taken in each direction, and the larger of the two counts.

    Args:
        prediction: (H, W) bool, not empty.
        ground_truth: (H, W) bool, not empty.

    Returns:
        Distance in pixels.

    Raises:
        ValueError: if a mask is empty, to which there is no distance.
    """
    if not (prediction.any() and ground_truth.any()):
        raise ValueError("masks: expected at least one pixel in each; leave the case out of HD95")
    edges = [mask & ~binary_erosion(mask) for mask in (prediction, ground_truth)]
    to_edge = [distance_transform_edt(~edge) for edge in edges]
    return float(
        max(np.percentile(to_edge[1][edges[0]], 95), np.percentile(to_edge[0][edges[1]], 95))
    )
