"""CoTexNet's losses against the formulas in plain numpy."""

import numpy as np
import pytest
import torch

from training.cotexnet_loss import (
    cotexnet_loss,
    distillation_loss,
    mask_planes,
    segmentation_losses,
)
from training.networks.cotexnet.network import CoTexNetOutput
from training.networks.cotexnet.reading import PAPER, RELEASED


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def output_of(logits, seed=1):
    predicted, text = random(2, 6, seed=seed).sigmoid(), random(2, 6, seed=seed + 1) * 2
    return CoTexNetOutput(logits, torch.zeros(0), predicted, text, (0.8 * text + 0.2).sigmoid())


def test_masks_of_several_classes_get_a_background_in_front():
    masks = torch.tensor([[1, 0, 0], [0, 1, 0]], dtype=torch.bool)[None, :, None]
    expected = [[[[0, 0, 1]], [[1, 0, 0]], [[0, 1, 0]]]]
    assert mask_planes(masks).int().tolist() == expected
    assert mask_planes(masks[:, :1]).equal(masks[:, :1])


@pytest.mark.parametrize("reading", [RELEASED, PAPER])
@pytest.mark.parametrize("classes", [1, 3])
def test_segmentation_is_dice_and_cross_entropy_of_every_plane(reading, classes):
    labels = torch.randint(0, classes + 1, (2, 8, 7), generator=torch.Generator().manual_seed(2))
    planes = mask_planes(torch.stack([labels == c + 1 for c in range(classes)], dim=1))
    logits = random(*planes.shape) * 3
    x, m = logits.double().numpy(), planes.double().numpy()
    p = sigmoid(x)
    overlap, areas = (p * m).sum((2, 3)), p.sum((2, 3)) + m.sum((2, 3))
    dice = (1 - (2 * overlap + 1e-5) / (areas + 1e-5)).mean()
    given = p if reading is RELEASED else x
    if classes == 1:
        q = sigmoid(given)
        cross_entropy = -(m * np.log(q) + (1 - m) * np.log(1 - q)).mean()
    else:
        cross_entropy = -(m * np.log(softmax(given))).sum(axis=1).mean()
    found = segmentation_losses(logits, planes, reading)
    assert [term.item() for term in found] == pytest.approx([dice, cross_entropy], rel=1e-5)


def test_planes_without_a_background_are_refused():
    with pytest.raises(ValueError, match="make them with mask_planes"):
        segmentation_losses(torch.zeros(1, 3, 4, 4), torch.zeros(1, 2, 4, 4).bool(), RELEASED)


def test_the_released_divergence_is_between_softmaxes_over_the_embedding():
    output = output_of(torch.zeros(0))
    teacher = softmax(sigmoid(output.text_embedding.double().numpy()))
    student = softmax(output.class_embedding.double().numpy())
    expected = (teacher * np.log(teacher / student)).sum(axis=1).mean()
    assert distillation_loss(output, RELEASED).item() == pytest.approx(expected, rel=1e-4)


def test_the_papers_divergence_is_of_the_noisy_values_and_least_where_they_agree():
    output = output_of(torch.zeros(0))
    target, student = output.noisy_embedding.double(), output.class_embedding.double()
    expected = (target * (target / student).log() - target + student).sum(dim=1).mean().item()
    assert expected > 0.1
    assert distillation_loss(output, PAPER).item() == pytest.approx(expected, rel=1e-4)
    noisy = output.noisy_embedding
    student = noisy.clone().requires_grad_()
    at_target = CoTexNetOutput(torch.zeros(0), torch.zeros(0), student, noisy, noisy)
    loss = distillation_loss(at_target, PAPER)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert student.grad.abs().max() < 1e-6


@pytest.mark.parametrize(("reading", "weight"), [(RELEASED, 10.0), (PAPER, 1.0)])
def test_the_joint_loss_teaches_the_class_token_and_leaves_the_target(reading, weight):
    logits = random(2, 1, 4, 4).requires_grad_()
    output = output_of(logits)
    for tensor in (output.class_embedding, output.text_embedding, output.noisy_embedding):
        tensor.requires_grad_()
    loss = cotexnet_loss(output, random(2, 1, 4, 4, seed=9) > 0, reading)
    expected = loss.dice + loss.cross_entropy + weight * loss.distillation
    assert loss.total.item() == pytest.approx(expected.item())
    loss.total.backward()
    assert logits.grad.abs().max() > 0
    assert output.class_embedding.grad.abs().max() > 0
    assert output.text_embedding.grad is None
    assert output.noisy_embedding.grad is None
