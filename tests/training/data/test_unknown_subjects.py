"""Made-up subjects: many, none of them an organ, none of the test split's."""

import random
import re

from training.data import false_premises
from training.data.organs import ORGANS
from training.data.unknown_subjects import unknown_subject

TEXTS = [unknown_subject(random.Random(seed)) for seed in range(4000)]


def mentions(name, text):
    return re.search(rf"\b{re.escape(name.removeprefix('the ').lower())}\b", text.lower())


def test_hardly_any_question_comes_twice():
    assert len(set(TEXTS)) > 0.9 * len(TEXTS)


def test_no_question_names_an_organ():
    names = {name for organ in ORGANS for name in (organ.name, *organ.synonyms)}
    assert not [text for text in TEXTS for name in names if mentions(name, text)]


def test_no_question_names_a_subject_of_the_test_split():
    held_out = false_premises._ELSEWHERE["test"] + false_premises._UNRELATED["test"]
    assert not [text for text in TEXTS for subject in held_out if mentions(subject, text)]


def test_the_same_generator_gives_the_same_question():
    assert unknown_subject(random.Random(3)) == unknown_subject(random.Random(3))
