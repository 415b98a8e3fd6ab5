"""Texts of the context cache: of the organs that are trained on, and nothing of the test split."""

from training.context_cache import TEXTS, read_texts
from training.data import false_premises
from training.data.organs import ORGANS

SOURCE = read_texts(TEXTS)
ALL = [text for organ in SOURCE.organs for text in organ.texts] + list(SOURCE.irrelevant)


def test_the_organs_are_the_labels_in_their_order_with_their_codes():
    expected = [
        (organ.name, ":".join(filter(None, (organ.snomed.structure, organ.snomed.laterality))))
        for organ in ORGANS
    ]
    assert [(organ.name, organ.snomed) for organ in SOURCE.organs] == expected


def test_every_organ_has_several_texts_and_no_text_comes_twice():
    assert all(len(organ.texts) >= 5 for organ in SOURCE.organs)
    assert len({text.lower() for text in ALL}) == len(ALL)


def test_nothing_of_the_test_split_is_in_a_text():
    held_out = {fact.held_out for organ in ORGANS for fact in organ.attributes + organ.locations}
    held_out |= {
        subject.removeprefix("the ")
        for subjects in (
            false_premises._ELSEWHERE,
            false_premises._ELSEWHERE_FACTS,
            false_premises._UNRELATED,
        )
        for subject in subjects["test"]
    }
    assert not [text for text in ALL for wording in held_out if wording.lower() in text.lower()]
