"""Stage of MediRound itself: conversations with the true masks as references (teacher forcing).

As published: image encoders, projector and base language model are frozen; the LoRA adapter, the
token embedding and head, the mask decoder, the text projection and the box encoder learn, under
the loss of the paper (Eq. 4). One sequence holds a whole conversation.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serving.llava_prompt import IMAGE_SEGMENT, LlavaTokenizer
from serving.mediround_prompt import Turn, answer_ids, conversation_prompt
from serving.preprocessing import clip_frame
from serving.reference_region import reference_region
from training.data.batches import ViewBatch, collate
from training.data.dialogues import DialogueRound, dialogue
from training.data.questions import Split
from training.data.slices import Slice
from training.data.views import TARGETS, ViewSampler
from training.mediround_losses import mediround_loss
from training.networks.mediround import BETA, MediRound
from training.networks.medisee import resize_logits
from training.stages.scores import dice

TRAINED_ROUNDS = (3, 8)
"""Fewest and most rounds of a conversation in training."""
HELD_OUT_ROUNDS = 6
LESION_SHARE = 0.2
"""Share of views drawn to show a lesion, which few do by chance."""
DISTURBED_SHARE = 0.5
"""Share of true masks that are grown or shrunk a little before they are shown as references.

In use, references are the model's own masks, which are never quite right.
"""
DISTURBED_PX = 2
"""Most pixels by which an edge is moved."""


@dataclass(frozen=True)
class Conversations:
    """B views and a conversation of K rounds about each."""

    views: ViewBatch
    talks: list[list[DialogueRound]]

    def truth(self) -> list[Tensor]:
        """True masks of each view's rounds, (K, H, W) bool."""
        return [
            view.masks[[one.target for one in talk]]
            for view, talk in zip(self.views.views, self.talks, strict=True)
        ]


@dataclass(frozen=True)
class Encoded:
    """What the frozen encoders say about B views."""

    image_rows: Tensor
    """(B, T, E)."""
    image_embedding: Tensor
    """(B, C, h, w)."""


class Conversing:
    """Draws conversations and runs a MediRound over batches of them.

    Args:
        network: The MediRound.
        tokenizer: With MediRound's added tokens.
        sampler: Views to train on.
        held_out: Views to measure on, with held-out wordings.
        seed: Seed of the data.
    """

    def __init__(
        self,
        network: MediRound,
        tokenizer: LlavaTokenizer,
        sampler: ViewSampler,
        held_out: ViewSampler,
        seed: int,
    ) -> None:
        self.network, self.tokenizer = network, tokenizer
        self.sampler, self.held_out, self.seed = sampler, held_out, seed
        self.image_size = network.profile.sam_size
        self.rarity = sampler.rarity(seed).tolist()

    def drawn(self, step: int, count: int) -> Conversations:
        """Conversations to train on at a step, all of one length."""
        views_rng, rng = np.random.default_rng((self.seed, step)), random.Random(self.seed + step)
        return self._draw(
            self.sampler, views_rng, rng, "train", count, rng.randint(*TRAINED_ROUNDS)
        )

    def drawn_held_out(self, batches: int, count: int) -> list[Conversations]:
        """Batches of conversations to measure on, always the same."""
        views_rng, rng = np.random.default_rng(self.seed), random.Random(self.seed)
        return [
            self._draw(self.held_out, views_rng, rng, "test", count, HELD_OUT_ROUNDS)
            for _ in range(batches)
        ]

    def _draw(
        self,
        sampler: ViewSampler,
        views_rng: np.random.Generator,
        rng: random.Random,
        split: Split,
        count: int,
        rounds: int,
    ) -> Conversations:
        lesion = len(TARGETS) - 1
        views = [
            sampler.draw(views_rng, lesion if rng.random() < LESION_SHARE else None)
            for _ in range(count)
        ]
        talks = [
            dialogue(view.present, view.masks, rng, split, rounds, self.rarity) for view in views
        ]
        return Conversations(collate(views, self.image_size), talks)

    @torch.no_grad()
    def encode(self, views: ViewBatch) -> Encoded:
        """Both image encoders over a batch."""
        image_rows = self.image_rows(views)
        with torch.autocast("cpu", torch.bfloat16):
            return Encoded(image_rows, self.network.image_encoder(views.sam_pixels))

    @torch.no_grad()
    def image_rows(self, views: ViewBatch) -> Tensor:
        """(B, T, E) of what the language model sees of each view."""
        with torch.autocast("cpu", torch.bfloat16):
            image_rows, _ = self.network.llava_image_encoder(views.clip_pixels)
        return image_rows.float()

    def reference_tokens(self, views: Sequence[Slice], masks: Sequence[Sequence[Tensor]]) -> Tensor:
        """Tokens (N, 2, E) of all masks (H, W) shown as references of each view, in order.

        The crop is made as at inference, window and all; the released data loader takes another
        window in training than in evaluation.
        """
        frames, boxes = [], []
        for view, shown in zip(views, masks, strict=True):
            image = view.image[..., None].expand(-1, -1, 3).numpy()
            for mask in shown:
                crop, box = reference_region(image, mask.numpy())
                frames.append(torch.from_numpy(clip_frame(crop, self.image_size)))
                boxes.append(torch.from_numpy(box))
        if not frames:
            return torch.zeros(0, 2, self.network.profile.mistral.hidden_size)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                _, cls_tokens = self.network.llava_image_encoder(torch.stack(frames))
            box_tokens = self.network.box_encoder(torch.stack(boxes))
        return torch.cat([cls_tokens.float(), box_tokens.float()[:, None]], dim=1)

    def read(
        self,
        talks: Sequence[Sequence[DialogueRound]],
        image_rows: Tensor,
        reference_tokens: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the language model over whole conversations with their answers.

        Args:
            talks: B conversations of K rounds.
            image_rows: (B, T, E).
            reference_tokens: (N, 2, E) of all references, conversation by conversation.

        Returns:
            hidden (B, L, E); token_ids (B, L), 0 where there is none; and positions (B, K) of the
            space that predicts each round's [SEG].
        """
        network, patches = self.network, image_rows.shape[1]
        prompts, ends = [], []
        for talk in talks:
            ids, hidden_positions = conversation_prompt(
                self.tokenizer, [Turn(one.prompt, len(one.references)) for one in talk]
            )
            start = ids.index(IMAGE_SEGMENT)
            ids[start + 1 : start + 1] = [IMAGE_SEGMENT] * (patches - 1)
            ends.append([len(ids) + position for position in hidden_positions])
            prompts.append([*ids, *answer_ids(self.tokenizer)])
        token_ids = torch.zeros(len(prompts), max(map(len, prompts)), dtype=torch.long)
        for row, ids in enumerate(prompts):
            token_ids[row, : len(ids)] = torch.tensor(ids)
        places = token_ids == IMAGE_SEGMENT
        token_ids = token_ids.clamp(min=0)

        # Behind the image's rows, which come first in every sequence, stand the references'.
        segments = []
        taken = 0
        for talk, rows in zip(talks, image_rows, strict=True):
            count = sum(len(one.references) for one in talk)
            segments += [rows, reference_tokens[taken : taken + count].flatten(0, 1)]
            taken += count
        embeddings = network.embed_tokens(token_ids)
        embeddings = embeddings.masked_scatter(places[..., None], torch.cat(segments))
        with torch.autocast("cpu", torch.bfloat16):
            # Padding stands at the end, where the causal mask hides it from all that counts.
            hidden = network.mllm.model.model(
                inputs_embeds=embeddings, use_cache=False
            ).last_hidden_state
        return hidden, token_ids, torch.tensor(ends)

    def text_embeddings(self, hidden: Tensor, positions: Tensor) -> Tensor:
        """(B, K, C) of hidden states (B, L, E) at positions (B, K)."""
        rows = torch.arange(len(hidden))[:, None]
        with torch.autocast("cpu", torch.bfloat16):
            projected: Tensor = self.network.text_projection(hidden[rows, positions])
        return projected.float()

    def decode(
        self, views: Sequence[Slice], image_embedding: Tensor, text_embeddings: Tensor
    ) -> list[Tensor]:
        """Mask logits (K, H, W) of each view, from text embeddings (B, K, C)."""
        with torch.autocast("cpu", torch.bfloat16):
            low_res = self.network.mask_decoder(image_embedding, text_embeddings[:, :, None], None)
        return [
            resize_logits(low_res[i : i + 1], self.image_size, view.image.shape, view.image.shape)[
                0
            ]
            for i, view in enumerate(views)
        ]

    @torch.no_grad()
    def answer(
        self, talks: Conversations, encoded: Encoded, *, judged: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """Answer round by round, with the masks made so far as references.

        Args:
            talks: B conversations of K rounds.
            encoded: Of the same views.
            judged: Correct every embedding whose score is at most `BETA` (Algorithm 1).

        Returns:
            Text embeddings (B, K, C) before any correction, and mask logits (K, H, W) per view.
        """
        views = talks.views.views
        logits: list[list[Tensor]] = [[] for _ in views]
        text_embeddings = []
        for number in range(1, len(talks.talks[0]) + 1):
            asked = [talk[:number] for talk in talks.talks]
            shown = [
                [made[reference - 1] > 0 for one in talk for reference in one.references]
                for talk, made in zip(asked, logits, strict=True)
            ]
            tokens = self.reference_tokens(views, shown)
            hidden, _, positions = self.read(asked, encoded.image_rows, tokens)
            text_embedding = self.text_embeddings(hidden, positions[:, -1:])
            text_embeddings.append(text_embedding)
            if judged:
                quality, corrected = self.network.jcm(text_embedding[:, :, None])
                text_embedding = torch.where(
                    quality[..., None] > BETA, text_embedding, corrected[:, :, 0]
                )
            for made, logit in zip(
                logits, self.decode(views, encoded.image_embedding, text_embedding), strict=True
            ):
                made.append(logit[0])
        return torch.cat(text_embeddings, dim=1), [torch.stack(made) for made in logits]


class MediRoundStage:
    """Trains a MediRound whose frozen parts come from the shared stages.

    Args:
        name: Folder of the stage.
        network: With the earlier stages' weights loaded.
        tokenizer: With MediRound's added tokens.
        sampler: Views to train on.
        held_out: Views to measure on, with held-out wordings.
        seed: Seed of the data.
        batch_size: Conversations per step.
        structure_vectors: (30, C) prompt vectors that the image encoder's stage learned, in the
            order of `TARGETS`. During `align_steps` the text embeddings are only drawn towards
            them, which starts them where the mask decoder listens; None leaves that out.
        align_steps: Length of that start.
    """

    def __init__(
        self,
        name: str,
        network: MediRound,
        tokenizer: LlavaTokenizer,
        sampler: ViewSampler,
        held_out: ViewSampler,
        *,
        seed: int,
        batch_size: int = 12,
        structure_vectors: Tensor | None = None,
        align_steps: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.name, self.network, self.batch_size = name, network, batch_size
        self.structure_vectors, self.align_steps = structure_vectors, align_steps
        self.conversing = Conversing(network, tokenizer, sampler, held_out, seed)
        for part in (network.image_encoder, network.llava_image_encoder, network.jcm):
            part.requires_grad_(False)
        self.modules = nn.ModuleDict({"mediround": network})

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Loss of Eq. 4 on fresh conversations."""
        conversations = self.conversing.drawn(step, self.batch_size)
        references = shown_masks(conversations, np.random.default_rng(step))
        return self._losses(conversations, references, aligning=step < self.align_steps)

    def evaluate(self) -> dict[str, float]:
        """Dice per round with the model's own masks as references, without correction."""
        return held_out_dice(self.conversing, judged=False)

    def _losses(
        self, conversations: Conversations, references: list[list[Tensor]], *, aligning: bool
    ) -> tuple[Tensor, dict[str, float]]:
        run, views = self.conversing, conversations.views
        image_rows = run.image_rows(views)
        tokens = run.reference_tokens(views.views, references)
        hidden, token_ids, positions = run.read(conversations.talks, image_rows, tokens)
        text_embeddings = run.text_embeddings(hidden, positions)
        if aligning and self.structure_vectors is not None:
            targets = [[one.target for one in talk] for talk in conversations.talks]
            goal = self.structure_vectors[torch.tensor(targets)]
            alignment = F.mse_loss(text_embeddings, goal) / goal.var()
            return alignment, {"alignment": alignment.item()}

        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            image_embedding = self.network.image_encoder(views.sam_pixels)
        logits = run.decode(views.views, image_embedding, text_embeddings)
        masks = conversations.truth()
        # Supervised are the tokens from the space before [SEG] to the end of the answer; the `]`
        # before them predicts the first.
        span = torch.arange(-1, 1 + len(answer_ids(run.tokenizer)))
        spans = positions.flatten()[:, None] + span
        rows = torch.arange(len(positions)).repeat_interleave(positions.shape[1])[:, None]
        with torch.autocast("cpu", torch.bfloat16):
            text_logits = self.network.lm_head(hidden[rows, spans])
        loss = mediround_loss(
            text_logits=text_logits,
            labels=token_ids[rows, spans],
            mask_logits=logits,
            masks=masks,
        )
        scores = torch.cat([dice(x > 0, mask) for x, mask in zip(logits, masks, strict=True)])
        return loss.total, {
            "text": loss.text.item(),
            "bce": loss.bce.item(),
            "dice": scores.mean().item(),
        }


def shown_masks(conversations: Conversations, rng: np.random.Generator) -> list[list[Tensor]]:
    """True masks of all references of each view, some of them disturbed."""
    return [
        [_disturbed(truth[reference - 1], rng) for one in talk for reference in one.references]
        for truth, talk in zip(conversations.truth(), conversations.talks, strict=True)
    ]


def _disturbed(mask: Tensor, rng: np.random.Generator) -> Tensor:
    """A mask (H, W) bool with its edge moved out or in, or as it was."""
    if rng.random() > DISTURBED_SHARE:
        return mask
    size = 2 * int(rng.integers(1, DISTURBED_PX + 1)) + 1
    outside = bool(rng.random() < 0.5)
    # Shrinking a mask is growing what is around it.
    grown = F.max_pool2d((mask ^ outside)[None].float(), size, stride=1, padding=size // 2)[0] > 0
    moved = grown ^ outside
    return moved if moved.any() else mask


def held_out_dice(conversing: Conversing, *, judged: bool, batches: int = 4) -> dict[str, float]:
    """Mean Dice on held-out views and wordings: over all rounds, and per round index.

    References are the model's own masks.
    """
    scores = []
    for conversations in conversing.drawn_held_out(batches, count=12):
        encoded = conversing.encode(conversations.views)
        _, logits = conversing.answer(conversations, encoded, judged=judged)
        pairs = zip(logits, conversations.truth(), strict=True)
        scores += [dice(x > 0, mask) for x, mask in pairs]
    by_round = torch.stack(scores).mean(dim=0).tolist()
    return {
        "dice": sum(by_round) / len(by_round),
        **{f"dice_round_{number}": value for number, value in enumerate(by_round, start=1)},
    }
