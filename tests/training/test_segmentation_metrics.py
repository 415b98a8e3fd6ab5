"""Metrics of CoTexNet's evaluation against distances between all pairs of edge pixels."""

import math

import numpy as np
import pytest

from training.segmentation_metrics import SegmentationMetrics, hausdorff_95


def square(top, left, side=10, shape=(40, 50)):
    mask = np.zeros(shape, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def edge_points(mask):
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(mask & ~inner).astype(float)


def plain_hausdorff_95(prediction, truth):
    first, second = edge_points(prediction), edge_points(truth)
    distances = np.sqrt(((first[:, None] - second[None]) ** 2).sum(axis=2))
    return max(np.percentile(distances.min(axis=axis), 95) for axis in (0, 1))


@pytest.mark.parametrize("seed", range(5))
def test_hausdorff_is_that_of_all_pairs_of_edge_pixels(seed):
    rng = np.random.default_rng(seed)
    blobs = [rng.random((30, 30)) > 0.6, rng.random((30, 30)) > 0.9]
    assert hausdorff_95(*blobs) == pytest.approx(plain_hausdorff_95(*blobs), abs=1e-9)
    assert hausdorff_95(*blobs[::-1]) == hausdorff_95(*blobs)


def test_a_moved_square_is_as_far_as_it_was_moved_and_a_lost_pixel_counts_little():
    assert hausdorff_95(square(5, 5), square(5, 5)) == 0
    assert hausdorff_95(square(5, 5, side=1), square(8, 9, side=1)) == 5
    with_speck = square(5, 5)
    with_speck[39, 49] = True
    assert hausdorff_95(with_speck, square(5, 5)) == 0


def test_beyond_the_picture_is_outside():
    whole, half = np.ones((6, 40), bool), np.ones((6, 40), bool)
    half[:, 20:] = False
    assert hausdorff_95(whole, half) == pytest.approx(plain_hausdorff_95(whole, half))
    assert hausdorff_95(whole, half) > 15


def test_an_empty_mask_has_no_distance_and_the_other_metrics():
    with pytest.raises(ValueError, match="at least one pixel"):
        hausdorff_95(square(5, 5), np.zeros((40, 50), bool))
    metrics = SegmentationMetrics()
    metrics.update(np.zeros((40, 50), bool), square(5, 5))
    scores = metrics.compute()
    assert (scores.dice, scores.iou, scores.count, scores.hd95_count) == (0, 0, 1, 0)
    assert scores.pixel_accuracy == 1 - 100 / 2000
    assert math.isnan(scores.hd95)
    metrics.update(square(5, 9), square(5, 5))  # 60 pixels in common
    scores = metrics.compute()
    assert scores.dice == pytest.approx(0.6 / 2)
    assert scores.iou == pytest.approx(60 / 140 / 2)
    assert scores.pixel_accuracy == pytest.approx((1900 + 1920) / 4000)
    assert scores.hd95 == pytest.approx(plain_hausdorff_95(square(5, 9), square(5, 5)))
    assert (scores.count, scores.hd95_count) == (2, 1)


def test_no_case_and_soft_masks_are_refused():
    metrics = SegmentationMetrics()
    with pytest.raises(ValueError, match="no case"):
        metrics.compute()
    with pytest.raises(ValueError, match="expected bool"):
        metrics.update(np.zeros((4, 4)), np.zeros((4, 4)))
