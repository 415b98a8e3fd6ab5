"""Stage of MediRound's judgment and correction mechanism: all of MediRound frozen but its JCM.

As in appendix A of the paper: the corrector learns from the masks of its embeddings, the judge to
tell the IoU of the masks without it (Eq. 3).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from serving.llava_prompt import LlavaTokenizer
from training.data.views import ViewSampler
from training.mediround_losses import iou, jcm_loss
from training.networks.mediround import BETA, MediRound
from training.stages.mediround import Conversations, Conversing, held_out_dice, shown_masks
from training.stages.scores import dice


@dataclass(frozen=True)
class _Answered:
    """Conversations of K rounds about B views, and what the frozen MediRound makes of them."""

    conversations: Conversations
    image_embedding: Tensor
    """(B, C, h, w)."""
    text_embeddings: Tensor
    """(B, K, C)."""
    logits: list[Tensor]
    """Mask logits (K, H, W) of each view, without correction."""


class MediRoundJcmStage:
    """Trains the JCM of a MediRound that is trained otherwise.

    Everything else is frozen, so each batch of conversations is answered once and trained on often.

    Args:
        name: Folder of the stage.
        network: With the weights of `MediRoundStage`.
        tokenizer: With MediRound's added tokens.
        sampler: Views to train on.
        held_out: Views to measure on, with held-out wordings.
        seed: Seed of the data.
        batch_size: Conversations per step.
        batches: How many different batches there are; they come in turn.
        own_references: References are the model's own masks, round by round, as they are where
            the JCM is used, at the price of one pass per round; otherwise the true masks, as
            published.
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
        batches: int = 32,
        own_references: bool = False,
    ) -> None:
        torch.manual_seed(seed)
        self.name, self.network = name, network
        self.batch_size, self.batches = batch_size, batches
        self.own_references = own_references
        self.answered: dict[int, _Answered] = {}
        self.conversing = Conversing(network, tokenizer, sampler, held_out, seed)
        network.requires_grad_(False)
        network.jcm.requires_grad_(True)
        self.modules = nn.ModuleDict({"mediround": network})

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Loss of Eq. 3 on the batch that is next."""
        number = step % self.batches
        if number not in self.answered:
            self.answered[number] = self._answer(number)
        batch = self.answered[number]
        quality, corrected = self.network.jcm(batch.text_embeddings[:, :, None])
        corrected_logits = self.conversing.decode(
            batch.conversations.views.views, batch.image_embedding, corrected[:, :, 0]
        )
        masks = batch.conversations.truth()
        loss = jcm_loss(
            quality=quality.flatten(),
            uncorrected_logits=batch.logits,
            corrected_logits=corrected_logits,
            masks=masks,
        )
        triples = zip(corrected_logits, batch.logits, masks, strict=True)
        after, before = zip(*((dice(c > 0, m), dice(x > 0, m)) for c, x, m in triples), strict=True)
        return loss.total, {
            "score": loss.score.item(),
            "bce": loss.bce.item(),
            "dice": torch.cat(after).mean().item(),
            "dice_uncorrected": torch.cat(before).mean().item(),
        }

    def evaluate(self) -> dict[str, float]:
        """Dice per round with and without the JCM, and how far the judge's scores are off.

        References are the model's own masks. `judge_error` is the mean absolute difference of
        score and IoU, `corrected` the share of rounds that are corrected.
        """
        run = self.conversing
        errors, shares = [], []
        for conversations in run.drawn_held_out(batches=2, count=12):
            encoded = run.encode(conversations.views)
            text_embeddings, logits = run.answer(conversations, encoded, judged=False)
            quality, _ = self.network.jcm(text_embeddings[:, :, None])
            pairs = zip(logits, conversations.truth(), strict=True)
            truth = torch.stack([iou(x > 0, mask) for x, mask in pairs])
            errors.append((quality - truth).abs().mean().item())
            shares.append((quality <= BETA).float().mean().item())
        without = held_out_dice(run, judged=False)
        return {
            **held_out_dice(run, judged=True),
            **{f"{name}_without_jcm": value for name, value in without.items()},
            "judge_error": sum(errors) / len(errors),
            "corrected": sum(shares) / len(shares),
        }

    @torch.no_grad()
    def _answer(self, number: int) -> _Answered:
        self.network.mllm.eval()  # dropout would make embeddings that are never judged in use
        run = self.conversing
        conversations = run.drawn(number, self.batch_size)
        encoded, views = run.encode(conversations.views), conversations.views.views
        if self.own_references:
            text_embeddings, logits = run.answer(conversations, encoded, judged=False)
        else:
            references = shown_masks(conversations, np.random.default_rng(number))
            tokens = run.reference_tokens(views, references)
            hidden, _, positions = run.read(conversations.talks, encoded.image_rows, tokens)
            text_embeddings = run.text_embeddings(hidden, positions)
            logits = run.decode(views, encoded.image_embedding, text_embeddings)
        return _Answered(conversations, encoded.image_embedding, text_embeddings, logits)
