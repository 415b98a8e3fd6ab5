"""Conversations about one view, in which later questions refer to the masks of earlier ones.

After the recipe of MR-MedSeg (MediRound, section 3): the first round asks for a target by itself,
later ones for another by its relation to a mask the conversation already has. Relations come from
`training.data.relations`, the words that say which mask is meant from
`training.data.reference_phrases`. Every target asked for is present in the view.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from training.data.questions import (
    DROPPED_TEXT_SHARE,
    DROPPED_WORD_SHARE,
    LOWER_CASE_SHARE,
    NO_FINAL_MARK_SHARE,
    Split,
    drop_words,
)
from training.data.reference_phrases import referring_prompt
from training.data.relations import Link, Scenario, links
from training.data.views import TARGETS, question_about

ROUNDS = (2, 10)
"""Fewest and most rounds of a conversation."""
PLAIN_SHARE = 0.1
"""Share of later rounds that refer to nothing."""
LATEST_SHARE = 0.6
"""Share of referring rounds that go on from the latest mask, where it leads anywhere."""

_REQUESTS: dict[Split, tuple[str, ...]] = {
    "train": ("{it}", "segment {it}", "show me {it}", "find {it}", "where is {it}?"),
    "test": ("outline {it}", "please find and segment {it}", "could you locate {it}?"),
}
"""What is done with the target, which a relation names."""
_KEPT = {"left", "right", "above", "below", "other", "same", "on", "top"}
"""Words that a relation cannot do without."""


@dataclass(frozen=True)
class DialogueRound:
    """One round: a question with one mask as its answer."""

    prompt: str
    """What the user asks."""
    references: tuple[int, ...]
    """Numbers of the rounds whose masks it refers to, from 1; empty for a plain question."""
    target: int
    """Index into `training.data.views.TARGETS`."""
    scenario: Scenario | None
    """Kind of relation to the reference; None for a plain question."""


def dialogue(
    present: Tensor,
    masks: Tensor,
    rng: random.Random,
    split: Split,
    rounds: int | None = None,
    weights: Sequence[float] | None = None,
) -> list[DialogueRound]:
    """Draw a conversation about a view.

    Args:
        present: (30,) bool, at least one True, in the order of `TARGETS`.
        masks: (30, H, W) bool.
        rng: Source of all choices; an equal state gives an equal conversation.
        split: "train", or "test" for held-out wordings only.
        rounds: How many, 1 or more; None draws from `ROUNDS`.
        weights: (30,) weights to choose targets by, all alike when None.

    Returns:
        The rounds. A target not yet asked for is preferred; nothing is asked twice by the same
        relation to the same reference.

    Raises:
        ValueError: if the view shows no target, or fewer than one round is asked for.
    """
    shown = present.nonzero()[:, 0].tolist()
    if not shown:
        raise ValueError("present: expected at least one target in the view")
    count = rng.randint(*ROUNDS) if rounds is None else rounds
    if count < 1:
        raise ValueError(f"rounds: expected 1 or more, got {rounds}")
    weights = weights or [1.0] * len(TARGETS)
    all_links = links(present, masks)
    leading = sorted({link.reference for link in all_links})

    talk: list[DialogueRound] = []
    used: set[Link] = set()
    while len(talk) < count:
        number = len(talk) + 1
        last = number == count
        asked = [one.target for one in talk]
        open_links = [link for link in all_links if link.reference in asked and link not in used]
        if not open_links or rng.random() < PLAIN_SHARE:
            # A target that leads on is the better start, unless nothing comes after it.
            targets = [t for t in (shown if last else leading) if t not in asked] or shown
            talk.append(_plain(_weighted(targets, weights, rng), rng, split))
            continue
        link = _choose(open_links, asked, weights, rng)
        used.add(link)
        reference = max(i for i, target in enumerate(asked, start=1) if target == link.reference)
        talk.append(_referring(link, reference, number, rng, split))
    return talk


def _choose(
    open_links: list[Link], asked: list[int], weights: Sequence[float], rng: random.Random
) -> Link:
    """Narrow down to the latest mask, to new targets, to one scenario, one target, one relation."""
    if rng.random() < LATEST_SHARE:
        open_links = [link for link in open_links if link.reference == asked[-1]] or open_links
    open_links = [link for link in open_links if link.target not in asked] or open_links
    scenario = rng.choice(sorted({link.relation.scenario for link in open_links}))
    open_links = [link for link in open_links if link.relation.scenario == scenario]
    target = _weighted(sorted({link.target for link in open_links}), weights, rng)
    return rng.choice([link for link in open_links if link.target == target])


def _weighted(targets: list[int], weights: Sequence[float], rng: random.Random) -> int:
    return rng.choices(targets, [weights[target] for target in targets])[0]


def _plain(target: int, rng: random.Random, split: Split) -> DialogueRound:
    question = question_about(target, rng=rng, split=split)
    prompt = drop_words(question, rng) if split == "train" else question.text
    return DialogueRound(prompt, (), target, None)


def _referring(
    link: Link, reference: int, number: int, rng: random.Random, split: Split
) -> DialogueRound:
    wordings = link.relation.wordings
    target = _drop_words(rng.choice(wordings.train), rng) if split == "train" else wordings.held_out
    request = rng.choice(_REQUESTS[split]).format(it=target)
    # Every round has one mask, so instances are numbered as rounds are.
    latest = reference == number - 1
    prompt = rng.choice(
        referring_prompt(
            request, round=reference, instance=reference, latest=latest, rng=rng, split=split
        )
    )
    if rng.random() < NO_FINAL_MARK_SHARE:
        prompt = prompt.rstrip("?.")
    if rng.random() < LOWER_CASE_SHARE:
        prompt = prompt.lower()
    return DialogueRound(prompt, (reference,), link.target, link.relation.scenario)


def _drop_words(target: str, rng: random.Random) -> str:
    """Leave words out at random, as `questions.drop_words` does, but none a relation turns on."""
    if rng.random() > DROPPED_TEXT_SHARE:
        return target
    words = target.split()
    kept = [word for word in words if word in _KEPT or rng.random() > DROPPED_WORD_SHARE]
    return " ".join(kept or words[-1:])
