"""Organ-Seg's stage: adapter and extractors learn on phantoms, everything else is frozen.

Frozen as in the paper: both image encoders, the base language model with its vocabulary, and the
mask decoder. Beside organs that a slice shows, training asks for organs it does not show and for
what no slice shows, without which nothing could be refused.
"""

import random
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serving.llava_prompt import LlavaTokenizer, image_prefix_ids
from serving.organseg import LEAST_PRESENCE, is_visible
from serving.organseg_prompt import DEMO_TEMPLATE, organseg_prompt
from training.context_cache import Context
from training.data.batches import ViewBatch, boxes_cxcywh, collate, cxcywh_to_xyxy
from training.data.false_premises import false_premise
from training.data.organ_questions import ABDOMEN, Premise
from training.data.organs import ORGANS
from training.data.packing import pack
from training.data.phantom_views import PhantomSampler
from training.data.questions import Split, drop_words, generate
from training.data.slices import Slice
from training.data.small_talk import with_small_talk
from training.data.unknown_subjects import unknown_subject
from training.networks.organseg import OrganSeg, resize_probabilities
from training.organseg_loss import (
    OrganSegWeights,
    box_loss,
    classification_loss,
    mask_loss,
    presence_loss,
)
from training.stages.scores import box_iou, dice

PREMISE_WEIGHTS: dict[Premise, float] = {"found": 4, "absent": 3, "irrelevant": 4}
"""Shares of the premises among a view's questions after the first, which is "found"."""

EVALUATION_VIEWS = (8, 12)
"""Batches that an evaluation draws, and views of each."""

UNKNOWN_SHARE = 0.5
"""Share of irrelevant training questions that `training.data.unknown_subjects` makes up."""


@dataclass(frozen=True)
class _Asked:
    text: str
    premise: Premise
    organ: int
    """Index into `ORGANS`; of an irrelevant question one behind the last."""


@dataclass(frozen=True)
class _Read:
    """What the extractors read of N questions, a view's questions one after the other."""

    seg_embedding: Tensor
    boxes: Tensor
    similarities: Tensor
    presence: Tensor


class OrganSegStage:
    """Trains Organ-Seg's adapter and extractors.

    Args:
        network: With the earlier stages' weights loaded.
        tokenizer: Tokenizer of the base vocabulary.
        sampler: Bodies to train on; the longer side of its views is the side of SAM's frame.
        held_out_sampler: Bodies to measure on, with held-out wordings.
        context: The context cache; it holds all organs asked about.
        seed: Seed of the data.
        template: Text behind the image, with the question's place.
        batch_size: Views per step.
        questions: Questions per view.
        structure_vectors: (13, C) prompt vectors that stage 1 learned for the organs. During
            `align_steps` the segment embedding is only drawn towards them, which starts it where
            the mask decoder listens; None leaves that out.
        align_steps: Length of that start.
        weights: Factors of the losses.

    Raises:
        ValueError: if the context cache lacks an organ.
    """

    name = "organseg"

    def __init__(
        self,
        network: OrganSeg,
        tokenizer: LlavaTokenizer,
        sampler: PhantomSampler,
        held_out_sampler: PhantomSampler,
        context: Context,
        *,
        seed: int,
        template: str = DEMO_TEMPLATE,
        batch_size: int = 12,
        questions: int = 4,
        structure_vectors: Tensor | None = None,
        align_steps: int = 0,
        weights: OrganSegWeights | None = None,
    ) -> None:
        torch.manual_seed(seed)
        self.network, self.tokenizer, self.template = network, tokenizer, template
        self.sampler, self.held_out_sampler, self.context = sampler, held_out_sampler, context
        self.seed, self.batch_size, self.questions = seed, batch_size, questions
        self.structure_vectors, self.align_steps = structure_vectors, align_steps
        self.weights = weights or OrganSegWeights()
        missing = [organ.name for organ in ORGANS if organ.name not in context.organs]
        if missing:
            raise ValueError(
                f"context {context.version} has no row of {missing[0]!r}; build it from "
                "training/data/organ_texts.json"
            )
        rows = [context.organs.index(organ.name) for organ in ORGANS]
        self.rows = torch.tensor([*rows, len(context.organs)])
        for part in (network.image_encoder, network.llava_image_encoder, network.mask_decoder):
            part.requires_grad_(False)
        self.modules = nn.ModuleDict({"organseg": network})

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Weighted sum of all losses on fresh views."""
        views_rng, rng = np.random.default_rng((self.seed, step)), random.Random(self.seed + step)
        views, asked = self._draw(self.sampler, self.batch_size, views_rng, rng, "train")
        batch = collate(views, self.network.profile.sam_size, [True] * len(views))
        read = self._read(batch, asked)
        flat = [one for row in asked for one in row]
        found = torch.tensor([one.premise == "found" for one in flat])
        organs = torch.tensor([one.organ for one in flat])
        view_of = torch.arange(len(flat)) // self.questions

        corners = cxcywh_to_xyxy(read.boxes[found])
        truth = torch.cat(
            [
                boxes_cxcywh(views[row].masks[organ][None])
                for row, organ in zip(view_of[found], organs[found], strict=True)
            ]
        )
        truth_corners = cxcywh_to_xyxy(truth)
        terms = {
            "class": classification_loss(read.similarities, self.rows[organs]),
            "presence": presence_loss(read.presence, found),
            "box": box_loss(corners, truth_corners),
        }
        weights = self.weights
        total = (
            weights.classification * terms["class"]
            + weights.presence * terms["presence"]
            + weights.box * terms["box"]
        )
        seg_embedding = read.seg_embedding[found]
        if step < self.align_steps and self.structure_vectors is not None:
            target = self.structure_vectors[organs[found]]
            terms["alignment"] = F.mse_loss(seg_embedding[:, 0], target) / target.var()
            total = total + terms["alignment"]
        else:
            logits = self._decode(
                batch.sam_pixels, view_of[found], seg_embedding, read.boxes[found]
            )
            logits = F.interpolate(logits, batch.masks.shape[-2:], mode="bilinear")
            terms["mask"] = mask_loss(
                logits[:, 0], batch.masks[view_of[found], organs[found]], weights
            )
            total = total + terms["mask"]
        figures = {name: term.item() for name, term in terms.items()}
        return total, {**figures, "box_iou": box_iou(corners, truth_corners).mean().item()}

    def evaluate(self) -> dict[str, float]:
        """Figures as served, on held-out bodies and wordings.

        Of organs that are shown: `dice` (0 where refused) and `wrongly_refused`; of all organs
        asked for: `organ_accuracy`; of the others: `false_premise_rejected`, and the same of
        absent organs and of irrelevant questions alone.
        """
        views_rng, rng = np.random.default_rng(self.seed), random.Random(self.seed)
        dices: list[float] = []
        right_organ: list[bool] = []
        refused: dict[Premise, list[bool]] = {premise: [] for premise in PREMISE_WEIGHTS}
        batches, count = EVALUATION_VIEWS
        for _ in range(batches):
            views, asked = self._draw(self.held_out_sampler, count, views_rng, rng, "test")
            batch = collate(views, self.network.profile.sam_size, [True] * len(views))
            read = self._read(batch, asked)
            flat = [one for row in asked for one in row]
            view_of = torch.arange(len(flat)) // self.questions
            best = read.similarities.argmax(dim=1)
            logits = self._decode(batch.sam_pixels, view_of, read.seg_embedding, read.boxes)
            for number, one in enumerate(flat):
                truth = views[int(view_of[number])].masks
                probabilities = resize_probabilities(logits[number][None], truth.shape[-2:])[0]
                mask = probabilities > 0.5
                outlined = bool(best[number] != self.rows[-1]) and _shown(
                    read.presence[number], probabilities[mask]
                )
                refused[one.premise].append(not outlined)
                if one.premise != "irrelevant":
                    right_organ.append(bool(best[number] == self.rows[one.organ]))
                if one.premise == "found":
                    dices.append(dice(mask & outlined, truth[one.organ][None]).item())
        return {
            "dice": _mean(dices),
            "organ_accuracy": _mean(right_organ),
            "false_premise_rejected": _mean(refused["absent"] + refused["irrelevant"]),
            "absent_rejected": _mean(refused["absent"]),
            "irrelevant_rejected": _mean(refused["irrelevant"]),
            "wrongly_refused": _mean(refused["found"]),
        }

    def _draw(
        self,
        sampler: PhantomSampler,
        count: int,
        views_rng: np.random.Generator,
        rng: random.Random,
        split: Split,
    ) -> tuple[list[Slice], list[list[_Asked]]]:
        """Views, each drawn for an organ, and their questions; the first asks for that organ."""
        views: list[Slice] = []
        asked: list[list[_Asked]] = []
        for _ in range(count):
            aim = int(views_rng.integers(len(ORGANS)))
            view = sampler.draw(views_rng, aim)
            views.append(view)
            others = [_ask(view, rng, split) for _ in range(self.questions - 1)]
            asked.append([_organ_question(aim, "found", rng, split), *others])
        return views, asked

    def _read(self, batch: ViewBatch, asked: list[list[_Asked]]) -> _Read:
        network = self.network
        before = image_prefix_ids(self.tokenizer)[:-1]
        ids = [
            [
                organseg_prompt(self.tokenizer, one.text, self.template)[len(before) + 1 :]
                for one in row
            ]
            for row in asked
        ]
        packed = pack(before, network.profile.image_tokens, ids)
        rows = [row for row in range(len(ids)) for _ in range(self.questions)]
        ends = [
            start + len(question) - 1
            for starts, questions in zip(packed.starts, ids, strict=True)
            for start, question in zip(starts, questions, strict=True)
        ]
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                image_rows, _ = network.llava_image_encoder(batch.clip_pixels)
                embeddings = network.base.model.embed_tokens(packed.token_ids)
            embeddings[:, packed.image_start : packed.prefix] = image_rows.float()
            hidden = network.mllm.model.model(
                inputs_embeds=embeddings,
                attention_mask=packed.attention_mask,
                position_ids=packed.position_ids,
                use_cache=False,
            ).last_hidden_state
        # Small networks, and cosines that are divided by 0.07: single precision.
        seg_embedding, boxes, interest, presence = network.extractors(hidden[rows, ends].float())
        return _Read(seg_embedding, boxes, self.context.similarities(interest), presence)

    def _decode(
        self, sam_pixels: Tensor, view_of: Tensor, seg_embedding: Tensor, boxes: Tensor
    ) -> Tensor:
        """Low-resolution logits (N, 1, 4 h, 4 w), each of the view whose row `view_of` names."""
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                image_embedding = self.network.image_encoder(sam_pixels)
            return self.network.mask_decoder(
                image_embedding[view_of], seg_embedding[:, None], boxes[:, None]
            ).float()


def _ask(view: Slice, rng: random.Random, split: Split) -> _Asked:
    """Draw a premise that the view can give, and a question."""
    present = view.present.tolist()
    visible = view.masks.flatten(1).any(dim=1).tolist()
    # Of an organ that shows a few pixels, neither answer would be right.
    organs: dict[Premise, list[int]] = {
        "found": [index for index in range(len(ORGANS)) if present[index]],
        "absent": [index for index in range(len(ORGANS)) if not visible[index]],
    }
    possible = [p for p in PREMISE_WEIGHTS if p == "irrelevant" or organs[p]]
    (premise,) = rng.choices(possible, [PREMISE_WEIGHTS[p] for p in possible])
    if premise != "irrelevant":
        return _organ_question(rng.choice(organs[premise]), premise, rng, split)
    if split == "test":
        return _Asked(false_premise(rng, split), premise, len(ORGANS))
    text = unknown_subject(rng) if rng.random() < UNKNOWN_SHARE else false_premise(rng, split)
    return _Asked(with_small_talk(text, rng), premise, len(ORGANS))


def _organ_question(organ: int, premise: Premise, rng: random.Random, split: Split) -> _Asked:
    question = generate(ORGANS[organ], rng=rng, split=split, wordings=ABDOMEN)
    if split == "test":
        return _Asked(question.text, premise, organ)
    return _Asked(with_small_talk(drop_words(question, rng), rng), premise, organ)


def _shown(presence: Tensor, inside: Tensor) -> bool:
    """As served, from presence () and the probabilities (n,) inside the outline."""
    score = inside.mean().item() if len(inside) else 0.0
    return presence.item() >= LEAST_PRESENCE and is_visible(presence.item(), score)


def _mean(values: list[float] | list[bool]) -> float:
    return float(np.mean(values))
