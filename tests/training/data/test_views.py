import random

import numpy as np
import pytest
import torch

from training.data.phantom_views import PhantomSampler, PhantomViewConfig
from training.data.slices import SliceConfig, SliceSampler
from training.data.views import TARGETS, ViewSampler, is_abdomen, question_about

NAMES = [target.name for target in TARGETS]


@pytest.fixture(scope="module")
def sampler(train_template):
    return ViewSampler(
        SliceSampler(train_template, SliceConfig()),
        PhantomSampler(PhantomViewConfig(), held_out=False),
    )


def test_every_target_can_be_drawn_and_lies_in_its_region_alone(sampler):
    rng = np.random.default_rng(0)
    for index, target in enumerate(TARGETS):
        view = sampler.draw(rng, index)
        assert view.present[index], target.name
        assert is_abdomen(view) == (index >= 16)
        assert view.masks.shape == (30, *view.image.shape)
        assert not view.masks[: 16 if index >= 16 else 0].any()
        assert not view.masks[16 if index < 16 else 30 :].any()


def test_half_the_views_are_of_the_abdomen(sampler):
    rng = np.random.default_rng(1)
    assert 0.35 < np.mean([is_abdomen(sampler.draw(rng)) for _ in range(80)]) < 0.65


def test_rare_targets_weigh_more(sampler):
    rarity = dict(zip(NAMES, sampler.rarity(0, views=60).tolist(), strict=True))
    assert rarity["left adrenal gland"] > rarity["liver"] >= 1


def test_questions_are_in_the_words_of_the_region():
    rng = random.Random(0)
    about = {
        name: " ".join(
            question_about(NAMES.index(name), rng=rng, split="train").text for _ in range(80)
        )
        for name in ("thalamus", "spleen", "lesion")
    }
    assert "brain" in about["thalamus"]
    assert "organ" not in about["thalamus"]
    assert "abdom" in about["spleen"]
    assert "brain" not in about["spleen"] + about["lesion"]
    assert "lesion" in about["lesion"]


def test_padding_keeps_what_the_region_drew(sampler):
    whole = sampler.draw(np.random.default_rng(7), NAMES.index("liver"))
    alone = sampler.abdomen.draw(np.random.default_rng(7), 0)
    assert torch.equal(whole.image, alone.image)
    assert torch.equal(whole.masks[16:], alone.masks)
