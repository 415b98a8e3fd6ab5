"""How good MediRound's conversations are, with and without judgment and correction.

Held-out views and wordings. The server resolves every reference itself, from the words, and shows
the model its own earlier masks.
"""

import random
from collections import defaultdict

import numpy as np
from saymask import Client

from training.data.dialogues import DialogueRound, dialogue
from training.data.phantom_views import PhantomSampler, PhantomViewConfig
from training.data.slices import Slice, SliceConfig, SliceSampler
from training.data.templates import TEST_TEMPLATE, load_template
from training.data.views import ViewSampler
from training.metrics import MaskMetrics
from training.networks.mediround import BETA

SEED = 22_000
ROUNDS = 6
NO_CORRECTION = 0.0
"""A beta that no score lies below."""


def conversations(count: int) -> list[tuple[Slice, list[DialogueRound]]]:
    """Held-out conversations of `ROUNDS` rounds, the same on every run."""
    sampler = ViewSampler(
        SliceSampler(load_template(TEST_TEMPLATE), SliceConfig()),
        PhantomSampler(PhantomViewConfig(), held_out=True),
    )
    views_rng, rng = np.random.default_rng(SEED), random.Random(SEED)
    talks = []
    for number in range(count):
        # Every target is why some view was drawn, so that rare ones are talked about too.
        view = sampler.draw(views_rng, number % 30)
        talks.append((view, dialogue(view.present, view.masks, rng, "test", ROUNDS)))
    return talks


def measure_mediround(url: str, count: int) -> dict[str, float]:
    """Dice over all rounds and per round index, with and without the JCM.

    `resolver_accuracy` is over all rounds: the server took exactly the references that were meant,
    none where none was.
    """
    talks = conversations(count)
    dice: dict[bool, dict[int, list[float]]] = {True: defaultdict(list), False: defaultdict(list)}
    resolved: list[bool] = []
    corrected: list[bool] = []
    with Client(url) as client:
        for number, (view, talk) in enumerate(talks, start=1):
            for judged in (True, False):
                beta = BETA if judged else NO_CORRECTION
                with client.conversation(view.image.numpy(), beta=beta) as chat:
                    for index, asked in enumerate(talk, start=1):
                        answer = chat.ask(asked.prompt)
                        truth = view.masks[asked.target].numpy()
                        one = MaskMetrics()
                        one.update(
                            answer.masks.any(axis=0) if answer.found else ~truth & truth, truth
                        )
                        dice[judged][index].append(one.compute().dice)
                        if judged:
                            taken = [round_number for round_number, _ in answer.references]
                            resolved.append(taken == list(asked.references))
                            corrected += [instance.corrected for instance in answer.instances]
                    chat.erase()
            if number % 10 == 0:
                print(f"{number} conversations: Dice {_mean(dice[True]):.3f}", flush=True)
    return {
        "dice": _mean(dice[True]),
        "dice_without_jcm": _mean(dice[False]),
        **{
            f"dice_round_{index}{suffix}": float(np.mean(scores))
            for judged, suffix in ((True, ""), (False, "_without_jcm"))
            for index, scores in dice[judged].items()
        },
        "corrected": float(np.mean(corrected)),
        "resolver_accuracy": float(np.mean(resolved)),
        "conversations": float(count),
    }


def _mean(by_round: dict[int, list[float]]) -> float:
    return float(np.mean([score for scores in by_round.values() for score in scores]))
