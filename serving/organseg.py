"""Organ-Seg: questions about the abdomen's organs, refused where there is nothing to outline.

The pipeline `organseg`, plain Python over `call`. It decides; encoders, language model, extractors,
context cache and mask decoder are models of their own. Tensors and decisions: docs/organseg.md.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from serving.content_cache import Arrays
from serving.errors import Cancelled
from serving.preprocessing import check_image
from serving.prompts import check_prompt
from serving.several_objects import split_objects

Call = Callable[[str, dict[str, Any], list[str]], Arrays]

FOUND = "found"
"""The organ is in the slice and outlined."""
ABSENT = "absent"
"""The organ is known, and this slice does not show it."""
IRRELEVANT = "irrelevant"
"""The question asks for no organ of the context cache."""
UNCERTAIN = "uncertain"
"""Two texts lie too near to each other to choose."""

LEAST_PRESENCE = 0.1
"""Presence below which no outline could outvote it, so that none is made."""

LEAST_EVIDENCE = 2.0
"""Log-odds from which an organ counts as visible; fitted to the demo's training bodies."""

_THREADS = 32
"""Questions asked at a time, of all requests together. `mllm` refuses what exceeds a limit of its
own, 64 for all systems."""


@dataclass(frozen=True)
class Decision:
    """What one question turned out to ask for."""

    outcome: str
    """One of the four outcomes."""
    best: int
    """Row of the cache that lies nearest; the last one is the irrelevant texts'."""
    second: int
    """Row that lies second."""
    margin: float
    """Similarity of `best` minus that of `second`; 0 or more."""


def decide(similarities: np.ndarray, presence: float, least_margin: float) -> Decision:
    """Choose the outcome of one question, before there is an outline (then: `is_visible`).

    Args:
        similarities: (K + 1,) cosines, the irrelevant texts last.
        presence: Probability that the slice shows the organ.
        least_margin: A smaller margin is `uncertain`; with 0 none is.
    """
    second, best = (int(row) for row in np.argsort(similarities, kind="stable")[-2:])
    margin = float(similarities[best] - similarities[second])
    if best == len(similarities) - 1:
        outcome = IRRELEVANT
    elif margin < least_margin:
        outcome = UNCERTAIN
    else:
        outcome = FOUND if presence >= LEAST_PRESENCE else ABSENT
    return Decision(outcome, best, second, margin)


def is_visible(presence: float, score: float) -> bool:
    """Weigh two witnesses: what the language model saw, and how sharply the outline came out.

    Their log-odds are added, as of independent witnesses. The mask decoder sees the picture through
    the other encoder: asked for an organ that is not there, it marks something, and faintly.

    Args:
        presence: Probability that the slice shows the organ, of the extractors.
        score: Mean probability inside the outline, of the mask decoder; 0 without a pixel.
    """
    probabilities = np.clip(np.array([presence, score], np.float64), 1e-6, 1 - 1e-6)
    return bool(np.log(probabilities / (1 - probabilities)).sum() >= LEAST_EVIDENCE)


def answer_of(decision: Decision, labels: Sequence[str]) -> str:
    """Say a decision in one sentence.

    Args:
        decision: From `decide`.
        labels: The cache's organs, in the order of its rows.
    """
    if decision.outcome == IRRELEVANT:
        return "This question is not about an organ of the abdomen that this system knows."
    label = labels[decision.best]
    if decision.outcome == FOUND:
        return f"{label[:1].upper()}{label[1:]}: outlined."
    if decision.outcome == ABSENT:
        return f"No {label} is visible in this slice."
    if decision.second == len(labels):
        return f"Unsure whether this question is about the {label}; nothing is outlined."
    return f"Unsure between {label} and {labels[decision.second]}; nothing is outlined."


class OrganSegPipeline:
    """Picture and question -> one result for each organ asked for.

    Args:
        call: Runs another served model.
        sam_ahead: Embed the picture while the question is read, rather than once an organ is found:
            new pictures are outlined sooner, and refused ones embedded in vain. A refusal does not
            wait for it.
    """

    def __init__(self, call: Call, sam_ahead: bool) -> None:
        self._call = call
        self._sam_ahead = sam_ahead
        self._questions = ThreadPoolExecutor(_THREADS, "organseg-question")
        # Threads apart: pictures that nobody waits for any more must not hold up questions.
        self._embeddings = ThreadPoolExecutor(_THREADS, "organseg-embedding")

    def __call__(
        self,
        image: np.ndarray,
        prompt: str,
        is_cancelled: Callable[[], bool],
        least_margin: np.ndarray | None = None,
    ) -> dict[str, np.ndarray | str]:
        """Answer one prompt about one picture.

        Args:
            image: (H, W, C) uint8, C = 1 or 3: an axial slice, CT in the window 40 / 400.
            prompt: The question; not blank. It may ask for several organs.
            is_cancelled: Says whether the client has given up.
            least_margin: (1,) float32 in [0, 2]; None is 0.

        Returns:
            The tensors of docs/organseg.md: N results, in the order of the prompt.

        Raises:
            ValueError: if an input cannot be served.
            Cancelled: if the client has given up.
        """
        check_image(image)
        questions = split_objects(check_prompt(prompt))
        margin = _check_margin(least_margin)
        # A copy: the request, and its memory, may be gone before a refused picture is embedded.
        ahead = _start(self._embeddings, self._embed, image.copy()) if self._sam_ahead else None
        try:
            heads = self._read(image, questions)
            cache = self._call(
                "organseg_context_cache",
                {"interest": heads["interest"]},
                ["similarities", "labels", "snomed_codes", "cache_version"],
            )
            decisions = [
                decide(similarities, float(presence), margin)
                for similarities, presence in zip(
                    cache["similarities"], heads["presence"], strict=True
                )
            ]
            if is_cancelled():
                raise Cancelled
            outlines = self._outline(image, ahead, heads, decisions)
        finally:
            if ahead is not None:
                ahead.cancel()  # does nothing once it has begun; its result is then kept there
        for row, decision in enumerate(decisions):
            if decision.outcome == FOUND and not is_visible(
                heads["presence"][row], outlines["scores"][row]
            ):
                decisions[row] = replace(decision, outcome=ABSENT)
                for array in outlines.values():
                    array[row] = 0
        labels, codes = (
            [text.decode() for text in cache[name]] for name in ("labels", "snomed_codes")
        )
        return {
            **outlines,
            "outcomes": _texts([decision.outcome for decision in decisions]),
            # Behind the organs: the irrelevant texts have neither name nor code.
            "labels": _texts([[*labels, ""][decision.best] for decision in decisions]),
            "snomed_codes": _texts([[*codes, ""][decision.best] for decision in decisions]),
            "margins": np.array([decision.margin for decision in decisions], np.float32),
            "similarities": cache["similarities"],
            "presences": heads["presence"],
            "answers": _texts([answer_of(decision, labels) for decision in decisions]),
            "questions": _texts(questions),
            "cache_version": cache["cache_version"],
        }

    def close(self) -> None:
        """End the threads."""
        self._questions.shutdown(cancel_futures=True)
        self._embeddings.shutdown(cancel_futures=True)

    def _read(self, image: np.ndarray, questions: list[str]) -> Arrays:
        """Run the language branch: the extractors' outputs, one row per question."""
        tokens = self._call("organseg_image_tokens", {"image": image}, ["patch_tokens"])
        asked = [
            _start(self._questions, self._hidden_state, question, tokens["patch_tokens"])
            for question in questions
        ]
        try:
            hidden_states = np.concatenate([future.result() for future in asked])
        finally:
            for future in asked:
                future.cancel()
        return self._call(
            "organseg_extractors",
            {"hidden_states": hidden_states},
            ["seg_embedding", "boxes_cxcywh", "interest", "presence"],
        )

    def _hidden_state(self, question: str, patch_tokens: np.ndarray) -> np.ndarray:
        """Joint embedding (1, 1, E) of the picture and one question."""
        prompt = self._call(
            "organseg_prompt", {"prompt": question}, ["token_ids", "hidden_positions", "adapter"]
        )
        return self._call(
            "mllm",
            {
                "token_ids": prompt["token_ids"],
                "hidden_positions": prompt["hidden_positions"],
                "adapter": prompt["adapter"],
                "embeddings": patch_tokens,
            },
            ["hidden_states"],
        )["hidden_states"]

    def _embed(self, image: np.ndarray) -> Arrays:
        return self._call(
            "organseg_image_embedding", {"image": image}, ["image_embedding", "original_size"]
        )

    def _outline(
        self,
        image: np.ndarray,
        ahead: Future[Arrays] | None,
        heads: Arrays,
        decisions: list[Decision],
    ) -> Arrays:
        """Decode what may be there, all at once; zeros for the rest, no call where that is all."""
        height, width = image.shape[:2]
        count = len(decisions)
        outlines: Arrays = {
            "masks": np.zeros((count, height, (width + 7) // 8), np.uint8),
            "boxes_xyxy": np.zeros((count, 4), np.float32),
            "scores": np.zeros(count, np.float32),
        }
        rows = [row for row, decision in enumerate(decisions) if decision.outcome == FOUND]
        if not rows:
            return outlines
        embedding = self._embed(image) if ahead is None else ahead.result()
        decoded = self._call(
            "organseg_mask_decoder",
            {
                "image_embedding": embedding["image_embedding"],
                "seg_embedding": heads["seg_embedding"][rows],
                "boxes_cxcywh": heads["boxes_cxcywh"][rows],
                "original_size": embedding["original_size"],
            },
            ["masks", "boxes_xyxy", "scores"],
        )
        for name, array in outlines.items():
            array[rows] = decoded[name]
        return outlines


def _check_margin(least_margin: np.ndarray | None) -> float:
    """The one number of the input, 0 without it.

    Raises:
        ValueError: if no margin of two cosines can be so.
    """
    if least_margin is None:
        return 0.0
    if least_margin.shape != (1,) or not 0 <= least_margin[0] <= 2:
        raise ValueError(
            f"least_margin: expected one number from 0 (off) to 2, got {least_margin.tolist()}"
        )
    return float(least_margin[0])


def _start(threads: ThreadPoolExecutor, function: Callable, *arguments: Any) -> Future[Any]:
    """Run a function in a thread that knows which request it works for."""
    return threads.submit(copy_context().run, function, *arguments)


def _texts(values: Sequence[str]) -> np.ndarray:
    return np.array([value.encode() for value in values], np.object_)
