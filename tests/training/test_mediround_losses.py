"""Losses against closed forms on hand-made masks."""

import math

import pytest
import torch

from training.losses import LossWeights
from training.mediround_losses import iou, jcm_loss, mediround_loss

LARGE = 50.0
"""A logit whose sigmoid is 1 in float32."""


@pytest.fixture
def masks():
    one = torch.zeros(2, 4, 6, dtype=torch.bool)
    one[0, :2], one[1, :, :3] = True, True
    other = torch.zeros(1, 3, 3, dtype=torch.bool)
    other[0, 0, 0] = True
    return [one, other]


def certain(masks):
    return [torch.where(mask, LARGE, -LARGE) for mask in masks]


def test_iou_is_overlap_over_union(masks):
    (one, _) = masks
    torch.testing.assert_close(iou(one, one), torch.ones(2))
    # 12 pixels each, 6 in common.
    torch.testing.assert_close(iou(one, one.flip(0)), torch.full((2,), 6 / 18))
    assert iou(one & False, one & False).tolist() == [0, 0]


def test_the_first_stages_loss_is_its_weighted_terms(masks):
    labels = torch.tensor([[-100, 2, 0]])
    logits = [torch.zeros(mask.shape) for mask in masks]
    loss = mediround_loss(
        text_logits=torch.zeros(1, 3, 5), labels=labels, mask_logits=logits, masks=masks
    )
    # Even chances everywhere: ln 5 for the tokens, ln 2 for the pixels.
    assert loss.text.item() == pytest.approx(math.log(5), rel=1e-5)
    assert loss.bce.item() == pytest.approx(math.log(2), rel=1e-5)
    areas = [(12, 24), (12, 24), (1, 9)]
    dice = [1 - (area + 1e-3) / (pixels / 2 + area + 1e-3) for area, pixels in areas]
    assert loss.dice.item() == pytest.approx(sum(dice) / 3, rel=1e-3)
    expected = loss.text + 2 * loss.bce + 0.5 * loss.dice
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-6)
    weights = LossWeights(text=0, bce=3, dice=0)
    loss = mediround_loss(
        text_logits=torch.zeros(1, 3, 5),
        labels=labels,
        mask_logits=logits,
        masks=masks,
        weights=weights,
    )
    assert loss.total.item() == pytest.approx(3 * math.log(2), rel=1e-5)


def test_the_judge_learns_the_iou_of_the_uncorrected_masks(masks):
    uncorrected = certain([masks[0].flip(0), masks[1]])  # IoU 1/3, 1/3 and 1
    truth = torch.tensor([1 / 3, 1 / 3, 1.0])

    def score(quality):
        loss = jcm_loss(
            quality=quality,
            uncorrected_logits=uncorrected,
            corrected_logits=certain(masks),
            masks=masks,
        )
        return loss.score.item()

    quality = torch.tensor([0.2, 0.5, 0.9])
    expected = -(truth * quality.log() + (1 - truth) * (1 - quality).log()).mean()
    assert score(quality) == pytest.approx(expected.item(), rel=1e-5)
    best = truth.clamp(max=0.999)
    for change in (-0.05, 0.05):
        assert score(best) < score((best + change).clamp(0.01, 0.9999))


def test_the_corrector_learns_from_the_corrected_masks_alone(masks):
    uncorrected = [torch.zeros(mask.shape, requires_grad=True) for mask in masks]
    corrected = [torch.zeros(mask.shape, requires_grad=True) for mask in masks]
    quality = torch.tensor([0.2, 0.5, 0.9], requires_grad=True)
    loss = jcm_loss(
        quality=quality, uncorrected_logits=uncorrected, corrected_logits=corrected, masks=masks
    )
    expected = 2 * loss.score + 2 * loss.bce + 0.5 * loss.dice
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.total.backward()
    assert all(logits.grad is None for logits in uncorrected)
    assert all(logits.grad.abs().min() > 0 for logits in corrected)
    assert quality.grad.abs().min() > 0
    perfect = jcm_loss(
        quality=quality,
        uncorrected_logits=certain(masks),
        corrected_logits=certain(masks),
        masks=masks,
    )
    assert perfect.bce.item() == pytest.approx(0, abs=1e-6)
    assert perfect.dice.item() == pytest.approx(0, abs=1e-6)
