"""Questions about brain structures with explanatory answers, after the recipe of MLMR-SD.

MediSee's MLMR-SD dataset asks for one object by its attributes or by its location, long or short,
with an explanation each (section 3 of the paper; there a large language model writes them). Here a
seeded generator puts the facts of `training.data.structures` into templates, beside direct
questions by name. Templates, contexts and one wording of every fact are held out: the test split
uses only those. Which of the structures an image shows is the caller's business.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from training.data.structures import Fact, Structure
from training.data.structures import structure as find_structure

Split = Literal["train", "test"]
Kind = Literal["direct", "attribute", "location"]
Length = Literal["short", "long"]

KINDS: tuple[Kind, ...] = ("direct", "attribute", "location")
LENGTHS: tuple[Length, ...] = ("short", "long")
KIND_WEIGHTS = (0.3, 0.4, 0.3)
"""Shares of the kinds where none is asked for."""
LOWER_CASE_SHARE = 0.35
"""Share of questions written all in lower case; users type so."""
NO_FINAL_MARK_SHARE = 0.25
"""Share of questions without the final question mark or full stop."""
REQUEST_SHARE = 0.15
"""Share of attribute and location questions that end with `REASONING_REQUEST`."""
DROPPED_TEXT_SHARE, DROPPED_WORD_SHARE = 0.6, 0.2
"""`drop_words`: share of questions that lose words, and of their words that are lost."""
REASONING_REQUEST = "Please output segmentation mask and location bounding box, and explain why."
"""What MediSee appends to every reasoning question at inference."""


@dataclass(frozen=True)
class Question:
    """One question about one structure and its answer in words."""

    text: str
    """What the user asks; never empty."""
    kind: Kind
    """Asked by name (direct), by attribute or by location."""
    length: Length
    """Long ones carry a sentence of context or a second fact."""
    structure: Structure
    """The one structure that is asked for."""
    explanation: str
    """One or two sentences after the name: "The hippocampus. It ..."."""


@dataclass(frozen=True)
class Wordings:
    """Templates of one region's questions, those of each split apart."""

    direct: dict[Split, tuple[str, ...]]
    """With `{the}`, a name with its article, or `{name}`, the same without."""
    reasoning: dict[Split, tuple[str, ...]]
    """With `{fact}`."""
    two_facts: dict[Split, tuple[str, ...]]
    """With `{fact}` and `{other}`."""
    contexts: dict[Split, tuple[str, ...]]
    """Sentences to put before a question."""


_DIRECT: dict[Split, tuple[str, ...]] = {
    "train": (
        "{the}",
        "{name}",
        "Please segment and locate the {name} in this image.",
        "Please segment and locate {the} in this image.",
        "Segment {the}.",
        "Where is {the}?",
        "Show me {the}.",
        "Find {the} in this image.",
        "Can you segment {the}?",
        "Outline {the}, please.",
        "I want to see {the}.",
    ),
    "test": (
        "Could you locate {the} in this image?",
        "Please find and outline {the} here.",
        "Where can I see {the}?",
        "I want you to segment {the}.",
    ),
}

_REASONING: dict[Split, tuple[str, ...]] = {
    "train": (
        "Which structure {fact}?",
        "Which part of the brain {fact}?",
        "Which region {fact}?",
        "Which brain region {fact}?",
        "Which area in this image {fact}?",
        "What structure in this image {fact}?",
        "What part of the brain {fact}?",
        "Where is the structure that {fact}?",
        "Where in this image is the region that {fact}?",
        "Can you show me the part that {fact}?",
        "Could you segment the structure which {fact}?",
        "Segment the part of the brain that {fact}.",
        "Please segment the structure that {fact}.",
        "Find the region which {fact}.",
        "Locate the structure that {fact}.",
        "Show me what {fact}.",
        "I want to see the part of the brain that {fact}.",
    ),
    "test": (
        "Which of the structures here {fact}?",
        "Where can I see the region which {fact}?",
        "Please find and segment the brain region that {fact}.",
        "What in this image {fact}?",
        "Could you locate the part that {fact}?",
        "I want you to show me the structure that {fact}.",
    ),
}

_TWO_FACTS: dict[Split, tuple[str, ...]] = {
    "train": (
        "Which structure {fact} and also {other}?",
        "Segment the part of the brain that {fact}. It also {other}.",
        "Where is the region that {fact} and that {other}?",
    ),
    "test": (
        "Please locate the structure that {fact} and that also {other}.",
        "What part of this brain {fact}? It also {other}.",
    ),
}

_CONTEXTS: dict[Split, tuple[str, ...]] = {
    "train": (
        "This is a brain MRI.",
        "This is a T1 image of the head.",
        "Here is a slice of a healthy brain.",
        "I am a student of anatomy and look at this image.",
        "I am not a doctor and do not know the name.",
        "My teacher asked me about this slice.",
    ),
    "test": (
        "Here is a T1 slice of the head.",
        "I am not a student of anatomy.",
        "My doctor asked me to look at this brain image.",
    ),
}

BRAIN = Wordings(_DIRECT, _REASONING, _TWO_FACTS, _CONTEXTS)
"""Questions about the structures of `training.data.structures`."""


def _explain(structure: Structure, first: Fact, second: Fact, rng: random.Random) -> str:
    name = structure.synonyms[0].capitalize()
    one, two, it = first.train[0], second.train[0], structure.pronoun
    if rng.random() < 0.75:
        return f"{name}. {it} {one} and {two}."
    return f"{name}. {it} {one}. {it} {two}."


def _wording(fact: Fact, split: Split, rng: random.Random) -> str:
    return fact.held_out if split == "test" else rng.choice(fact.train)


def _direct_body(structure: Structure, wordings: Wordings, split: Split, rng: random.Random) -> str:
    the = rng.choice(structure.synonyms)
    body = rng.choice(wordings.direct[split]).format(the=the, name=the.removeprefix("the "))
    return body[0].upper() + body[1:]


def _reasoning_body(fact: Fact, wordings: Wordings, split: Split, rng: random.Random) -> str:
    return rng.choice(wordings.reasoning[split]).format(fact=_wording(fact, split, rng))


def _two_fact_body(
    fact: Fact, facts: Sequence[Fact], wordings: Wordings, split: Split, rng: random.Random
) -> str:
    other = rng.choice([f for f in facts if f is not fact])
    return rng.choice(wordings.two_facts[split]).format(
        fact=_wording(fact, split, rng), other=_wording(other, split, rng)
    )


def drop_words(question: Question, rng: random.Random) -> str:
    """Text of a question with words left out at random, against learning sentences by heart.

    With two wordings of every fact, a model that must do without any one word learns to go by all
    of them, and so answers wordings it never met. Names are left whole ("brain" is not the brain
    stem), so direct questions stay as they are; at least one word of the others stays.
    """
    if question.kind == "direct" or rng.random() > DROPPED_TEXT_SHARE:
        return question.text
    words = question.text.split()
    kept = [word for word in words if rng.random() > DROPPED_WORD_SHARE]
    return " ".join(kept or words[-1:])


def generate(
    structure: Structure | str | int,
    *,
    rng: random.Random,
    split: Split,
    kind: Kind | None = None,
    length: Length | None = None,
    wordings: Wordings = BRAIN,
) -> Question:
    """Draw one question about a structure.

    Args:
        structure: the structure, its canonical name or its id (1 to 16).
        rng: source of all choices; an equal state gives an equal question.
        split: "train", or "test" for held-out templates and wordings only.
        kind: direct, attribute or location; drawn with `KIND_WEIGHTS` when None.
        length: short or long; drawn evenly when None.
        wordings: templates of the structure's region.

    Returns:
        The question with its explanation.

    Raises:
        KeyError: if there is no such structure.
        ValueError: if split, kind or length is none of the above.
    """
    if not isinstance(structure, Structure):
        structure = find_structure(structure)
    if split not in ("train", "test"):
        raise ValueError(f"split: expected 'train' or 'test', got {split!r}")
    if kind is None:
        kind = rng.choices(KINDS, KIND_WEIGHTS)[0]
    elif kind not in KINDS:
        raise ValueError(f"kind: expected one of {KINDS} or None, got {kind!r}")
    length = length or rng.choice(LENGTHS)
    if length not in LENGTHS:
        raise ValueError(f"length: expected one of {LENGTHS} or None, got {length!r}")

    attribute, location = structure.attributes[0], structure.locations[0]
    if kind == "direct":
        first, second = attribute, location
        body = _direct_body(structure, wordings, split, rng)
        in_context = length == "long"
    else:
        facts = structure.attributes if kind == "attribute" else structure.locations
        first = rng.choice(facts)
        second = location if kind == "attribute" else attribute
        in_context = length == "long" and rng.random() < 0.6
        if length == "long" and not in_context:
            body = _two_fact_body(first, facts, wordings, split, rng)
        else:
            body = _reasoning_body(first, wordings, split, rng)

    if in_context:
        body = f"{rng.choice(wordings.contexts[split])} {body}"
    if kind != "direct" and rng.random() < REQUEST_SHARE:
        body = f"{body} {REASONING_REQUEST}"
    elif rng.random() < NO_FINAL_MARK_SHARE:
        body = body.rstrip("?.")
    if rng.random() < LOWER_CASE_SHARE:
        body = body.lower()
    return Question(body, kind, length, structure, _explain(structure, first, second, rng))
