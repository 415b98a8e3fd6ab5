"""Whole conversations, answered by the server and by the released loop in turn."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Self

from saymask import ConversationRound

from benchmarks.agreement import least_agreement
from benchmarks.conversation_loop import ConversationLoop, TalkAnswers
from benchmarks.conversation_workload import Talk, Talks
from benchmarks.model_runs import model_runs
from benchmarks.ratios import Figures
from benchmarks.rounds import SETTLING_S
from benchmarks.served import Served
from training.networks.profiles import ProfileName

PIPELINE = "mediround"

WARM_UP_ROUNDS = 2
"""The fewest that the released loop takes."""


@dataclass(frozen=True)
class ConversationSetup:
    """One profile and how much is asked of it."""

    profile: ProfileName
    repository: Path
    long_side: int
    """Pixels of the pictures' longer side."""
    rounds: int
    """Rounds of measuring, each with one conversation of every length."""
    lengths: tuple[int, ...]
    """Rounds of the conversations, ascending; the fewest are `WARM_UP_ROUNDS`."""

    def quick(self) -> Self:
        """The least that fills every figure but those of other lengths."""
        return replace(self, rounds=1, lengths=(WARM_UP_ROUNDS, 4))


class ConversationBench:
    """One round of measuring after another, on a running server and a running loop.

    Args:
        setup: How much to ask.
        served: The server.
        loop: The released loop of the same weights.
    """

    def __init__(self, setup: ConversationSetup, served: Served, loop: ConversationLoop) -> None:
        self._setup, self._served, self._loop = setup, served, loop
        self._talks = Talks(setup.long_side)

    def warm_up(self) -> None:
        """Let both sides reach their pace."""
        for length in (WARM_UP_ROUNDS, self._setup.lengths[-1]):
            hold(self._served, self._talks.draw(length))
        self._loop.answer(self._talks.draw(WARM_UP_ROUNDS))
        time.sleep(SETTLING_S)

    def round(self, *, backwards: bool) -> Figures:
        """A conversation of every length, by server and loop; figures of this round.

        Raises:
            RuntimeError: if masks differ, or a picture was not encoded exactly once.
        """
        figures: Figures = {}
        first_ms, later_ms, agreement = [], [], []
        for length in reversed(self._setup.lengths) if backwards else self._setup.lengths:
            talk = self._talks.draw(length)
            if backwards:
                plain = self._loop_turn(talk)
            hold(self._served, self._talks.draw(WARM_UP_ROUNDS))
            with model_runs(self._served.raw_client, ["medsam_image_encoder"]) as spent:
                answers = hold(self._served, talk)
            if spent["medsam_image_encoder"].runs != 1:
                raise RuntimeError(
                    f"medsam_image_encoder ran {spent['medsam_image_encoder'].runs} times in a "
                    "conversation about one fresh picture: expected once"
                )
            time.sleep(SETTLING_S)
            if not backwards:
                plain = self._loop_turn(talk)
            masks = [answer.instances[0].mask for answer in answers]
            agreement.append(least_agreement(masks, plain.masks))
            figures |= conversation_figures(answers, plain.round_ms)
            first_ms.append(answers[0].timings_ms["total"])
            later_ms += [answer.timings_ms["total"] for answer in answers[1:]]
        figures["latency_ms_round_1"] = median(first_ms)
        figures["latency_ms_later_round"] = median(later_ms)
        figures["later_over_first"] = median(later_ms) / median(first_ms)
        figures["mask_agreement"] = min(agreement)
        return figures

    def _loop_turn(self, talk: Talk) -> TalkAnswers:
        # What has idled is slow at first.
        self._loop.answer(self._talks.draw(WARM_UP_ROUNDS))
        answers = self._loop.answer(talk)
        time.sleep(SETTLING_S)
        return answers


def hold(served: Served, talk: Talk) -> list[ConversationRound]:
    """Hold a conversation, and leave nothing of it on the server.

    Raises:
        RuntimeError: if a round was understood in another way than it was meant.
    """
    answers: list[ConversationRound] = []
    with served.client.conversation(talk.image) as chat:
        for asked in talk.rounds:
            # Every round has one mask, so instances are numbered as rounds are.
            meant = () if asked.reference is None else ((asked.reference + 1,) * 2,)
            numbers = [number for number, _ in meant] or None
            answer = chat.ask(asked.prompt, reference_rounds=numbers, kind="mask")
            if len(answer.instances) != 1 or answer.references != meant:
                raise RuntimeError(
                    f"{asked.prompt!r}: expected one mask and references {meant}, got "
                    f"{len(answer.instances)} and {answer.references}"
                )
            answers.append(answer)
        chat.erase()
    return answers


def conversation_figures(answers: list[ConversationRound], loop_ms: list[float]) -> Figures:
    """What one conversation tells.

    Args:
        answers: Of the server, one per round.
        loop_ms: Times of the loop's rounds.
    """
    length = len(answers)
    server_ms = [answer.timings_ms["total"] for answer in answers]
    figures = {
        f"conversation_ms_rounds_{length}": sum(server_ms),
        f"loop_conversation_ms_rounds_{length}": sum(loop_ms),
        f"speedup_rounds_{length}": sum(loop_ms) / sum(server_ms),
        f"loop_round_ms_rounds_{length}": median(loop_ms),
    }
    for number, answer in enumerate(answers, start=1):
        figures[f"cached_tokens_round_{number}"] = answer.cached_tokens
        figures[f"computed_tokens_round_{number}"] = answer.computed_tokens
    return figures


def conversation_table(figures: Figures, lengths: tuple[int, ...]) -> str:
    """Each length of a conversation on both sides, then the language model's work per round."""
    lines = [f"{'rounds':>8s}{'server ms':>12s}{'loop ms':>12s}{'ratio':>8s}"]
    for length in lengths:
        server, loop, ratio = (
            figures[f"{name}_rounds_{length}"]
            for name in ("conversation_ms", "loop_conversation_ms", "speedup")
        )
        lines.append(f"{length:8d}{server:12.0f}{loop:12.0f}{ratio:8.1f}")
    lines.append(f"{'round':>8s}{'cached':>12s}{'computed':>12s}")
    for number in range(1, lengths[-1] + 1):
        cached, computed = (figures[f"{name}_tokens_round_{number}"] for name in _SOURCES)
        lines.append(f"{number:8d}{cached:12.0f}{computed:12.0f}")
    return "\n".join(lines)


_SOURCES = ("cached", "computed")
