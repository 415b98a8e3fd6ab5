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
        "the spinal cord",
        "the lips",
        "the teeth",
        "the nose",
        "the skull",
        "the jaw",
        "the retina",
        "the cornea",
        "the cochlea",
        "the eardrum",
        "the epiglottis",
        "the vocal cords",
        "the bronchi",
        "the right ventricle",
        "the right atrium",
        "the aortic valve",
        "the coronary arteries",
        "the sternum",
        "the collar bone",
        "the ribs",
        "the elbow",
        "the thumb",
        "the urethra",
        "the vagina",
        "the scrotum",
        "the anus",
        "the appendix",
        "the thigh muscles",
        "the Achilles tendon",
        "the skin",
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
        "smells odours",
        "chews the food",
        "is where teeth grow",
        "moves the air in and out of the chest",
        "lies between the lungs",
        "sends blood into the lungs",
        "has four chambers and valves",
        "shuts when food is swallowed",
        "grows in pregnancy",
        "gives milk to a baby",
        "makes egg cells",
        "lies below the prostate",
        "lets the urine out of the body",
        "turns sound into nerve signals",
        "focuses light on the retina",
        "keeps the eye wet",
        "bends the elbow",
        "lifts the arm",
        "straightens the leg",
        "carries the weight of the body on the foot",
        "protects the brain",
        "plans movements",
        "tells us where we are in space",
        "sets the rhythm of sleep",
        "makes growth hormone",
        "grows hair",
        "sweats in the heat",
        "makes red blood cells",
        "can be broken when skiing",
        "is pierced for an earring",
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
        "Who wrote this book?",
        "When does the shop open?",
        "Find the blue car.",
        "Segment the horse in the field.",
        "Where is the dog in this picture?",
        "Show me the green bottle.",
        "How do I get to the station?",
        "How do I wash a shirt?",
        "What is the capital of Spain?",
        "What is the price of gold?",
        "Please sing a song.",
        "Please tell me the news.",
        "Will it snow on Monday?",
        "Is it cold outside?",
        "red cloud table slowly",
        "one two three four",
        "foo bar baz",
        "qwzx plok",
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
    "train": (
        "Segment {the}.",
        "Where is {the}?",
        "{the}",
        "Show me {the}.",
        "Outline {the}.",
        "Find {the}.",
        "Highlight {the} in this image.",
        "I am looking for {the}.",
        "Is {the} in this slice?",
    ),
    "test": ("Could you locate {the} in this image?", "Where can I see {the}?"),
}

_ASKED_FACT: dict[Split, tuple[str, ...]] = {
    "train": (
        "Which organ {fact}?",
        "Segment the organ that {fact}.",
        "Where is what {fact}?",
        "Which one {fact}?",
        "Show me what {fact}.",
        "Find the organ which {fact}.",
        "What in this slice {fact}?",
        "I want to see the organ that {fact}.",
    ),
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
