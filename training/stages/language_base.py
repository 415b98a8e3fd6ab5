"""Stage 2: the frozen base all systems share: CLIP tower, projector and Mistral, from scratch.

Stands in for LLaVA-Med's pretraining. The base learns to explain in words, and to point: from
every position of its answer, two heads that are thrown away afterwards must find the structure's
box and its image tokens. Without pointing, no adapter of rank 8 could locate anything later.
"""

import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import MistralForCausalLM

from serving.llava_prompt import LlavaTokenizer, explanation_prompt, image_prefix_ids
from training.data.batches import ViewBatch, boxes_cxcywh, collate, cxcywh_to_xyxy
from training.data.packing import Packed, pack
from training.data.questions import Split, drop_words
from training.data.views import TARGETS, ViewSampler, question_about
from training.losses import giou_loss, l1_loss
from training.networks.llava import LlavaImageEncoder
from training.networks.medisee_heads import BoxDecoder
from training.networks.profiles import Profile
from training.stages.image_encoder import frames_of

CELLS_PER_TOKEN = 4
"""The dense head labels 4 x 4 cells of every image token."""


class LanguageBaseStage:
    """Trains `llava_image_encoder` and `mllm` (without adapter).

    Args:
        profile: Sizes.
        tokenizer: Tokenizer of the base vocabulary.
        sampler: Views to train on.
        held_out: Views to measure on, with held-out wordings.
        seed: Seed of the data.
        batch_size: Views per step.
        questions: Questions per view.
        language_from_step: Until then only the image side learns, under a dense head.
    """

    name = "language_base"

    def __init__(
        self,
        profile: Profile,
        tokenizer: LlavaTokenizer,
        sampler: ViewSampler,
        held_out: ViewSampler,
        *,
        seed: int = 1000,
        batch_size: int = 12,
        questions: int = 4,
        language_from_step: int = 500,
    ) -> None:
        torch.manual_seed(seed)
        self.profile, self.tokenizer, self.seed = profile, tokenizer, seed
        self.image_size = profile.clip_size
        self.sampler, self.held_out_sampler = sampler, held_out
        self.rarity = self.sampler.rarity(seed).tolist()
        self.batch_size, self.questions = batch_size, questions
        self.language_from_step = language_from_step
        width = profile.mistral.hidden_size
        cells = len(TARGETS) * CELLS_PER_TOKEN**2
        self.image_encoder = LlavaImageEncoder(profile)
        self.mllm = MistralForCausalLM(profile.mistral)
        self.modules = nn.ModuleDict(
            {
                "llava_image_encoder": self.image_encoder,
                "mllm": self.mllm,
                "dense_head": nn.Linear(profile.clip.hidden_size, cells),
                "pointer": nn.Linear(width, width),
                "box_head": BoxDecoder(profile),
            }
        )

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Dense loss of the image side; later also text, pointing and box losses."""
        views_rng = np.random.default_rng((self.seed, step))
        views = [self.sampler.draw(views_rng) for _ in range(self.batch_size)]
        batch = collate(views, self.image_size, frames_of(views))
        encoder = self.image_encoder
        with torch.autocast("cpu", torch.bfloat16):
            features = encoder.features(batch.clip_pixels)
            cells = self.modules["dense_head"](features[:, 1:])
        dense = self._dense_loss(cells.float(), batch)
        if step < self.language_from_step:
            return dense, {}
        rng = random.Random(self.seed + step)
        with torch.autocast("cpu", torch.bfloat16):
            image_rows = encoder.projector(features)[:, 1:]
        losses = self._language_losses(batch, image_rows, "train", rng)
        total = dense + losses["text"] + losses["pointing"] + 2 * losses["box"]
        return total, {"dense": dense.item(), **{k: v.item() for k, v in losses.items()}}

    def evaluate(self) -> dict[str, float]:
        """The same losses and the box IoU on held-out views and wordings."""
        views_rng, rng = np.random.default_rng(self.seed), random.Random(self.seed)
        totals: dict[str, float] = {}
        rounds = 4
        for _ in range(rounds):
            views = [self.held_out_sampler.draw(views_rng) for _ in range(12)]
            batch = collate(views, self.image_size, frames_of(views))
            with torch.autocast("cpu", torch.bfloat16):
                image_rows, _ = self.image_encoder(batch.clip_pixels)
            for key, value in self._language_losses(batch, image_rows, "test", rng).items():
                totals[key] = totals.get(key, 0.0) + value.item() / rounds
        return totals

    def _dense_loss(self, cells: Tensor, batch: ViewBatch) -> Tensor:
        side = self.image_size // self.profile.clip_patch
        maps = cells.transpose(1, 2).unflatten(2, (side, side))
        return (
            F.binary_cross_entropy_with_logits(
                F.pixel_shuffle(maps, CELLS_PER_TOKEN), batch.clip_masks
            )
            * 10
        )

    def _language_losses(
        self, batch: ViewBatch, image_rows: Tensor, split: Split, rng: random.Random
    ) -> dict[str, Tensor]:
        chosen: list[list[int]] = []
        questions: list[list[list[int]]] = []
        answer_lengths: list[list[int]] = []
        before = image_prefix_ids(self.tokenizer)[:-1]
        for view in batch.views:
            present = view.present.nonzero()[:, 0].tolist()
            weights = [self.rarity[i] for i in present]
            picked = rng.choices(present, weights, k=self.questions)
            chosen.append(picked)
            questions.append([])
            answer_lengths.append([])
            for index in picked:
                question = question_about(index, rng=rng, split=split)
                words = drop_words(question, rng) if split == "train" else question.text
                asked = explanation_prompt(self.tokenizer, words)[len(before) + 1 :]
                answer = self.tokenizer.encode_plain(question.explanation)
                questions[-1].append([*asked, *answer, self.tokenizer.eos_id])
                answer_lengths[-1].append(len(answer) + 1)
        packed = pack(before, self.profile.image_tokens, questions)
        hidden, logits = self._forward(packed, image_rows)

        rows: list[int] = []
        positions: list[int] = []
        labels: list[int] = []
        pointing_rows: list[int] = []
        pointing_positions: list[int] = []
        targets_of: list[int] = []
        for row, starts in enumerate(packed.starts):
            for number, start in enumerate(starts):
                ids = questions[row][number]
                length = answer_lengths[row][number]
                # From the last token of the question, which predicts the answer's first.
                first = start + len(ids) - length - 1
                rows += [row] * length
                positions += range(first, first + length)
                labels += ids[-length:]
                # Pointing is learned at the question's end and at two places of the answer: it
                # must not depend on the very token that stands there.
                pointing_rows += [row] * 3
                pointing_positions += [first, *(first + rng.randrange(length) for _ in range(2))]
                targets_of += [row * self.questions + number] * 3
        text = F.cross_entropy(logits[rows, positions].float(), torch.tensor(labels))

        at = hidden[pointing_rows, pointing_positions]
        with torch.autocast("cpu", torch.bfloat16):
            pointer = self.modules["pointer"](at)
            boxes = self.modules["box_head"](at).float()
        image = slice(packed.image_start, packed.image_start + self.profile.image_tokens)
        image_states = hidden[:, image].float()[pointing_rows]
        scores = torch.einsum("ne,nte->nt", pointer.float(), image_states)
        scores = scores * pointer.shape[-1] ** -0.5
        patch = self.profile.clip_patch // 4
        shares = F.avg_pool2d(batch.clip_masks, patch).flatten(2)
        structures = torch.tensor([index for row in chosen for index in row])[targets_of]
        pointing = F.binary_cross_entropy_with_logits(scores, shares[pointing_rows, structures])

        targets = torch.cat(
            [boxes_cxcywh(v.masks[c]) for v, c in zip(batch.views, chosen, strict=True)]
        )[targets_of]
        corners, target_corners = cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(targets)
        box = l1_loss(corners, target_corners) + giou_loss(corners, target_corners)
        return {"text": text, "pointing": pointing, "box": box.mean()}

    def _forward(self, packed: Packed, image_rows: Tensor) -> tuple[Tensor, Tensor]:
        mllm = self.mllm
        embeddings = mllm.get_input_embeddings()(packed.token_ids)
        image = slice(packed.image_start, packed.image_start + self.profile.image_tokens)
        embeddings[:, image] = image_rows.float()
        with torch.autocast("cpu", torch.bfloat16):
            hidden = mllm.model(
                inputs_embeds=embeddings,
                attention_mask=packed.attention_mask,
                position_ids=packed.position_ids,
                use_cache=False,
            ).last_hidden_state
            return hidden, mllm.lm_head(hidden)
