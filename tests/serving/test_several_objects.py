import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.references.wording import word_set
from serving.several_objects import MOST_OBJECTS, split_objects
from training.data.false_premises import false_premise
from training.data.organ_questions import ABDOMEN, two_organs_question
from training.data.organs import ORGANS
from training.data.questions import generate
from training.data.structures import STRUCTURES


@pytest.mark.parametrize(
    ("prompt", "questions"),
    [
        ("Segment the stomach and the liver.", ["Segment the stomach.", "Segment the liver."]),
        ("liver, spleen and pancreas", ["liver", "spleen", "pancreas"]),
        ("liver, spleen", ["liver", "spleen"]),
        ("The liver & the spleen", ["The liver", "the spleen"]),
        ("Where are the aorta and the IVC?", ["Where is the aorta?", "Where is the IVC?"]),
        (
            "Where are the kidneys and the pancreas?",
            ["Where are the kidneys?", "Where is the pancreas?"],
        ),
        ("Show me the liver and also the spleen", ["Show me the liver", "Show me the spleen"]),
        (
            "Please outline both the left kidney and the gallbladder.",
            ["Please outline the left kidney.", "Please outline the gallbladder."],
        ),
        ("the left and right kidney", ["the left kidney", "the right kidney"]),
        ("Mark the left and the right kidneys", ["Mark the left kidney", "Mark the right kidney"]),
        ("Segment its left and right lobes", ["Segment its left lobe", "Segment its right lobe"]),
        (
            "which organ stores bile and which one makes it?",
            ["which organ stores bile?", "which organ makes bile?"],
        ),
        (
            "Where is the liver and where is the spleen?",
            ["Where is the liver?", "Where is the spleen?"],
        ),
        (
            "Segment the liver, the spleen, and the aorta in this CT, please.",
            [f"Segment the {name} in this CT, please." for name in ("liver", "spleen", "aorta")],
        ),
        (
            "This is a CT. Segment the liver and spleen.",
            ["This is a CT. Segment the liver.", "This is a CT. Segment the spleen."],
        ),
        (
            "Segment the liver. Then show me the spleen.",
            ["Segment the liver.", "Then show me the spleen."],
        ),
        ("Find the liver and outline the spleen.", ["Find the liver.", "outline the spleen."]),
        (
            "Segment the organ that makes bile and the organ that stores it.",
            ["Segment the organ that makes bile.", "Segment the organ that stores it."],
        ),
        (
            "Segment the liver and the organ that stores bile.",
            ["Segment the liver.", "Segment the organ that stores bile."],
        ),
        (
            "Based on the output of rounds 1 and 3, segment the duct and the vein.",
            [
                "Based on the output of rounds 1 and 3, segment the duct.",
                "Based on the output of rounds 1 and 3, segment the vein.",
            ],
        ),
        (
            "Segment the duct and the vein, based on the output of round 2.",
            [
                "Segment the duct, based on the output of round 2.",
                "Segment the vein, based on the output of round 2.",
            ],
        ),
        (
            "the gland on top of it and the vein below it",
            ["the gland on top of it", "the vein below it"],
        ),
        (
            "Show me the liver and its vessels.",
            ["Show me the liver.", "Show me the vessels of the liver."],
        ),
        (
            "Segment the head and the tail of the pancreas.",
            ["Segment the head of the pancreas.", "Segment the tail of the pancreas."],
        ),
        (
            "Are the liver and the spleen in this slice?",
            ["Is the liver in this slice?", "Is the spleen in this slice?"],
        ),
        (
            "the left and right thalamus and the putamen",
            ["the left and right thalamus", "the putamen"],
        ),
        (
            "Thanks, now the stomach and the duodenum",
            ["Thanks, now the stomach", "Thanks, now the duodenum"],
        ),
    ],
)
def test_every_object_gets_its_question(prompt, questions):
    assert split_objects(prompt) == questions


@pytest.mark.parametrize(
    "prompt",
    [
        "Segment the organ that makes albumin and stores glycogen.",
        "Segment the cerebrum, the cerebellum and the brain stem together.",
        "Which organ makes bile and also filters blood?",
        "Which structure has the lateral and the medial geniculate nuclei?",
        "Show me what has the lateral and the medial geniculate nuclei",
        "Segment the head and neck",
        "Segment the part of the brain that is made of white matter and axons",
        "the gastric lumen and wall",
        "the left and right thalamus",
        "Please find and outline the liver here.",
        "Based on the output of rounds 1 and 3, segment the duct",
        "Segment the space between instances 2 and 3",
        "Segment the organ between the liver and the stomach.",
        "Segment the organ behind the liver and below the diaphragm.",
        "Segment the liver, the largest organ of the abdomen.",
        "Segment the liver and explain why.",
        "Segment the liver and outline it.",
        "Find the liver. Outline it.",
        "Segment the liver or the spleen",
        "Segment everything but the liver and the spleen",
        "Segment the small and bright spot",
        "I am a student and look at this image.",
        "What is the function of the liver and the spleen?",
        "",
        " and ",
    ],
)
def test_one_object_stays_one_question(prompt):
    assert split_objects(prompt) == [prompt]


@pytest.mark.parametrize("split", ["train", "test"])
def test_questions_about_one_object_stay_whole(split):
    rng = random.Random(0)
    for _ in range(2000):
        for prompt in (
            generate(rng.choice(ORGANS), rng=rng, split=split, wordings=ABDOMEN).text,
            generate(rng.choice(STRUCTURES), rng=rng, split=split).text,
            false_premise(rng, split),
        ):
            assert split_objects(prompt) == [prompt]


@pytest.mark.parametrize("split", ["train", "test"])
def test_questions_about_two_organs_name_one_in_each_part(split):
    rng = random.Random(0)
    for _ in range(2000):
        organs = rng.sample(ORGANS, 2)
        prompt = two_organs_question(*organs, rng=rng, split=split).text
        parts = split_objects(prompt)
        assert len(parts) == 2, prompt
        for organ, part in zip(organs, parts, strict=True):
            assert any(name.lower() in part.lower() for name in organ.synonyms), prompt


def test_too_many_objects_are_refused():
    names = [f"the {organ.name}" for organ in ORGANS[: MOST_OBJECTS + 1]]
    assert len(split_objects("Segment " + " and ".join(names[:-1]))) == MOST_OBJECTS
    with pytest.raises(ValueError, match="at most 8 objects, got 9; ask for the others"):
        split_objects("Segment " + " and ".join(names))


WORDS = st.sampled_from(
    sorted(
        word_set(
            "the a both left right liver spleen and , & also segment show me where are is "
            "which organ that makes it its of between head . ? in this image please 2 round"
        )
    )
)


@given(st.text(max_size=80) | st.lists(WORDS, max_size=14).map(" ".join))
def test_any_text_gives_questions_or_a_value_error(prompt):
    try:
        questions = split_objects(prompt)
    except ValueError:
        return
    assert questions == [prompt] or 2 <= len(questions) <= MOST_OBJECTS
    assert all(question.strip() for question in questions) or questions == [prompt]
