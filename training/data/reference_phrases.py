"""Wordings by which a question refers to the mask of an earlier round.

MR-MedSeg uses three strategies (MediRound, section D.1): "based on ... the output of round N",
"based on ... instance N", and, for the round just before, "its ..." alone. Wordings of the test
split are held out: they were written after the resolver's rules.
"""

import random
import re
from dataclasses import dataclass

from training.data.questions import Split

SUBSTITUTED_SHARE = 0.3
"""Share of prompts that name the mask where the request says "it", rather than in front."""

_NUMBERS = (
    ("one", "first"),
    ("two", "second"),
    ("three", "third"),
    ("four", "fourth"),
    ("five", "fifth"),
    ("six", "sixth"),
    ("seven", "seventh"),
    ("eight", "eighth"),
    ("nine", "ninth"),
    ("ten", "tenth"),
    ("eleven", "eleventh"),
    ("twelve", "twelfth"),
)


@dataclass(frozen=True)
class _Phrases:
    """Wordings of one strategy.

    With `{request}`, or `{Request}` where it opens the sentence; `{n}`, `{word}` and `{nth}` are
    the number of the round or of the instance.
    """

    sentences: tuple[str, ...]
    names: tuple[str, ...]
    """What can stand for "it"."""


_BY_ROUND: dict[Split, _Phrases] = {
    "train": _Phrases(
        (
            "Based on the output of round {n}, {request}",
            "Referring to the output of round {n}, {request}",
            "Given the result of round {n}, {request}",
            "Using the mask from round {n}, {request}",
            "According to the segmentation of round {n}, {request}",
            "From the result of the {nth} round, {request}",
            "{Request}, based on the output of round {n}",
        ),
        ("the output of round {n}", "the mask of round {n}"),
    ),
    "test": _Phrases(
        (
            "Taking round {n}'s output as a starting point, {request}",
            "Starting from what round {n} gave, {request}",
            "With the mask of round {n} in mind, {request}",
            "Building on the answer to round {word}, {request}",
            "Look at the {nth} result: {request}",
            "Considering the structure segmented in round {n}, {request}",
            "With respect to the {nth} round's answer, {request}",
            "In relation to result {n}, {request}",
            "{Request}, relative to the output of round #{n}",
            "{Request} (see round {n})",
        ),
        ("what you outlined in round {n}", "the result of the {nth} round"),
    ),
}
_BY_INSTANCE: dict[Split, _Phrases] = {
    "train": _Phrases(
        (
            "Based on instance {n}, {request}",
            "Referring to instance {n}, {request}",
            "Given instance {n}, {request}",
            "Using mask {n}, {request}",
            "With reference to object {n}, {request}",
            "{Request}, based on instance {n}",
        ),
        ("instance {n}", "object {n}"),
    ),
    "test": _Phrases(
        (
            "Considering instance {n}, {request}",
            "In relation to instance number {n}, {request}",
            "Take object {n}: {request}",
            "With instance {word} as the reference, {request}",
            "Starting from the {nth} mask, {request}",
            "Relative to segmentation {n}, {request}",
            "{Request}, with respect to instance {n}",
            "{Request} (I mean instance {n})",
        ),
        ("mask number {n}", "the {nth} instance"),
    ),
}
_BY_LATEST: dict[Split, _Phrases] = {
    "train": _Phrases(
        (
            "Based on the previous result, {request}",
            "From the last mask, {request}",
            "Given the output of the previous round, {request}",
        ),
        ("that one", "this structure"),
    ),
    "test": _Phrases(
        (
            "Building on your last answer, {request}",
            "Considering the most recent segmentation, {request}",
            "Starting from what you just found, {request}",
            "Staying with the preceding round, {request}",
            "Going on from the one before, {request}",
            "With the latest mask as reference, {request}",
        ),
        ("that organ", "the structure you just outlined"),
    ),
}
_ALONE: dict[Split, tuple[str, ...]] = {
    "train": ("{Request}", "{Request}", "Now {request}", "Next, {request}"),
    "test": ("And {request}", "Okay, {request}", "So {request}", "{Request}"),
}
"""Around a request whose "it" or "its" is all that refers back."""

_PRONOUN = re.compile(r"\b(its|it)\b", re.IGNORECASE)
_NAME_ALONE = re.compile(r"(?:the|its|an?)\b", re.IGNORECASE)
_QUESTION = re.compile(r"(?:which|what|where|who|is|are|can|could|do|does)\b", re.IGNORECASE)


def referring_prompt(
    request: str,
    *,
    round: int,
    instance: int,
    latest: bool,
    rng: random.Random,
    split: Split,
) -> tuple[str, ...]:
    """Word a request so that it refers to one earlier mask, once by each strategy.

    Args:
        request: What is asked, relative to the mask: "segment the gland on top of it", "which organ
            stores the bile it makes?", or the name alone, "the organ below it".
        round: Number of the round that gave the mask, 1 to 12; it gave no other.
        instance: Number of the mask, 1 to 12.
        latest: Whether no later round gave a mask.
        rng: Source of all choices.
        split: "train", or "test" for held-out wordings only.

    Returns:
        By the round's number, by the instance's number and, where it is the latest, without one.

    Raises:
        ValueError: if the request is blank or a number out of range.
    """
    if not request.strip():
        raise ValueError("request: expected what is asked for, got blank text")
    for name, number in (("round", round), ("instance", instance)):
        if not 1 <= number <= len(_NUMBERS):
            raise ValueError(f"{name}: expected a number from 1 to {len(_NUMBERS)}, got {number}")
    prompts = [
        _worded(request, _BY_ROUND[split], round, rng),
        _worded(request, _BY_INSTANCE[split], instance, rng),
    ]
    if latest and _PRONOUN.search(request) and rng.random() < 0.5:
        prompts.append(_filled(rng.choice(_ALONE[split]), request, round))
    elif latest:
        prompts.append(_worded(request, _BY_LATEST[split], round, rng))
    return tuple(prompts)


def _worded(request: str, phrases: _Phrases, number: int, rng: random.Random) -> str:
    if len(_PRONOUN.findall(request)) == 1 and rng.random() < SUBSTITUTED_SHARE:
        name = rng.choice(phrases.names)
        named = _PRONOUN.sub(lambda m: f"{name}'s" if m[0].lower() == "its" else name, request)
        return _filled("{Request}", _numbered(named, number), number)
    return _filled(rng.choice(phrases.sentences), request, number)


def _filled(template: str, request: str, number: int) -> str:
    request = request.strip().rstrip(".?!")
    mark = "?" if _QUESTION.match(request) else "."
    request = request[0].lower() + request[1:]
    if _NAME_ALONE.match(request) and template != "{Request}":
        request = f"segment {request}"
    text = _numbered(template, number)
    text = text.replace("{request}", request).replace("{Request}", request[0].upper() + request[1:])
    return text + mark


def _numbered(text: str, number: int) -> str:
    word, nth = _NUMBERS[number - 1]
    return text.replace("{n}", str(number)).replace("{word}", word).replace("{nth}", nth)
