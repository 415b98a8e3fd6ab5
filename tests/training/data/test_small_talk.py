import random
import re

from training.data.organ_questions import ABDOMEN
from training.data.small_talk import _WORDS, SHARE, with_small_talk

QUESTION = "Which organ stores bile?"


def test_the_question_stays_whole_and_two_of_five_get_a_sentence():
    rng = random.Random(0)
    texts = [with_small_talk(QUESTION, rng) for _ in range(2000)]
    assert all(QUESTION in text for text in texts)
    talking = [text for text in texts if text != QUESTION]
    assert abs(len(talking) / len(texts) - SHARE) < 0.03
    before = sum(text.endswith(QUESTION) for text in talking) / len(talking)
    assert 0.6 < before < 0.8


def test_a_lower_case_question_gets_a_lower_case_sentence():
    rng = random.Random(1)
    assert all(t == t.lower() for t in (with_small_talk("the liver", rng) for _ in range(200)))


def words(templates):
    return set(re.findall("[a-z]+", " ".join(templates).lower()))


def test_no_word_belongs_to_the_held_out_templates_alone():
    kinds = (ABDOMEN.direct, ABDOMEN.reasoning, ABDOMEN.two_facts, ABDOMEN.contexts)
    train, test = (
        set().union(*(words(kind[split]) for kind in kinds)) for split in ("train", "test")
    )
    assert not {word.lower() for word in _WORDS} & (test - train)
