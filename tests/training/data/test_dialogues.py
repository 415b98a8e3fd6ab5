import random
import re

import numpy as np
import pytest
import torch

from training.data.dialogues import ROUNDS, dialogue
from training.data.phantom_views import PhantomSampler, PhantomViewConfig
from training.data.relations import NEIGHBOURS, SCENARIOS, links
from training.data.slices import SliceConfig, SliceSampler
from training.data.views import TARGETS, ViewSampler

LESION = len(TARGETS) - 1


@pytest.fixture(scope="module")
def views(train_template):
    sampler = ViewSampler(
        SliceSampler(train_template, SliceConfig(80)),
        PhantomSampler(PhantomViewConfig(long_side=80), held_out=False),
    )
    rng = np.random.default_rng(0)
    return [sampler.draw(rng, LESION if i % 5 == 0 else None) for i in range(20)]


def talks(views, split, count=6, **arguments):
    for number, view in enumerate(views):
        for seed in range(count):
            rng = random.Random(100 * number + seed)
            yield view, dialogue(view.present, view.masks, rng, split, **arguments)


@pytest.mark.parametrize("split", ["train", "test"])
def test_conversations_ask_for_what_is_there_by_way_of_what_was_found(views, split):
    lengths, scenarios, back = set(), set(), set()
    for view, talk in talks(views, split):
        lengths.add(len(talk))
        assert talk[0].references == ()
        known = {
            (link.reference, link.target, link.relation.scenario)
            for link in links(view.present, view.masks)
        }
        for number, one in enumerate(talk, start=1):
            assert view.present[one.target]
            assert one.prompt.strip()
            assert (one.scenario is None) == (not one.references)
            for reference in one.references:
                assert 1 <= reference < number
                assert (talk[reference - 1].target, one.target, one.scenario) in known
                back.add(number - reference)
            scenarios.add(one.scenario)
    assert lengths == set(range(ROUNDS[0], ROUNDS[1] + 1))
    assert scenarios == {None, *SCENARIOS}
    assert {1, 2, 3} <= back


def test_most_later_rounds_refer_and_most_go_on_from_the_latest_mask(views):
    rounds = [
        (number, one)
        for _, talk in talks(views, "train")
        for number, one in enumerate(talk, start=1)
        if number > 1
    ]
    referring = [(number, one.references[0]) for number, one in rounds if one.references]
    assert len(referring) > 0.7 * len(rounds)
    latest = sum(reference == number - 1 for number, reference in referring)
    assert 0.4 * len(referring) < latest < 0.9 * len(referring)


def test_the_number_in_the_words_is_that_of_the_reference(views):
    numbered = 0
    for _, talk in talks(views, "train"):
        for one in talk:
            match = re.search(r"(?:round|instance|mask|object) (\d+)", one.prompt.lower())
            if match:
                numbered += 1
                assert one.references == (int(match[1]),)
    assert numbered > 100


def test_nothing_is_asked_twice_in_the_same_way(views):
    for view in views:
        rounds = dialogue(view.present, view.masks, random.Random(5), "test", rounds=10)
        asked = [
            (one.target, one.references, one.scenario, one.prompt)
            for one in rounds
            if one.references
        ]
        assert len(set(asked)) == len(asked)


def test_a_conversation_has_as_many_rounds_as_asked_for_and_repeats_by_its_seed(views):
    for view in views[:5]:
        for rounds in (1, 2, 7):
            one, other = (
                dialogue(view.present, view.masks, random.Random(3), "train", rounds)
                for _ in range(2)
            )
            assert one == other
            assert len(one) == rounds


def test_a_view_with_one_target_is_asked_for_it_again():
    present = torch.zeros(len(TARGETS), dtype=torch.bool)
    present[20] = True
    masks = torch.zeros(len(TARGETS), 40, 40, dtype=torch.bool)
    masks[20, 10:20, 10:20] = True
    talk = dialogue(present, masks, random.Random(0), "train", 4)
    assert [one.target for one in talk] == [20] * 4
    assert all(one.references == () for one in talk)


def test_heavy_targets_are_asked_for_more_often(views):
    view = max(views, key=lambda v: v.present.sum())
    target = view.present.nonzero()[3].item()
    weights = [1.0] * len(TARGETS)

    def share():
        drawn = [
            dialogue(view.present, view.masks, random.Random(i), "test", 1, weights)[0].target
            for i in range(150)
        ]
        return drawn.count(target) / len(drawn)

    before = share()
    weights[target] = 50.0
    assert share() > before + 0.3


@pytest.mark.parametrize("direction", NEIGHBOURS)
def test_words_a_neighbour_turns_on_are_never_dropped(views, direction):
    words = NEIGHBOURS[direction].wordings
    for view, talk in talks(views, "train", count=10):
        for one in talk:
            if one.scenario != "spatial":
                continue
            (reference,) = (talk[r - 1].target for r in one.references)
            ways = {
                link.relation
                for link in links(view.present, view.masks)
                if (link.reference, link.target) == (reference, one.target)
                and link.relation.scenario == "spatial"
            }
            if ways == {NEIGHBOURS[direction]}:
                assert direction in one.prompt.lower(), (one.prompt, words)


def test_empty_views_and_no_rounds_are_refused():
    nothing = torch.zeros(len(TARGETS), dtype=torch.bool)
    masks = torch.zeros(len(TARGETS), 8, 8, dtype=torch.bool)
    with pytest.raises(ValueError, match="at least one target"):
        dialogue(nothing, masks, random.Random(0), "train")
    with pytest.raises(ValueError, match="got 0"):
        dialogue(~nothing, ~masks, random.Random(0), "train", 0)
