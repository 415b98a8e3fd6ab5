import numpy as np
import pytest
import torch

from training.data.phantom_views import PHANTOM_TARGETS, PhantomSampler, PhantomViewConfig
from training.data.phantoms import LABELS, draw_anatomy

INDEX = {target.name: index for index, target in enumerate(PHANTOM_TARGETS)}


@pytest.fixture(scope="module")
def sampler():
    return PhantomSampler(PhantomViewConfig(), held_out=False)


def test_the_same_generator_gives_the_same_view(sampler):
    one, other = (sampler.draw(np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(one.image, other.image)
    assert torch.equal(one.masks, other.masks)


def test_targets_stand_in_the_order_of_their_labels_and_the_lesion_last():
    assert [target.id for target in PHANTOM_TARGETS] == list(range(1, 15))
    assert PHANTOM_TARGETS[-1].name == "lesion"
    assert all(LABELS[target.name] == target.id for target in PHANTOM_TARGETS[:-1])


@pytest.mark.parametrize("target", INDEX)
def test_what_is_asked_for_is_there(sampler, target):
    rng = np.random.default_rng(INDEX[target])
    for _ in range(3):
        view = sampler.draw(rng, INDEX[target])
        assert view.present[INDEX[target]]
        assert torch.equal(view.present, view.masks.sum(dim=(1, 2)) >= 14)
        assert view.image.shape[1] == 160
        assert view.masks.shape == (14, *view.image.shape)


def test_organs_do_not_overlap_and_a_lesion_lies_in_one(sampler):
    rng = np.random.default_rng(9)
    for _ in range(10):
        view = sampler.draw(rng, INDEX["lesion"])
        assert view.masks[:-1].sum(dim=0).max() == 1
        assert (view.masks[:-1] & view.masks[-1]).any(dim=0).sum() == view.masks[-1].sum()


def test_left_stays_left(sampler):
    rng = np.random.default_rng(5)
    for _ in range(10):
        view = sampler.draw(rng, INDEX["spleen"])
        if view.present[INDEX["liver"]]:
            liver, spleen = (
                view.masks[INDEX[name]].nonzero()[:, 1].float().mean()
                for name in ("liver", "spleen")
            )
            assert liver < spleen


def test_bodies_of_the_test_split_are_never_those_of_training(monkeypatch):
    seeds = {}
    for held_out in (False, True):
        seen = seeds[held_out] = []
        monkeypatch.setattr(
            "training.data.phantom_views.draw_anatomy",
            lambda seed, lesion=None, seen=seen: (
                seen.append(seed) or draw_anatomy(seed, lesion=lesion)
            ),
        )
        sampler = PhantomSampler(PhantomViewConfig(), held_out=held_out)
        rng = np.random.default_rng(1)
        for _ in range(10):
            sampler.draw(rng)
    assert max(seeds[False]) < 2**31 <= min(seeds[True])
