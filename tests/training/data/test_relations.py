"""Relations: what must hold of the tables, and neighbours against hand-made pictures."""

import itertools
import re
from collections import defaultdict

import pytest
import torch

from training.data.relations import (
    LESION_HOST,
    LESION_INSIDE,
    NEIGHBOURS,
    RELATIONS,
    SCENARIOS,
    links,
    neighbours,
)
from training.data.structures import STRUCTURES
from training.data.views import TARGETS

NAMES = [target.name for target in TARGETS]
ALL = [*RELATIONS, LESION_INSIDE, LESION_HOST, *NEIGHBOURS.values()]


def index(name):
    return NAMES.index(name)


def view(boxes, shape=(100, 100)):
    """Masks of boxes (x0, y0, x1, y1) by name, and which are present."""
    masks = torch.zeros(len(TARGETS), *shape, dtype=torch.bool)
    for name, (x0, y0, x1, y1) in boxes.items():
        masks[index(name), y0:y1, x0:x1] = True
    return masks.flatten(1).any(dim=1), masks


def found(boxes, relation=None):
    return {
        (NAMES[link.reference], NAMES[link.target])
        for link in links(*view(boxes))
        if relation is None or link.relation is relation
    }


def test_every_relation_names_targets_and_says_it_three_times():
    for relation in ALL:
        assert relation.scenario in SCENARIOS
        wordings = [*relation.wordings.train, relation.wordings.held_out]
        assert len(set(wordings)) == 3, wordings
        for words in wordings:
            assert re.search(r"\b(it|its|same|side|other|opposite)\b", words), words
        for reference, target in relation.targets.items():
            assert {reference, target} <= set(NAMES)
            assert reference != target
    assert {relation.scenario for relation in ALL} == set(SCENARIOS)


def test_words_and_reference_together_mean_one_target():
    meant = defaultdict(set)
    for relation in RELATIONS:
        for words in (*relation.wordings.train, relation.wordings.held_out):
            for reference, target in relation.targets.items():
                meant[words, reference].add(target)
    assert all(len(targets) == 1 for targets in meant.values())


def test_many_relations_cannot_be_answered_without_the_reference():
    by_words = [set(relation.targets.values()) for relation in RELATIONS]
    assert sum(len(targets) > 1 for targets in by_words) >= 15


def test_no_wording_of_a_relation_is_held_out_and_trained_at_once():
    trained = {words for relation in ALL for words in relation.wordings.train}
    assert not trained & {relation.wordings.held_out for relation in ALL}


def test_what_is_on_one_side_of_the_body_stays_there():
    sides = {"liver": "right", "gallbladder": "right", "spleen": "left"}
    for relation in RELATIONS:
        words = relation.wordings.train[0]
        for reference, target in relation.targets.items():
            side = sides.get(reference) or (re.match("right|left", reference) or [None])[0]
            other = re.match("right|left", target)
            if side and other and "side of the body" in words:
                assert (other[0] == side) == ("other side" not in words), (words, reference)


@pytest.mark.parametrize("part", [s.name for s in STRUCTURES if s.name != "whole brain"])
def test_the_whole_brain_leads_to_each_of_its_parts(part):
    assert any(relation.targets == {"whole brain": part} for relation in RELATIONS)


def test_links_are_between_what_the_view_shows():
    shown = {"liver": (0, 0, 5, 5), "right kidney": (90, 90, 99, 99), "aorta": (50, 10, 52, 12)}
    pairs = found(shown)
    assert ("liver", "right kidney") in pairs
    assert all(set(pair) <= set(shown) for pair in pairs)


def test_the_lesion_belongs_to_the_organ_it_lies_in():
    boxes = {"liver": (0, 0, 40, 40), "spleen": (60, 0, 90, 40), "lesion": (70, 10, 76, 16)}
    assert found(boxes, LESION_INSIDE) == {("spleen", "lesion")}
    assert found(boxes, LESION_HOST) == {("lesion", "spleen")}
    boxes["lesion"] = (45, 10, 50, 16)
    assert not found(boxes, LESION_INSIDE)


ROW = {"right kidney": (10, 40, 30, 60), "aorta": (36, 45, 46, 55), "left kidney": (52, 40, 72, 60)}


def test_neighbours_in_the_image_stand_next_to_each_other():
    assert found(ROW, NEIGHBOURS["right"]) == {("right kidney", "aorta"), ("aorta", "left kidney")}
    assert found(ROW, NEIGHBOURS["left"]) == {("aorta", "right kidney"), ("left kidney", "aorta")}
    assert not found(ROW, NEIGHBOURS["above"]) | found(ROW, NEIGHBOURS["below"])
    column = {name: (y0, x0, y1, x1) for name, (x0, y0, x1, y1) in ROW.items()}
    assert found(column, NEIGHBOURS["below"]) == found(ROW, NEIGHBOURS["right"])
    assert found(column, NEIGHBOURS["above"]) == found(ROW, NEIGHBOURS["left"])


def test_a_neighbour_is_near_and_without_rival():
    far = {"liver": (0, 40, 20, 60), "spleen": (60, 40, 80, 60)}
    assert not found(far, NEIGHBOURS["right"])
    rivals = {"liver": (0, 20, 20, 80), "aorta": (25, 20, 40, 45), "stomach": (27, 50, 40, 78)}
    assert ("liver", "aorta") not in found(rivals, NEIGHBOURS["right"])
    rivals["stomach"] = (70, 50, 80, 78)
    assert ("liver", "aorta") in found(rivals, NEIGHBOURS["right"])


def test_what_surrounds_or_lies_on_both_sides_is_no_neighbour():
    boxes = {
        "whole brain": (10, 10, 40, 40),
        "insula": (41, 10, 60, 40),
        "lesion": (62, 10, 80, 40),
    }
    for relation in NEIGHBOURS.values():
        assert not found(boxes, relation)


def test_neighbours_mirror_with_the_picture():
    generator = torch.Generator().manual_seed(0)
    some = 0
    for _ in range(40):
        masks = torch.zeros(6, 64, 80, dtype=torch.bool)
        for mask in masks:
            x, y = (
                torch.randint(0, 60, (), generator=generator),
                torch.randint(0, 44, (), generator=generator),
            )
            w, h = torch.randint(4, 20, (2,), generator=generator)
            mask[y : y + h, x : x + w] = True
        left, right = neighbours(masks, "left"), neighbours(masks.flip(2), "right")
        above, turned = neighbours(masks, "above"), neighbours(masks.transpose(1, 2), "left")
        assert (left, above) == (right, turned)
        some += sum(target is not None for target in itertools.chain(left, above))
    assert some > 20
