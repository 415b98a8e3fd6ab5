"""How good Organ-Seg's answers are: organs found and outlined, false premises refused.

Bodies and wordings are those training never saw, as are the subjects of irrelevant questions. Every
organ is asked for equally often where it is shown; the absent ones are drawn from those that the
same slice lacks, so never the aorta or the inferior vena cava, which run through every slice.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from saymask import Client

from training.data.false_premises import false_premise
from training.data.organ_questions import ABDOMEN
from training.data.organs import ORGANS, Organ
from training.data.phantom_views import PhantomSampler, PhantomViewConfig
from training.data.questions import generate
from training.data.slices import Slice
from training.metrics import MaskMetrics

SEED = 21_000


@dataclass(frozen=True)
class Case:
    """One question about one held-out slice."""

    view: Slice
    text: str
    organ: Organ | None
    """None: the question is irrelevant."""
    shown: bool
    """Whether the slice shows the organ."""


def cases(per_organ: int) -> Iterator[Case]:
    """Held-out cases, the same on every run.

    Args:
        per_organ: Slices drawn for each organ; of each one question about an organ it shows, one
            about an organ it lacks, if it lacks any, and one irrelevant.
    """
    sampler = PhantomSampler(PhantomViewConfig(), held_out=True)
    views_rng, rng = np.random.default_rng(SEED), random.Random(SEED)
    for index, organ in enumerate(ORGANS):
        for _ in range(per_organ):
            view = sampler.draw(views_rng, index)
            text = generate(organ, rng=rng, split="test", wordings=ABDOMEN).text
            yield Case(view, text, organ, shown=True)
            lacking = [other for other in ORGANS if not view.masks[other.id - 1].any()]
            if lacking:
                absent = rng.choice(lacking)
                text = generate(absent, rng=rng, split="test", wordings=ABDOMEN).text
                yield Case(view, text, absent, shown=False)
            yield Case(view, false_premise(rng, "test"), None, shown=False)


def measure_organseg(url: str, per_organ: int) -> dict[str, float]:
    """Dice where the organ is shown, and how often the right thing was understood.

    A refused organ that is shown counts with Dice 0. `organ_accuracy` is over all questions that
    ask for an organ, shown or not; `false_premise_rejected` over absent organs and irrelevant
    questions, of which each has its own figure, too: nothing was outlined.
    """
    masks = MaskMetrics()
    dice_of: dict[str, list[float]] = defaultdict(list)
    refused: dict[str, list[bool]] = defaultdict(list)
    labelled: list[bool] = []
    outcomes: dict[str, list[bool]] = defaultdict(list)
    with Client(url) as client:
        for number, case in enumerate(cases(per_organ), start=1):
            (finding,) = client.find_organs(case.view.image.numpy(), case.text)
            wanted = "irrelevant" if case.organ is None else "found" if case.shown else "absent"
            outcomes[wanted].append(finding.outcome == wanted)
            refused[wanted].append(not finding.found)
            if case.organ is not None:
                labelled.append(finding.label == case.organ.name)
                if case.shown:
                    truth = case.view.masks[case.organ.id - 1].numpy()
                    one = MaskMetrics()
                    one.update(finding.mask, truth)
                    masks.update(finding.mask, truth)
                    dice_of[case.organ.name].append(one.compute().dice)
            if number % 100 == 0:
                print(f"{number} questions: Dice {masks.compute().dice:.3f}", flush=True)
    for name, scores in dice_of.items():
        print(f"  {name:24s} Dice {np.mean(scores):.3f}")
    return {
        "dice": masks.compute().dice,
        "organ_accuracy": float(np.mean(labelled)),
        "false_premise_rejected": float(np.mean(refused["absent"] + refused["irrelevant"])),
        "absent_rejected": float(np.mean(refused["absent"])),
        "irrelevant_rejected": float(np.mean(refused["irrelevant"])),
        "wrongly_refused": float(np.mean(refused["found"])),
        **{f"outcome_{name}_right": float(np.mean(right)) for name, right in outcomes.items()},
        "questions": float(number),
    }
