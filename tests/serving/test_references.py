import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.references.resolver import resolve
from serving.references.rounds import Reference, RoundSummary
from serving.references.wants_mask import wants_mask
from serving.references.wording import word_set
from training.data.organ_questions import ABDOMEN
from training.data.organs import ORGANS
from training.data.questions import generate
from training.data.structures import STRUCTURES

LIVER = "Segment the liver."
# Instances 1 to 5; round 3 was answered in words, round 4 has two masks.
ROUNDS = (
    RoundSummary(1, LIVER, (1,), (LIVER,)),
    RoundSummary(2, "Which organ stores the bile it makes?", (2,), ("the organ storing bile",)),
    RoundSummary(3, "What does it do?"),
    RoundSummary(
        4, "the stomach and the left kidney", (3, 4), ("the stomach", "Segment the left kidney.")
    ),
    RoundSummary(5, "Segment the spleen", (5,), ("Segment the spleen",)),
)
ROUND_OF = {1: 1, 2: 2, 3: 4, 4: 4, 5: 5}


def taken(prompt, rounds=ROUNDS):
    return [reference.instance for reference in resolve(prompt, rounds).references]


@pytest.mark.parametrize(
    ("prompt", "instances"),
    [
        ("Based on the output of round 2, segment the gland", [2]),
        ("From the result of round 1, show the vessel entering", [1]),
        ("Given the mask of round 5, which organ lies below?", [5]),
        ("Using the second round's result, outline the duct", [2]),
        ("referring to round two, segment the sac", [2]),
        ("According to the answer of the 1st round, find the vein", [1]),
        ("Based on #2, find the duct", [2]),
        ("Round 2: what lies right beneath?", [2]),
        ("Based on instance 3, segment the tail", [3]),
        ("the vessel next to object 4", [4]),
        ("of mask 1, the left part", [1]),
        ("Segment the space between instances 2 and 3", [2, 3]),
        ("rounds 1, 2 and 5: segment what connects them", [1, 2, 5]),
        ("the gap of rounds 1 to 2", [1, 2]),
        ("Which vessel connects instance 1 with instance 5?", [1, 5]),
        ("Based on round 4, segment the duct", [3, 4]),
        ("the second instance of round 4", [4]),
        ("instance 1 of round 4", [3]),
        ("instance 4 of round 4", [4]),
        ("the first two masks", [1, 2]),
        ("the last two masks", [4, 5]),
        ("all masks so far together", [1, 2, 3, 4, 5]),
        ("Segment the structure from two rounds ago", [3, 4]),
    ],
)
def test_numbers_name_rounds_and_instances(prompt, instances):
    assert taken(prompt) == instances


@pytest.mark.parametrize(
    ("prompt", "instances"),
    [
        ("the previous result: show its lower pole", [5]),
        ("Based on the last round, segment the hilum", [5]),
        ("the one before, its tail", [5]),
        ("the round before last: the tail", [3, 4]),
        ("the last-but-one mask", [4]),
        ("Based on the first mask, segment the dome", [1]),
        ("From the third mask, the pylorus", [3]),
        ("tissue inside the mask", [5]),
        ("segment the fat between both", [4, 5]),
        ("Starting from what you just found, segment the hilum", [5]),
        ("next to the liver you found, the gland", [1]),
        ("the vessel behind the liver from before", [1]),
        ("Based on the liver, show the vein", [1]),
        ("segment the upper part of that kidney", [4]),
        ("the organ you found", [5]),
        ("What lies beside the thing you found in round 2?", [2]),
    ],
)
def test_places_and_names_point_back(prompt, instances):
    assert taken(prompt) == instances


@pytest.mark.parametrize(
    "prompt",
    [
        "segment its left part",
        "the gland on top of it",
        "Where is the vessel below that one?",
        "Show me the artery of this organ",
        "What lies there?",
        "In them, find the dark spot",
        "their borders",
        "the kidney on the same side",
        "Show me the other side",
        "segment the same organ again",
        "which organ stores the bile it makes?",
        "which organ lies below it?",
        "which organ lies on its left side?",
        "which vessel enters its hilum?",
        "which of its lobes is largest?",
        "the bowel that winds around its head",
        "the structure that is its neighbour",
        "the vein that takes its blood away",
        "the space that widens when it shrinks",
        "the point where it crosses the aorta",
        "the organ it drains into",
        "the organ between the liver and it",
        "Outline the organ whose duct joins it",
        "This is an abdominal CT. Segment its left lobe.",
        "Thanks. Now segment the vessel below it.",
        "Segment the vertebra at the level of its hilum",
    ],
)
def test_pronouns_are_the_latest_mask(prompt):
    assert taken(prompt) == [5]


@pytest.mark.parametrize(
    "prompt",
    [
        "Segment the stomach",
        "next to the liver",
        "Is it raining?",
        "which organ is the one into which the pancreas pours its juice?",
        "which organ sends its urine into the bladder?",
        "the organ that takes its blood from the aorta",
        "the organ that makes bile",
        "the organ that has a tumour in it",
        "there is a dark spot, segment the dark spot",
        "Is there a lesion in this image?",
        "segment the liver in this slice",
        "What part of this brain stores memories in this image?",
        "the round ligament",
        "the round one on the left",
        "a round 2 cm lesion",
        "the first part of the small intestine",
        "the second portion of the duodenum",
        "for instance, the liver",
        "the L2 vertebra",
        "the left one",
        "the fourth ventricle",
        "the mask of the liver",
        "Find the liver and outline it",
        "Segment the kidneys and their arteries",
        "Show the aorta if it is in this slice",
        "Segment the organ that makes bile. It also stores glycogen.",
        "Here is a CT. Segment the liver in it.",
        'Segment the organ of the sentence "its duct joins it"',
        "Which organ makes bile? Explain your answer.",
        "Segment all objects",
    ],
)
@pytest.mark.parametrize("rounds", [ROUNDS, ()], ids=["later", "first"])
def test_idioms_and_what_a_question_says_of_itself_refer_to_nothing(prompt, rounds):
    assert taken(prompt, rounds) == []


@pytest.mark.parametrize("split", ["train", "test"])
def test_questions_that_stand_alone_refer_to_nothing_and_want_a_mask(split):
    rng = random.Random(0)
    for _ in range(1000):
        organ = generate(rng.choice(ORGANS), rng=rng, split=split, wordings=ABDOMEN).text
        structure = generate(rng.choice(STRUCTURES), rng=rng, split=split).text
        for text in (organ, structure):
            resolution = resolve(text, ROUNDS)
            assert resolution.references == (), text
            assert resolution.wants_mask, text


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (
            "Based on round 7, segment it",
            "“round 7”: there is no round 7; .* rounds 1 to 5 .*“Segment the liver.”, instance 1",
        ),
        ("Based on round zero, segment it", "there is no round 0"),
        ("Based on instance 12, the tail", "there is no instance 12"),
        ("the third instance of round 4", "no instance 3"),
        ("Based on round 3, segment the head", "round 3 was answered in words"),
        ("the gallbladder you found", "no round asked for “gallbladder”"),
    ],
)
def test_what_is_not_there_is_refused_with_the_rounds_there_are(prompt, message):
    with pytest.raises(ValueError, match=message):
        resolve(prompt, ROUNDS)


@pytest.mark.parametrize("prompt", ["segment its left part", "the same organ", "the previous mask"])
def test_the_first_round_has_nothing_to_refer_to(prompt):
    with pytest.raises(ValueError, match=r"first round .* name what you mean"):
        resolve(prompt, ())


def test_a_word_for_one_does_not_choose_among_several_masks():
    with pytest.raises(ValueError, match="2 masks; say which, as in “instance 3”"):
        resolve("segment its left part", ROUNDS[:4])
    assert taken("segment their left parts", ROUNDS[:4]) == [3, 4]


def test_numbers_come_before_pronouns_and_text_rounds_are_passed_over():
    assert taken("Based on the output of round 2, segment its left part") == [2]
    assert taken("segment its left part", ROUNDS[:3]) == [2]
    with pytest.raises(ValueError, match="round 3 was answered in words"):
        resolve("based on the previous round, the duct", ROUNDS[:3])


def test_a_resolution_says_what_it_took_and_keeps_the_prompt():
    resolution = resolve("Segment the duct of its neighbour", ROUNDS)
    assert resolution.prompt == "Segment the duct of its neighbour"
    assert resolution.description == "“its” -> round 5, instance 5"
    assert resolution.references == (Reference(5, 5),)
    several = resolve("between rounds 1 and 5", ROUNDS).description
    assert several == "“rounds 1 and 5” -> round 1, instance 1, round 5, instance 5"


@pytest.mark.parametrize(
    "prompt",
    [
        "which organ stores bile?",
        "where is the spleen?",
        "what stores memories?",
        "what is above it?",
        "What is the organ below it?",
        "What does it drain into?",
        "What causes ataxia when damaged?",
        "What is inflamed in hepatitis?",
        "Is the liver in this slice?",
        "Is there a cyst in it?",
        "the organ below it",
        "right kidney",
        "Tell me where the liver is",
        "Can you show me how the liver lies here, and segment it?",
        "I would like to see the vein",
        "Where is the liver? Why is it big?",
        "What about the spleen?",
        "Based on the output of round 2 which organ is next?",
        "Explain how it works, then outline the duct",
    ],
)
def test_a_question_is_about_the_picture(prompt):
    assert wants_mask(prompt)


@pytest.mark.parametrize(
    "prompt",
    [
        "What does it do?",
        "Explain how the spleen works",
        "Why is it important?",
        "Is this a CT?",
        "Is it enlarged?",
        "Does the spleen contain fat?",
        "Thanks",
        "Hello!",
        "ok, great",
        "What is the spleen?",
        "What is the function of the spleen?",
        "What is this organ called?",
        "How big is it?",
        "can you tell me what it does?",
        "Tell me more about instance 2",
        "Based on the output of round 2, explain how it works.",
        "compare rounds 1 and 2",
        "Which disease does it have?",
        "I think the liver is too big.",
        "",
    ],
)
def test_words_are_plainly_asked_for(prompt):
    assert not wants_mask(prompt)


@pytest.mark.parametrize("prompt", ["What does it do?", "Why is its wall thick?", "Is it a CT?"])
def test_a_question_for_words_needs_no_mask_to_speak_of(prompt):
    assert taken(prompt, ()) == []
    assert taken(prompt, ROUNDS[:4]) == [3, 4]


def test_labels_must_fit_the_instances():
    with pytest.raises(ValueError, match="one for each of 2 instances, got 1"):
        RoundSummary(1, "the kidneys", (1, 2), ("the kidneys",))


WORDS = st.sampled_from(
    sorted(
        word_set(
            "the a round rounds instance mask output of 1 2 3 9 and , . ? its it that this "
            "one both previous last first second before segment which organ liver you found # "
            "- to same other there in between “ ” ' them what is does"
        )
    )
)
TEXTS = st.text(max_size=80) | st.lists(WORDS, max_size=14).map(" ".join)


@given(prompt=TEXTS, count=st.integers(0, 5))
def test_any_text_gives_masks_that_exist_or_a_value_error(prompt, count):
    rounds = ROUNDS[:count]
    try:
        references = resolve(prompt, rounds).references
    except ValueError:
        return
    assert set(references) <= {reference for each in rounds for reference in each.references}
    assert len(set(references)) == len(references)
    assert all(ROUND_OF[reference.instance] == reference.round for reference in references)
