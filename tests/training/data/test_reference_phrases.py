import random
import re

import pytest

from serving.references.resolver import resolve
from serving.references.rounds import RoundSummary
from training.data.reference_phrases import referring_prompt

REQUESTS = (
    "segment the gland on top of it",
    "which organ stores the bile it makes?",
    "the organ below it",
    "segment its left part",
    "Where is the organ that touches its lower border?",
    "outline the duct that drains it",
    "what lies next to it?",
    "which part of it lies nearest to the spine?",
    "segment the lesion inside",
)


def conversation(rng):
    rounds, instance = [], 0
    for number in range(1, rng.randint(2, 9)):
        if number > 1 and rng.random() < 0.15:
            rounds.append(RoundSummary(number, "What does it do?"))
            continue
        instance += 1
        rounds.append(RoundSummary(number, "the liver", (instance,), ("the liver",)))
    return rounds


def prompts(split, count=1500):
    rng = random.Random(0)
    for _ in range(count):
        rounds = conversation(rng)
        asked = rng.choice([each for each in rounds if each.instances])
        # "The previous round" is the one before, whether it has a mask or not.
        latest = asked is rounds[-1]
        for prompt in referring_prompt(
            rng.choice(REQUESTS),
            round=asked.number,
            instance=asked.instances[0],
            latest=latest,
            rng=rng,
            split=split,
        ):
            yield prompt, rounds, asked.references


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_resolver_reads_what_a_phrase_refers_to(split):
    right = []
    for prompt, rounds, references in prompts(split):
        try:
            right.append(resolve(prompt, rounds).references == references)
        except ValueError:
            right.append(False)
    assert sum(right) / len(right) >= 0.97


def test_each_strategy_of_the_paper_is_used():
    rng = random.Random(0)
    phrases = [
        referring_prompt(
            "segment its wall", round=4, instance=3, latest=True, rng=rng, split="train"
        )
        for _ in range(100)
    ]
    by_round, by_instance, alone = zip(*phrases, strict=True)
    assert all(re.search(r"round 4|fourth round", prompt) for prompt in by_round)
    assert all(re.search(r"(?:instance|mask|object) 3", prompt) for prompt in by_instance)
    assert not any(re.search(r"[0-9]", prompt) for prompt in alone)
    assert "Segment its wall." in alone


def test_an_earlier_mask_is_never_referred_to_without_a_number():
    phrases = referring_prompt(
        "segment its wall", round=1, instance=1, latest=False, rng=random.Random(0), split="test"
    )
    assert len(phrases) == 2


def test_no_test_wording_is_a_training_wording():
    def wordings(split):
        return {re.sub(r"\W|[0-9]", "", prompt.lower()) for prompt, *_ in prompts(split)}

    alone = {re.sub(r"\W", "", request.lower()) for request in REQUESTS}
    assert wordings("train") & wordings("test") <= alone | {"segment" + each for each in alone}


@pytest.mark.parametrize(
    "request_text", ["segment its wall", "Segment its wall.", " segment its wall "]
)
def test_a_request_is_one_sentence_with_its_mark(request_text):
    for split in ("train", "test"):
        for prompt in referring_prompt(
            request_text, round=2, instance=2, latest=True, rng=random.Random(3), split=split
        ):
            assert prompt[0].isupper()
            assert re.fullmatch(r"[^.?]+\.", prompt)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"request": " "}, "request: expected what is asked for"),
        ({"round": 0}, "round: expected a number from 1 to 12, got 0"),
        ({"instance": 13}, "instance: expected a number from 1 to 12, got 13"),
    ],
)
def test_what_cannot_be_worded_is_refused(change, message):
    arguments = {"request": "segment it", "round": 1, "instance": 1} | change
    with pytest.raises(ValueError, match=message):
        referring_prompt(
            arguments.pop("request"), **arguments, latest=True, rng=random.Random(0), split="train"
        )
