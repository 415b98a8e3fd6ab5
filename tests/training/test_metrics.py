import numpy as np
import pytest

from training.metrics import BoxMetrics, MaskMetrics, box_iou


def mask(*rows):
    return np.array([[c == "#" for c in row] for row in rows])


def test_one_case_equals_the_hand_count():
    metrics = MaskMetrics()
    metrics.update(mask("##.", "##."), mask(".##", ".##"))  # I = 2, P = G = 4, U = 6
    scores = metrics.compute()
    assert scores.dice == pytest.approx(4 / (8 + 1e-6), rel=1e-12)
    assert scores.giou == pytest.approx(2 / (6 + 1e-5), rel=1e-12)
    assert scores.ciou == 2 / 6
    assert scores.count == 1


def test_giou_is_a_mean_of_ratios_and_ciou_a_ratio_of_sums():
    metrics = MaskMetrics()
    metrics.update(mask("####", "####"), mask("####", "####"))  # I = U = 8
    metrics.update(mask("#...", "...."), mask(".#..", "...."))  # I = 0, U = 2
    scores = metrics.compute()
    assert scores.giou == pytest.approx(0.5, abs=1e-6)
    assert scores.dice == pytest.approx(0.5, abs=1e-6)
    assert scores.ciou == 8 / 10


def test_two_empty_masks_count_as_one_in_dice_and_giou_and_add_nothing_to_ciou():
    metrics = MaskMetrics()
    metrics.update(mask("..."), mask("..."))
    assert metrics.compute().dice == 1.0
    assert metrics.compute().giou == 1.0
    assert metrics.compute().ciou == 1.0
    metrics.update(mask("##."), mask("#.."))  # I = 1, P + G = 3, U = 2
    scores = metrics.compute()
    assert scores.dice == pytest.approx((1 + 2 / 3) / 2, abs=1e-6)
    assert scores.giou == pytest.approx((1 + 1 / 2) / 2, abs=1e-5)
    assert scores.ciou == 0.5


@pytest.mark.parametrize("swap", [False, True])
def test_one_empty_mask_scores_zero(swap):
    pair = (mask("..."), mask("##."))
    metrics = MaskMetrics()
    metrics.update(*(pair[::-1] if swap else pair))
    scores = metrics.compute()
    assert (scores.dice, scores.giou, scores.ciou) == (0.0, 0.0, 0.0)


def test_logits_and_other_shapes_are_refused():
    metrics = MaskMetrics()
    with pytest.raises(ValueError, match="expected bool, got float64 and bool; threshold"):
        metrics.update(np.zeros((2, 2)), np.zeros((2, 2), bool))
    with pytest.raises(ValueError, match=r"got \(2, 2\) and \(2, 3\)"):
        metrics.update(np.zeros((2, 2), bool), np.zeros((2, 3), bool))


def test_metrics_of_no_case_are_refused():
    with pytest.raises(ValueError, match="no case"):
        MaskMetrics().compute()
    with pytest.raises(ValueError, match="no case"):
        BoxMetrics().compute()


@pytest.mark.parametrize(
    ("box", "other", "iou"),
    [
        ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7),
        ((0, 0, 1, 1), (0, 0, 1, 1), 1.0),
        ((0, 0, 1, 1), (2, 2, 3, 3), 0.0),
        ((0, 0, 1, 1), (1, 0, 2, 1), 0.0),
        ((-1, -1, 1, 1), (0, 0, 1, 1), 0.25),
        ((0.5, 0.5, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5), 0.0),
    ],
)
def test_box_iou_equals_hand_values_and_does_not_depend_on_the_unit(box, other, iou):
    assert box_iou(box, other) == pytest.approx(iou)
    assert box_iou(np.array(box) * 1000, np.array(other) * 1000) == pytest.approx(iou)


def test_accuracy_counts_ious_above_one_half_only():
    metrics = BoxMetrics()
    metrics.update((0, 0, 1, 1), (0, 0, 1, 1))  # 1
    metrics.update((0, 0, 1, 1), (0, 0, 2, 1))  # exactly 0.5: wrong
    metrics.update((0, 0, 3, 1), (0, 0, 4, 1))  # 0.75
    metrics.update((0, 0, 1, 1), (5, 5, 6, 6))  # 0
    scores = metrics.compute()
    assert scores.accuracy == 0.5
    assert scores.iou == pytest.approx((1 + 0.5 + 0.75) / 4)
    assert scores.count == 4


def test_broken_boxes_are_refused():
    with pytest.raises(ValueError, match="four finite numbers"):
        box_iou((0, 0, 1), (0, 0, 1, 1))
    with pytest.raises(ValueError, match="four finite numbers"):
        box_iou((0, 0, float("nan"), 1), (0, 0, 1, 1))
