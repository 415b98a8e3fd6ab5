"""CoTexNet's stage at a tiny size: what learns, what stays, and what is measured."""

import numpy as np
import pytest
import torch

from training.networks.cotexnet.network import CoTexNet
from training.networks.cotexnet.profile import CoTexNetProfile, Tower
from training.networks.cotexnet.prompts import PromptTokenizer
from training.networks.cotexnet.reading import PAPER, RELEASED
from training.stages.cotexnet import (
    CoTexNetBatch,
    CoTexNetStage,
    class_dice,
    regions_of_interest,
)
from training.trainer import Schedule, Trainer

TASKS = {"disc": 1, "halves": 2}
WORDS = ["segmentation", "area", "of", "left", "right", "bright"]
TEXT = "bright bright area of area"
PROFILE = CoTexNetProfile(
    name="tiny",
    image_size=32,
    patch_size=8,
    vision=Tower(width=16, layers=3, heads=2, feed_forward=24),
    taps=(0, 1),
    text=Tower(width=16, layers=1, heads=2, feed_forward=24),
    vocabulary_size=10,
    text_length=12,
    embedding_width=12,
    decoder=Tower(width=8, layers=2, heads=2, feed_forward=16),
    convolutional_stem=False,
)


class Discs:
    """A bright disc on the left or the right, whole or with its halves apart."""

    def batch(self, task, count, rng):
        y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
        right = torch.from_numpy(rng.integers(0, 2, count))
        center = 8.0 + 16 * right[:, None, None]
        disc = (y - 16) ** 2 + (x - center) ** 2 < 36
        upper = y.expand(count, -1, -1) < 16
        masks = disc[:, None]
        if task == "halves":
            masks = torch.stack([disc & upper, disc & ~upper], dim=1)
        pixels = disc[:, None].float().expand(-1, 3, -1, -1).contiguous()
        return CoTexNetBatch(task, pixels, masks, [f"{TEXT} {WORDS[3 + r]}" for r in right])


def pieces(text):
    return [WORDS.index(word) for word in text.split()]


def build(reading=RELEASED, **settings):
    torch.manual_seed(0)
    network = CoTexNet(PROFILE, TASKS, reading)
    tokenizer = PromptTokenizer(pieces, PROFILE, reading)
    settings = {"seed": 5, "batch_size": 4} | settings
    return CoTexNetStage("cotexnet", network, tokenizer, Discs(), Discs(), **settings)


def changed_by_training(stage, steps):
    before = {name: p.clone() for name, p in stage.network.named_parameters()}
    optimizer = torch.optim.AdamW(
        [p for p in stage.modules.parameters() if p.requires_grad], lr=5e-3
    )
    losses = []
    for _ in range(steps):
        loss, _ = stage.loss(0)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = dict(stage.network.named_parameters())
    return losses, {name for name, p in before.items() if not p.equal(after[name])}


@pytest.mark.parametrize("reading", [RELEASED, PAPER], ids=["released", "paper"])
@pytest.mark.parametrize("task", TASKS)
def test_a_task_learns_over_frozen_encoders(reading, task):
    stage = build(reading, tasks=[task])
    losses, changed = changed_by_training(stage, 30)
    assert losses[-1] < 0.9 * losses[0]
    own = (f"heads.{task}.", f"teachers.{task}.")
    trainable = {name for name, _ in stage.network.named_parameters() if name.startswith(own)}
    assert changed == trainable


def test_the_encoders_learn_where_they_are_asked_to_and_the_tasks_take_turns():
    stage = build(train_encoders=True)
    _, changed = changed_by_training(stage, 2)
    assert any(name.startswith("image_encoder.layers.2") for name in changed)
    assert any(name.startswith("text_encoder.") for name in changed)
    assert not any(name.startswith("heads.halves.") for name in changed)
    stage.modules.zero_grad()
    stage.loss(1)[0].backward()
    grads = {n for n, p in stage.network.named_parameters() if p.grad is not None}
    assert any(name.startswith("heads.halves.") for name in grads)
    assert not any(name.startswith("heads.disc.") for name in grads)


def test_the_masks_that_are_served_can_be_learned_directly():
    plain, direct = build(tasks=["disc"]), build(tasks=["disc"], image_only_weight=2.0)
    (joint, _), (both, _) = plain.loss(0), direct.loss(0)
    batch = Discs().batch("disc", 4, np.random.default_rng((5, 0)))
    logits = direct.network.segment("disc", batch.pixels)
    p, m = logits.sigmoid(), batch.masks.float()
    dice = 1 - 2 * (p * m).sum((2, 3)) / (p.sum((2, 3)) + m.sum((2, 3)))
    cross_entropy = torch.nn.functional.binary_cross_entropy(p.sigmoid(), m)
    expected = joint + 2 * (dice.mean() + cross_entropy)
    torch.testing.assert_close(both, expected, rtol=1e-4, atol=1e-4)


def test_the_trainer_runs_the_stage_and_dice_of_every_task_is_reported(tmp_path):
    schedule = Schedule(steps=3, learning_rate=1e-3, log_every=1, checkpoint_every=3)
    figures = Trainer(build(), schedule, tmp_path).run()
    assert figures.keys() == {"dice_disc", "dice_halves", "dice", "distillation"}
    mean = (figures["dice_disc"] + figures["dice_halves"]) / 2
    assert figures["dice"] == pytest.approx(mean)


def test_a_step_depends_on_its_number_alone():
    stage = build()
    first, second = stage.loss(7)[0], stage.loss(7)[0]
    assert first.item() == second.item()


def test_an_unknown_task_is_refused():
    with pytest.raises(LookupError, match="liver"):
        build(tasks=["liver"])


def test_a_region_is_the_picture_in_the_mask_and_zero_elsewhere():
    pixels, masks = torch.randn(2, 3, 4, 4), torch.rand(2, 2, 4, 4) > 0.5
    regions = regions_of_interest(pixels, masks)
    for image in range(2):
        for number in range(2):
            expected = torch.where(masks[image, number], pixels[image], 0.0)
            assert regions[image, number].equal(expected)


def test_dice_of_classes_leaves_out_those_that_are_nowhere():
    masks = torch.zeros(1, 3, 2, 2, dtype=torch.bool)
    masks[0, 0, 0] = True  # upper row is class 1, lower row background, no class 2 and 3
    logits = torch.zeros(1, 4, 2, 2)
    logits[0, 1, 0] = 1
    logits[0, 0, 1, 0] = 1
    logits[0, 3, 1, 1] = 1
    assert class_dice(logits, masks).tolist() == [1.0, 0.0]
