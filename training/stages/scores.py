"""Scores of a batch that the stages log; the figures that count are `training.metrics`'."""

import torch
from torch import Tensor


def dice(masks: Tensor, truth: Tensor) -> Tensor:
    """Dice of (N, H, W) bool masks: (N,) float32; 0 where both are empty."""
    overlap = (masks & truth).flatten(1).sum(dim=1)
    return 2 * overlap / (masks.flatten(1).sum(dim=1) + truth.flatten(1).sum(dim=1)).clamp(min=1)


def box_iou(boxes_xyxy: Tensor, truth_xyxy: Tensor) -> Tensor:
    """IoU of (N, 4) boxes, pair by pair: (N,) float32."""
    low = torch.maximum(boxes_xyxy[:, :2], truth_xyxy[:, :2])
    high = torch.minimum(boxes_xyxy[:, 2:], truth_xyxy[:, 2:])
    overlap = (high - low).clamp(min=0).prod(dim=1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(dim=1) for boxes in (boxes_xyxy, truth_xyxy)]
    return overlap / (areas[0] + areas[1] - overlap)
