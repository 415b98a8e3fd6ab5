import random
import re
from collections import Counter

import pytest

from training.data.false_premises import false_premise
from training.data.organ_questions import organ_question, two_organs_question
from training.data.organs import ORGANS
from training.data.questions import REASONING_REQUEST

EVERY = {organ.id for organ in ORGANS}
SHOWN = {1, 5, 6, 11}


def texts(split, count=4000):
    rng = random.Random(1)
    return [organ_question(SHOWN, rng=rng, split=split) for _ in range(count)]


def words(text):
    return " ".join(re.findall(r"[a-z0-9']+", text.removesuffix(REASONING_REQUEST).lower()))


def test_organs_are_numbered_as_flare22_has_them():
    assert [organ.id for organ in ORGANS] == list(range(1, 14))
    assert [organ.name for organ in ORGANS[:3]] == ["liver", "right kidney", "spleen"]
    assert ORGANS[12].name == "left kidney"


def test_codes_are_numbers_and_paired_organs_have_a_side():
    for organ in ORGANS:
        assert organ.snomed.structure.isdigit()
        assert (organ.snomed.laterality is not None) == (organ.name.split()[0] in ("left", "right"))
    codes = [(organ.snomed.structure, organ.snomed.laterality) for organ in ORGANS]
    assert len(set(codes)) == len(codes)


def test_no_wording_of_a_fact_belongs_to_two_organs():
    wordings = Counter(
        words(text)
        for organ in ORGANS
        for fact in (*organ.attributes, *organ.locations)
        for text in (*fact.train, fact.held_out)
    )
    assert [text for text, count in wordings.items() if count > 1] == []


def test_the_premise_is_true_of_the_slice():
    for question in texts("train"):
        labels = {organ.id for organ in question.organs}
        if question.premise == "irrelevant":
            assert labels == set()
        else:
            assert (labels <= SHOWN) == (question.premise == "found")


def test_premises_come_in_their_documented_shares():
    shares = Counter(question.premise for question in texts("train"))
    assert shares["found"] / 4000 == pytest.approx(0.6, abs=0.03)
    assert shares["absent"] / 4000 == pytest.approx(0.2, abs=0.03)


def test_every_organ_is_asked_for():
    found = {o.id for q in texts("test") for o in q.organs}
    assert found == EVERY


def test_no_reasoning_question_or_false_premise_of_the_test_occurs_in_training():
    names = {words(name) for organ in ORGANS for name in organ.synonyms}
    names |= {name.removeprefix("the ") for name in names}
    training = {words(question.text) for question in texts("train", 20_000)}
    testing = {words(question.text) for question in texts("test")} - names
    assert training & testing == set()


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_false_premise_names_no_organ_of_the_abdomen(split):
    rng = random.Random(0)
    for _ in range(2000):
        text = words(false_premise(rng, split))
        for organ in ORGANS:
            for name in organ.synonyms:
                assert words(name).removeprefix("the ") not in text


@pytest.mark.parametrize(("shown", "premise"), [((), "found"), (EVERY, "absent")])
def test_a_premise_that_the_slice_cannot_give_is_refused(shown, premise):
    with pytest.raises(ValueError, match=f"premise '{premise}': the slice shows"):
        organ_question(shown, rng=random.Random(0), split="train", premise=premise)


def test_a_slice_without_organs_still_has_questions():
    rng = random.Random(0)
    premises = {organ_question((), rng=rng, split="train").premise for _ in range(100)}
    assert premises == {"absent", "irrelevant"}


def test_two_organs_keep_their_order():
    liver, stomach = ORGANS[0], ORGANS[10]
    question = two_organs_question(stomach, liver, rng=random.Random(0), split="test")
    assert question.organs == (stomach, liver)
    first, second = (
        min(question.text.find(name) for name in organ.synonyms if name in question.text)
        for organ in question.organs
    )
    assert first < second
