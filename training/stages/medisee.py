"""Stages 3 and 4: MediSee itself, then its fine-tuning under the similarity loss.

As published: image encoders, projector and base language model are frozen; the LoRA adapter, the
token embedding and head, the routers, the box decoder and the mask decoder learn, under the
losses of the paper (Eq. 4 and 5).
"""

import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serving.llava_prompt import (
    BOX_TOKEN,
    MEDISEE_HIDDEN_POSITIONS,
    LlavaTokenizer,
    image_prefix_ids,
    medisee_prompt,
)
from training.data.batches import ViewBatch, boxes_cxcywh, collate, cxcywh_to_xyxy
from training.data.packing import pack
from training.data.questions import Kind, Split, drop_words, generate
from training.data.slices import SliceSampler
from training.data.structures import STRUCTURES
from training.losses import medisee_loss, similarity_loss, similarity_map
from training.networks.medisee import MediSee, resize_logits
from training.stages.scores import box_iou, dice


class MediSeeStage:
    """Trains a MediSee whose frozen parts come from the two earlier stages.

    Args:
        name: Folder of the stage.
        network: With the earlier stages' weights loaded.
        tokenizer: With MediSee's added tokens.
        sampler: Views to train on.
        held_out: Views to measure on, with held-out wordings.
        seed: Seed of the data.
        batch_size: Views per step.
        questions: Questions per view.
        structure_vectors: (K, C) prompt vectors that stage 1 learned, the 16 structures' first.
            During `align_steps` the text embedding is only drawn towards them, which starts it
            where the mask decoder listens; None leaves that out.
        align_steps: Length of that start.
        similarity: Fine-tune: every second question is the plain name of the same structure as
            the one before it, and teaches that one where to look (Eq. 5).
    """

    def __init__(
        self,
        name: str,
        network: MediSee,
        tokenizer: LlavaTokenizer,
        sampler: SliceSampler,
        held_out: SliceSampler,
        *,
        seed: int,
        batch_size: int = 12,
        questions: int = 4,
        structure_vectors: Tensor | None = None,
        align_steps: int = 0,
        similarity: bool = False,
    ) -> None:
        torch.manual_seed(seed)
        self.name, self.network, self.tokenizer, self.seed = name, network, tokenizer, seed
        self.batch_size, self.questions, self.similarity = batch_size, questions, similarity
        self.structure_vectors, self.align_steps = structure_vectors, align_steps
        self.image_size = network.profile.sam_size
        self.sampler, self.held_out_sampler = sampler, held_out
        self.rarity = self.sampler.rarity(seed).tolist()
        for part in (network.image_encoder, network.llava_image_encoder):
            part.requires_grad_(False)
        self.modules = nn.ModuleDict({"medisee": network})

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Loss of Eq. 4 (and 5) on fresh views."""
        views_rng = np.random.default_rng((self.seed, step))
        views = [self.sampler.draw(views_rng) for _ in range(self.batch_size)]
        aligning = step < self.align_steps
        return self._losses(
            collate(views, self.image_size), "train", random.Random(self.seed + step), aligning
        )

    def evaluate(self) -> dict[str, float]:
        """Dice, box IoU and losses on held-out views and wordings."""
        views_rng, rng = np.random.default_rng(self.seed), random.Random(self.seed)
        totals: dict[str, float] = {}
        rounds = 4
        for _ in range(rounds):
            views = [self.held_out_sampler.draw(views_rng) for _ in range(12)]
            _, figures = self._losses(collate(views, self.image_size), "test", rng, aligning=False)
            for key, value in figures.items():
                totals[key] = totals.get(key, 0.0) + value / rounds
        return totals

    def _losses(
        self, batch: ViewBatch, split: Split, rng: random.Random, aligning: bool
    ) -> tuple[Tensor, dict[str, float]]:
        network, tokenizer = self.network, self.tokenizer
        before = image_prefix_ids(tokenizer)[:-1]
        tail = [
            tokenizer.added_ids[BOX_TOKEN],
            *tokenizer.encode_plain(". "),
            tokenizer.eos_id,
        ]
        chosen: list[list[int]] = []
        asked: list[list[list[int]]] = []
        for view in batch.views:
            present = view.present.nonzero()[:, 0].tolist()
            chosen.append([])
            asked.append([])
            for number in range(self.questions):
                teaching = self.similarity and number % 2 == 1
                weights = [self.rarity[i] for i in present]
                index = chosen[-1][-1] if teaching else rng.choices(present, weights)[0]
                kind: Kind | None = "direct" if teaching else None
                question = generate(STRUCTURES[index], rng=rng, split=split, kind=kind)
                words = drop_words(question, rng) if split == "train" else question.text
                prompt = medisee_prompt(tokenizer, words)[len(before) + 1 :]
                chosen[-1].append(index)
                asked[-1].append([*prompt, *tail])
        packed = pack(before, network.profile.image_tokens, asked)
        rows = [row for row in range(len(chosen)) for _ in range(self.questions)]
        ends = [
            start + len(ids) - len(tail)
            for starts, questions in zip(packed.starts, asked, strict=True)
            for start, ids in zip(starts, questions, strict=True)
        ]

        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                image_rows, _ = network.llava_image_encoder(batch.clip_pixels)
            embeddings = network.embed_tokens(packed.token_ids)
            image = slice(packed.image_start, packed.prefix)
            embeddings[:, image] = image_rows.float()
            hidden = network.mllm.model.model(
                inputs_embeds=embeddings,
                attention_mask=packed.attention_mask,
                position_ids=packed.position_ids,
                use_cache=False,
            ).last_hidden_state
            h_seg, h_box = (
                hidden[rows, [end + position for end in ends]]
                for position in MEDISEE_HIDDEN_POSITIONS
            )
            text_embedding, box_hidden = network.fusion(torch.stack([h_seg, h_box], dim=1))
            boxes = network.box_decoder(box_hidden).float()

        structures = torch.tensor([index for row in chosen for index in row])
        truth_boxes = torch.cat(
            [boxes_cxcywh(v.masks[c]) for v, c in zip(batch.views, chosen, strict=True)]
        )
        corners, truth_corners = cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(truth_boxes)
        if aligning and self.structure_vectors is not None:
            target = self.structure_vectors[structures]
            alignment = F.mse_loss(text_embedding[:, 0].float(), target) / target.var()
            box_loss = F.l1_loss(corners, truth_corners)
            return alignment + 5 * box_loss, {"alignment": alignment.item(), "l1": box_loss.item()}

        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                image_embedding = network.image_encoder(batch.sam_pixels)
            low_res = network.mask_decoder(
                image_embedding,
                text_embedding.unflatten(0, (-1, self.questions)),
                boxes.unflatten(0, (-1, self.questions)),
            )
        logits = [
            resize_logits(low_res[i : i + 1], self.image_size, view.image.shape, view.image.shape)[
                0
            ]
            for i, view in enumerate(batch.views)
        ]
        masks = [v.masks[c] for v, c in zip(batch.views, chosen, strict=True)]

        # Supervised are the tokens from the space before [SEG] on; the `]` before it predicts it.
        span = 1 - MEDISEE_HIDDEN_POSITIONS[0] + len(tail)
        spans = torch.tensor([range(end + len(tail) - span, end + len(tail)) for end in ends])
        labels = torch.tensor([ids[-span:] for questions in asked for ids in questions])
        with torch.autocast("cpu", torch.bfloat16):
            text_logits = network.lm_head(hidden[torch.tensor(rows)[:, None], spans])
        loss = medisee_loss(
            text_logits=text_logits,
            labels=labels,
            mask_logits=logits,
            masks=masks,
            boxes_xyxy=corners,
            target_boxes_xyxy=truth_corners,
        )
        total = loss.total
        figures = {
            "text": loss.text.item(),
            "bce": loss.bce.item(),
            "giou": loss.giou.item(),
            "dice": torch.cat([dice(x > 0, m) for x, m in zip(logits, masks, strict=True)])
            .mean()
            .item(),
            "box_iou": box_iou(corners, truth_corners).mean().item(),
        }
        if self.similarity:
            maps = similarity_map(hidden[:, image][rows], h_seg)
            extra = similarity_loss(maps[0::2], maps[1::2])
            total = total + extra
            figures["similarity"] = extra.item()
        return total, figures
