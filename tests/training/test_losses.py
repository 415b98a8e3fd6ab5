import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.distance import jensenshannon

from training.losses import (
    IGNORE_INDEX,
    LossWeights,
    bce_loss,
    dice_loss,
    giou_loss,
    js_divergence,
    l1_loss,
    medisee_loss,
    similarity_loss,
    similarity_map,
    text_loss,
)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_default_weights_are_those_of_the_training_script():
    w = LossWeights()
    assert (w.text, w.bce, w.dice, w.box, w.js, w.mse) == (1.0, 2.0, 0.5, 2.0, 2.0, 1.0)


def test_text_loss_is_the_mean_negative_log_probability_of_supervised_next_tokens(generator):
    logits = torch.randn(2, 5, 7, generator=generator)
    labels = torch.full((2, 5), IGNORE_INDEX)
    labels[0, 3], labels[0, 4], labels[1, 2] = 6, 1, 3
    log_p = torch.log(torch.exp(logits) / torch.exp(logits).sum(-1, keepdim=True))
    expected = -(log_p[0, 2, 6] + log_p[0, 3, 1] + log_p[1, 1, 3]) / 3
    torch.testing.assert_close(text_loss(logits, labels), expected)


def test_text_loss_of_uniform_logits_is_the_log_of_the_vocabulary():
    labels = torch.tensor([[IGNORE_INDEX, 4, 5]])
    assert text_loss(torch.zeros(1, 3, 11), labels).item() == pytest.approx(math.log(11))


def test_text_loss_refuses_a_batch_without_supervised_tokens():
    # The first label is never predicted, so it does not count either.
    with pytest.raises(ValueError, match="every position is -100"):
        text_loss(torch.zeros(1, 3, 4), torch.tensor([[2, IGNORE_INDEX, IGNORE_INDEX]]))
    with pytest.raises(ValueError, match=r"expected \(1, 3\) as logits, got \(1, 2\)"):
        text_loss(torch.zeros(1, 3, 4), torch.zeros(1, 2, dtype=torch.long))


def test_bce_is_the_pixel_mean_of_each_mask(generator):
    logits = torch.randn(3, 4, 6, generator=generator)
    masks = torch.rand(3, 4, 6, generator=generator) > 0.5
    expected = [F.binary_cross_entropy(logits[i].sigmoid(), masks[i].float()) for i in range(3)]
    torch.testing.assert_close(bce_loss(logits, masks), torch.stack(expected))


def test_bce_of_zero_logits_is_ln_2():
    assert bce_loss(torch.zeros(1, 3, 3), torch.ones(1, 3, 3)).item() == pytest.approx(math.log(2))


def test_dice_loss_of_half_probabilities_on_a_half_mask():
    masks = torch.zeros(1, 4, 4)
    masks[0, :2] = 1
    # sums: p m = 4, p = 8, m = 8, all over 1000
    expected = 1 - (2 * 0.004 + 1e-6) / (0.016 + 1e-6)
    assert dice_loss(torch.zeros(1, 4, 4), masks).item() == pytest.approx(expected, rel=1e-5)


def test_dice_loss_is_near_zero_for_a_sure_right_mask_and_near_one_for_a_wrong_one():
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[:, 2:5, 2:5] = True
    logits = torch.where(masks, 50.0, -50.0)
    logits[1] *= -1
    right, wrong = dice_loss(logits, masks)
    assert right.item() == pytest.approx(0, abs=1e-6)
    assert wrong.item() == pytest.approx(1, abs=1e-4)


def test_dice_loss_of_nothing_predicted_where_nothing_is_is_zero():
    loss = dice_loss(torch.full((1, 4, 4), -80.0), torch.zeros(1, 4, 4))
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_l1_is_the_mean_of_four_coordinates():
    loss = l1_loss(torch.tensor([[0.0, 0.1, 0.5, 0.5]]), torch.tensor([[0.1, 0.1, 0.7, 0.6]]))
    assert loss.tolist() == pytest.approx([0.1])


@pytest.mark.parametrize(
    ("box", "target", "giou"),
    [
        ((0, 0, 1, 1), (0, 0, 1, 1), 1.0),
        ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7 - 2 / 9),  # intersection 1, union 7, hull 9
        ((0, 0, 1, 1), (2, 0, 3, 1), 0 - 1 / 3),  # apart: union 2, hull 3
        ((0, 0, 4, 4), (1, 1, 2, 2), 1 / 16),  # one within the other
        ((0, 0, 1, 1), (1, 0, 2, 1), 0.0),  # touching
    ],
)
def test_giou_equals_hand_computed_values(box, target, giou):
    loss = giou_loss(torch.tensor([box]), torch.tensor([target]))
    assert loss.item() == pytest.approx(1 - giou, abs=1e-6)


def test_giou_of_empty_boxes_has_finite_gradients():
    box = torch.tensor([[0.5, 0.5, 0.5, 0.5]], requires_grad=True)
    giou_loss(box, box.detach().clone()).sum().backward()
    assert torch.isfinite(box.grad).all()


def test_boxes_of_other_shape_and_empty_batches_are_refused():
    with pytest.raises(ValueError, match=r"got \(1, 4\) and \(2, 4\)"):
        giou_loss(torch.zeros(1, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="at least one row"):
        bce_loss(torch.zeros(0, 4, 4), torch.zeros(0, 4, 4))


def make_inputs(generator):
    labels = torch.randint(0, 9, (2, 6), generator=generator)
    labels[:, :3] = IGNORE_INDEX
    return {
        "text_logits": torch.randn(2, 6, 9, generator=generator, requires_grad=True),
        "labels": labels,
        "mask_logits": torch.randn(3, 5, 5, generator=generator, requires_grad=True),
        "masks": torch.rand(3, 5, 5, generator=generator) > 0.5,
        "boxes_xyxy": torch.tensor([[0.1, 0.1, 0.4, 0.5]] * 3, requires_grad=True),
        "target_boxes_xyxy": torch.tensor([[0.2, 0.1, 0.6, 0.5]] * 3),
    }


def test_total_is_the_weighted_sum_of_the_means_and_reaches_every_input(generator):
    inputs = make_inputs(generator)
    loss = medisee_loss(**inputs)
    expected = (
        text_loss(inputs["text_logits"], inputs["labels"])
        + 2.0 * bce_loss(inputs["mask_logits"], inputs["masks"]).sum() / 3
        + 0.5 * dice_loss(inputs["mask_logits"], inputs["masks"]).sum() / 3
        + 2.0 * (0.075 + 1 - 0.08 / 0.20)  # boxes 0.12 and 0.16, intersection 0.08, hull = union
    )
    torch.testing.assert_close(loss.total, expected)
    loss.total.backward()
    assert all(x.grad.abs().sum() > 0 for x in inputs.values() if x.requires_grad)


def test_masks_of_different_sizes_are_averaged_over_masks_not_over_images(generator):
    inputs = make_inputs(generator)
    a, b = torch.randn(1, 3, 4, generator=generator), torch.randn(2, 7, 5, generator=generator)
    inputs |= {"mask_logits": [a, b], "masks": [a > 0, b > 1]}
    per_mask = torch.cat([bce_loss(a, a > 0), bce_loss(b, b > 1)])
    assert per_mask.shape == (3,)
    torch.testing.assert_close(medisee_loss(**inputs).bce, per_mask.mean())


def test_similarity_map_is_the_scaled_dot_product_of_every_image_token(generator):
    tokens = torch.randn(2, 9, 16, generator=generator)
    h_seg = torch.randn(2, 16, generator=generator)
    expected = torch.stack([tokens[i] @ h_seg[i] for i in range(2)]) / 4
    torch.testing.assert_close(similarity_map(tokens, h_seg), expected)
    with pytest.raises(ValueError, match=r"h_seg: expected \(2, 16\), got \(2, 8\)"):
        similarity_map(tokens, h_seg[:, :8])


def test_js_divergence_equals_scipy(generator):
    a = 3 * torch.randn(4, 30, generator=generator)
    b = 3 * torch.randn(4, 30, generator=generator)
    distance = jensenshannon(a.softmax(1).double().numpy(), b.softmax(1).double().numpy(), axis=1)
    np.testing.assert_allclose(js_divergence(a, b).numpy(), distance**2, rtol=1e-4)


def test_js_divergence_stays_finite_and_reaches_ln_2_for_maps_that_point_elsewhere():
    a, b = torch.tensor([[1e4, 0.0]]), torch.tensor([[0.0, 1e4]])
    assert js_divergence(a, b).item() == pytest.approx(math.log(2))
    assert js_divergence(a, a).item() == 0


def test_similarity_loss_is_two_js_plus_one_mse_and_leaves_the_teacher_alone(generator):
    student = torch.randn(3, 12, generator=generator, requires_grad=True)
    teacher = torch.randn(3, 12, generator=generator, requires_grad=True)
    loss = similarity_loss(student, teacher)
    expected = 2 * js_divergence(student, teacher).mean() + ((student - teacher) ** 2).mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
