"""Questions about an abdominal slice that nothing in it can answer.

Three kinds, after Organ-Seg's claim to refuse a false premise: organs of another region, things
that are no organ at all, and (drawn elsewhere, from `training.data.organs`) organs of the abdomen
that this slice does not show. Subjects and wordings of the test split are never met in training.
"""

import random
from typing import Literal

from training.data.questions import Split

Subject = Literal["elsewhere", "unrelated"]

_ELSEWHERE: dict[Split, tuple[str, ...]] = {
    "train": (
        "the hippocampus",
        "the cerebellum",
        "the thalamus",
        "the frontal lobe",
        "the pituitary gland",
        "the optic nerve",
        "the eye ball",
        "the left lens of the eye",
        "the parotid gland",
        "the tonsils",
        "the larynx",
        "the heart",
        "the left ventricle",
        "the mitral valve",
        "the lungs",
        "the right upper lobe of the lung",
        "the trachea",
        "the thymus",
        "the breast",
        "the prostate",
        "the uterus",
        "the ovaries",
        "the rectum",
        "the femur",
        "the hip joint",
        "the knee joint",
        "the anterior cruciate ligament",
        "the meniscus",
        "the ankle",
        "the shoulder blade",
        "the biceps muscle",
        "the wrist bones",
    ),
    "test": (
        "the brain stem",
        "the thyroid gland",
        "the urinary bladder",
        "the patella",
        "the inner ear",
        "the testes",
        "the tongue",
        "the left atrium",
    ),
}

_ELSEWHERE_FACTS: dict[Split, tuple[str, ...]] = {
    "train": (
        "consolidates memories",
        "keeps the body in balance",
        "pumps the blood through the body",
        "takes up oxygen from the air",
        "makes the thyroid hormones",
        "makes sperm",
        "carries an unborn child",
        "forms the image of what we see",
        "bends the knee",
        "makes tears",
        "stabilises the knee joint",
        "gives us our voice",
    ),
    "test": (
        "stores the urine",
        "beats in the chest",
        "hears sounds",
        "tastes food",
        "breathes",
    ),
}

_UNRELATED: dict[Split, tuple[str, ...]] = {
    "train": (
        "What is the weather like today?",
        "Tell me a joke.",
        "Who won the football match?",
        "Where is my car?",
        "Segment the dog on the sofa.",
        "Find the red bicycle.",
        "How do I bake bread?",
        "Please book a flight.",
        "What is the capital of France?",
        "Show me the traffic light.",
        "Write a poem about the sea.",
        "Which train goes to the airport?",
        "Translate this sentence.",
        "How much does a house cost?",
        "What time is it?",
        "Outline the tree in the garden.",
        "Play some music.",
        "lorem ipsum dolor sit amet",
        "asdf qwer",
        "blue seven window quickly",
    ),
    "test": (
        "Will it rain tomorrow?",
        "Please tell me a story.",
        "Where is the cat in this image?",
        "How do I cook rice?",
        "Find the yellow bus.",
        "What is the capital of Japan?",
        "xyzzy plugh",
        "green idea chair slowly",
    ),
}

_ASKED: dict[Split, tuple[str, ...]] = {
    "train": ("Segment {the}.", "Where is {the}?", "{the}", "Show me {the}.", "Outline {the}."),
    "test": ("Could you locate {the} in this image?", "Where can I see {the}?"),
}

_ASKED_FACT: dict[Split, tuple[str, ...]] = {
    "train": ("Which organ {fact}?", "Segment the organ that {fact}.", "Where is what {fact}?"),
    "test": ("Please find the organ that {fact}.", "What in this image {fact}?"),
}


def false_premise(rng: random.Random, split: Split, subject: Subject | None = None) -> str:
    """Draw one question that has no answer in any abdominal slice.

    Args:
        rng: Source of all choices.
        split: "train", or "test" for subjects and wordings held out.
        subject: What it asks for; None draws it, "elsewhere" three times of four.
    """
    if subject is None:
        subject = "elsewhere" if rng.random() < 0.75 else "unrelated"
    if subject == "unrelated":
        text = rng.choice(_UNRELATED[split])
    elif rng.random() < 0.7:
        text = rng.choice(_ASKED[split]).format(the=rng.choice(_ELSEWHERE[split]))
    else:
        text = rng.choice(_ASKED_FACT[split]).format(fact=rng.choice(_ELSEWHERE_FACTS[split]))
    return text[0].upper() + text[1:]
