"""Organ-Seg's losses against the paper's formulas in plain Python."""

import math

import pytest
import torch

from training.organseg_loss import (
    OrganSegWeights,
    box_loss,
    classification_loss,
    mask_loss,
    presence_loss,
)


def test_the_class_is_a_softmax_over_cosines_divided_by_007():
    similarities, rows = torch.tensor([[0.9, 0.5, -0.2], [0.1, 0.2, 0.3]]), torch.tensor([0, 2])
    expected = 0.0
    for cosines, row in zip(similarities.tolist(), rows.tolist(), strict=True):
        terms = [math.exp(cosine / 0.07) for cosine in cosines]
        expected -= math.log(terms[row] / sum(terms)) / 2
    assert classification_loss(similarities, rows).item() == pytest.approx(expected, rel=1e-5)


def test_the_mask_loss_is_one_minus_dice_of_the_probabilities():
    logits = torch.randn(3, 12, 9, generator=torch.Generator().manual_seed(0)) * 3
    masks = torch.rand(3, 12, 9, generator=torch.Generator().manual_seed(1)) > 0.6
    p, m = 1 / (1 + (-logits.double()).exp()), masks.double()
    overlap, areas = (p * m).sum((1, 2)), p.sum((1, 2)) + m.sum((1, 2))
    dice = (1 - 2 * overlap / areas).mean().item()
    bce = -(m * p.log() + (1 - m) * (1 - p).log()).mean().item()
    assert mask_loss(logits, masks, OrganSegWeights()).item() == pytest.approx(dice, abs=1e-4)
    weights = OrganSegWeights(dice=0.5, bce=2.0)
    got = mask_loss(logits, masks, weights).item()
    assert got == pytest.approx(0.5 * dice + 2 * bce, rel=1e-3)


def test_a_box_beside_the_truth_costs_its_distance_and_its_hull():
    boxes = torch.tensor([[0.0, 0.0, 0.2, 0.2]])
    truth = torch.tensor([[0.2, 0.0, 0.4, 0.2]])
    # L1: mean of 0.2, 0, 0.2, 0. They touch and fill their hull: IoU 0, GIoU 0.
    assert box_loss(boxes, truth).item() == pytest.approx(0.1 + 1.0, abs=1e-4)
    assert box_loss(truth, truth).item() == pytest.approx(0.0, abs=1e-4)


def test_presence_is_a_mean_of_logarithms_and_finite_where_the_head_is_sure_and_wrong():
    presence, shown = torch.tensor([0.8, 0.3]), torch.tensor([True, False])
    expected = -(math.log(0.8) + math.log(0.7)) / 2
    assert presence_loss(presence, shown).item() == pytest.approx(expected, rel=1e-5)
    assert torch.isfinite(presence_loss(torch.tensor([0.0]), torch.tensor([True])))
