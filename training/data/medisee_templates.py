"""Question and answer templates of MediSee's two training sources.

The released training script has four templates for class names, six for reasoning questions and
five answers for each. The two inference strings below are theirs; the other wordings are our own.
Text around a question ("[INST] ... [/INST]") is the prompt's matter.
"""

import random

SEG_TOKEN = "[SEG]"
BOX_TOKEN = "[BBOX]"
INFERENCE_ANSWER = "[SEG] and [BBOX]."
"""What is teacher-forced at inference; the mask path reads hidden states inside it."""
IMAGE_PREFIX = "<image>\n"
"""Comes before a training question. MediSee's evaluation adds a space after it."""

CLASS_QUESTIONS: tuple[str, ...] = (
    "Please segment and locate the {class_text} in this image.",
    "Where is the {class_text} in this image? Please give its mask and its bounding box.",
    "Can you segment the {class_text} in this image and mark it with a box?",
    "Find the {class_text} and output its segmentation mask and bounding box.",
)
"""Fields: class_text. The first is the one of inference."""

REASONING_QUESTIONS: tuple[str, ...] = (
    "{query} Please output segmentation mask and location bounding box, and explain why.",
    "{query} Please give the mask and the bounding box, with the reason.",
    "{query} Segment it, put a box around it, and say why.",
    "{query} Show the region and its box in this image and explain your answer.",
    "{query} Answer with a mask, a bounding box and an explanation.",
    "{query} Which region is it? Please segment, locate and explain.",
)
"""Fields: query. The first is the one of inference."""

CLASS_ANSWERS: tuple[str, ...] = (
    "[SEG] and [BBOX].",
    "Sure, [SEG] and [BBOX].",
    "It is [SEG] and [BBOX].",
    "The mask and the box are [SEG] and [BBOX].",
    "Here they are: [SEG] and [BBOX].",
)
"""No fields. The first is the one of inference."""

REASONING_ANSWERS: tuple[str, ...] = tuple(f"{a} {{explanation}}" for a in CLASS_ANSWERS)
"""Fields: explanation, which comes last so that the tokens before it are those of inference."""


def class_turn(class_text: str, rng: random.Random) -> tuple[str, str]:
    """Question and answer for a class name, which is lower-cased as in MediSee's training."""
    question = rng.choice(CLASS_QUESTIONS).format(class_text=class_text.lower())
    return question, rng.choice(CLASS_ANSWERS)


def reasoning_turn(query: str, explanation: str, rng: random.Random) -> tuple[str, str]:
    """Question and answer for a reasoning query, which is lower-cased as in MediSee's training."""
    question = rng.choice(REASONING_QUESTIONS).format(query=query.lower())
    return question, rng.choice(REASONING_ANSWERS).format(explanation=explanation)
