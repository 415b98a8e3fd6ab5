"""How good MediSee's answers are: masks and boxes of questions about held-out views of the brain.

Template, deformations, question templates and wordings are those training never saw. Every
structure is asked for equally often.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from saymask import Client, box_from_mask

from training.data.questions import Question, generate
from training.data.slices import Slice, SliceConfig, SliceSampler
from training.data.structures import STRUCTURES
from training.data.templates import TEST_TEMPLATE, load_template
from training.metrics import BoxMetrics, MaskMetrics

SEED = 20_000


@dataclass(frozen=True)
class Case:
    """One question about one held-out view."""

    view: Slice
    structure: int
    question: Question


def cases(per_structure: int) -> Iterator[Case]:
    """Held-out cases, the same on every run."""
    sampler = SliceSampler(load_template(TEST_TEMPLATE), SliceConfig())
    views_rng, rng = np.random.default_rng(SEED), random.Random(SEED)
    for index, structure in enumerate(STRUCTURES):
        for _ in range(per_structure):
            view = sampler.draw(views_rng, index)
            yield Case(view, index, generate(structure, rng=rng, split="test"))


def measure_medisee(url: str, per_structure: int) -> dict[str, float]:
    """Dice, gIoU, cIoU, box IoU and the share of implicit questions that hit the right structure.

    An implicit question (by attribute or location) counts as right when, of all structures in
    the view, the asked one overlaps the returned mask best (IoU).
    """
    masks, boxes = MaskMetrics(), BoxMetrics()
    dice_of: dict[str, list[float]] = defaultdict(list)
    right: list[bool] = []
    with Client(url) as client:
        for number, case in enumerate(cases(per_structure), start=1):
            answer = client.segment(case.view.image.numpy(), case.question.text)
            truth = case.view.masks[case.structure].numpy()
            one = MaskMetrics()
            one.update(answer.mask, truth)
            masks.update(answer.mask, truth)
            box = box_from_mask(truth)
            assert box is not None  # every case's structure is in its view
            boxes.update(answer.box_xyxy, box)
            dice_of[STRUCTURES[case.structure].name].append(one.compute().dice)
            if case.question.kind != "direct":
                right.append(_best_overlap(answer.mask, case.view) == case.structure)
            if number % 40 == 0:
                print(f"{number} questions: Dice {masks.compute().dice:.3f}", flush=True)
    for name, scores in dice_of.items():
        print(f"  {name:24s} Dice {np.mean(scores):.3f}")
    mask_scores, box_scores = masks.compute(), boxes.compute()
    return {
        "dice": mask_scores.dice,
        "giou": mask_scores.giou,
        "ciou": mask_scores.ciou,
        "box_iou": box_scores.iou,
        "box_accuracy": box_scores.accuracy,
        "implicit_accuracy": float(np.mean(right)),
        "questions": float(mask_scores.count),
        "implicit_questions": float(len(right)),
    }


def _best_overlap(mask: np.ndarray, view: Slice) -> int:
    """Index of the present structure with the largest IoU, -1 when the mask hits none."""
    truths = view.masks.numpy()
    overlap = (truths & mask).sum(axis=(1, 2))
    iou = overlap / np.maximum(1, (truths | mask).sum(axis=(1, 2))) * view.present.numpy()
    return int(iou.argmax()) if iou.max() > 0 else -1
