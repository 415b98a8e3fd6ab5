"""Stage 1: SAM's image encoder and mask decoder, from scratch.

Stands in for MedSAM's pretraining. The encoder learns under a dense head that labels every
structure at once (thrown away afterwards); the decoder learns to turn a box and one learned
vector per structure (thrown away too) into that structure's mask.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.data.batches import boxes_cxcywh, collate
from training.data.slices import Slice
from training.data.views import TARGETS, ViewSampler, is_abdomen
from training.networks.profiles import Profile
from training.networks.sam import PromptedMaskDecoder, SamImageEncoder
from training.stages.scores import dice


class DenseHead(nn.Module):
    """Labels every target at a quarter of the embedding's stride."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(channels, 48, 2, stride=2),
            nn.GELU(),
            nn.ConvTranspose2d(48, 24, 2, stride=2),
            nn.GELU(),
            nn.Conv2d(24, classes, 1),
        )

    def forward(self, image_embedding: Tensor) -> Tensor:
        """(B, C, h, w) -> logits (B, classes, 4 h, 4 w)."""
        return self.layers(image_embedding)


class ImageEncoderStage:
    """Trains `image_encoder` and `mask_decoder` on views of both regions.

    Args:
        profile: Sizes.
        sampler: Views to train on.
        held_out: Views to measure on.
        seed: Seed of the data.
        batch_size: Views per step.
        prompts: Prompted structures per view.
        decoder_from_step: Until then only the encoder learns, under the dense head.
    """

    name = "image_encoder"

    def __init__(
        self,
        profile: Profile,
        sampler: ViewSampler,
        held_out: ViewSampler,
        *,
        seed: int = 0,
        batch_size: int = 12,
        prompts: int = 4,
        decoder_from_step: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.image_size = profile.sam_size
        self.sampler, self.held_out_sampler = sampler, held_out
        self.rarity = self.sampler.rarity(seed)
        self.seed = seed
        self.batch_size, self.prompts = batch_size, prompts
        self.decoder_from_step = decoder_from_step
        channels = profile.sam_decoder.hidden_size
        image_encoder = SamImageEncoder(profile)
        # The stem's convolutions are a third faster so; mypy knows only `to`'s other forms.
        image_encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules = nn.ModuleDict(
            {
                "image_encoder": image_encoder,
                "mask_decoder": PromptedMaskDecoder(profile),
                "dense_head": DenseHead(channels, len(TARGETS)),
                "structure_embedding": nn.Embedding(len(TARGETS), channels),
            }
        )

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Dense loss, and from `decoder_from_step` on the loss of prompted masks."""
        views_rng = np.random.default_rng((self.seed, step))
        views = [self.sampler.draw(views_rng) for _ in range(self.batch_size)]
        batch = collate(views, self.image_size, frames_of(views))
        with torch.autocast("cpu", torch.bfloat16):
            embedding = self.modules["image_encoder"](batch.sam_pixels)
            dense = self.modules["dense_head"](embedding)
        targets = F.avg_pool2d(batch.masks.float(), self.image_size // dense.shape[-1])
        dense_loss = mask_loss(dense.float().flatten(0, 1), targets.flatten(0, 1))
        if step < self.decoder_from_step:
            return dense_loss, {}

        rng = torch.Generator().manual_seed(self.seed + step)
        chosen = torch.stack([self._choose(view.present, rng) for view in batch.views])
        boxes = torch.stack(
            [boxes_cxcywh(view.masks[i]) for view, i in zip(batch.views, chosen, strict=True)]
        )
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.modules["mask_decoder"](
                embedding,
                self.modules["structure_embedding"](chosen)[:, :, None],
                _disturb(boxes, rng),
            )
        prompted = torch.stack([t[i] for t, i in zip(targets, chosen, strict=True)])
        prompted_loss = mask_loss(logits.float().flatten(0, 1), prompted.flatten(0, 1))
        return dense_loss + prompted_loss, {
            "dense": dense_loss.item(),
            "prompted": prompted_loss.item(),
        }

    def evaluate(self) -> dict[str, float]:
        """Mean Dice of dense and prompted masks on held-out views, of each region."""
        rng = np.random.default_rng(self.seed)
        scores: dict[str, list[Tensor]] = {
            f"{region}_{kind}": []
            for region in ("brain", "abdomen")
            for kind in ("dense", "prompted")
        }
        for _ in range(4):
            views = [self.held_out_sampler.draw(rng) for _ in range(12)]
            batch = collate(views, self.image_size, frames_of(views))
            with torch.autocast("cpu", torch.bfloat16):
                embedding = self.modules["image_encoder"](batch.sam_pixels)
                dense = self.modules["dense_head"](embedding)
            scale = self.image_size // dense.shape[-1]
            dense = F.interpolate(dense.float(), scale_factor=scale, mode="bilinear")
            for index, view in enumerate(batch.views):
                region = "abdomen" if is_abdomen(view) else "brain"
                present = view.present.nonzero()[:, 0]
                truth = batch.masks[index][present]
                scores[f"{region}_dense"].append(dice(dense[index][present] > 0, truth))
                with torch.autocast("cpu", torch.bfloat16):
                    logits = self.modules["mask_decoder"](
                        embedding[index : index + 1],
                        self.modules["structure_embedding"](present)[None, :, None],
                        boxes_cxcywh(view.masks[present])[None],
                    )
                logits = F.interpolate(logits.float(), scale_factor=scale, mode="bilinear")
                scores[f"{region}_prompted"].append(dice(logits[0] > 0, truth))
        return {name: torch.cat(values).mean().item() for name, values in scores.items()}

    def _choose(self, present: Tensor, rng: torch.Generator) -> Tensor:
        """Indices of present structures, rare ones rather; each once where there are enough."""
        weights = self.rarity * present
        count = min(self.prompts, int(present.sum()))
        order = torch.multinomial(weights, count, generator=rng)
        return order.repeat(self.prompts)[: self.prompts]


def frames_of(views: list[Slice]) -> list[bool]:
    """Which views get Organ-Seg's frames: every second one of the abdomen."""
    return [index % 2 == 0 and is_abdomen(view) for index, view in enumerate(views)]


def mask_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """BCE (weight 2) and Dice (weight 1) of (N, h, w) logits against soft targets in [0, 1].

    Absent structures count in the BCE; their Dice would only reward silence.
    """
    bce = F.binary_cross_entropy_with_logits(logits, targets)
    somewhere = targets.flatten(1).amax(dim=1) > 0.5
    probabilities, truth = logits[somewhere].sigmoid().flatten(1), targets[somewhere].flatten(1)
    overlap = (probabilities * truth).sum(dim=1)
    dice = 1 - (2 * overlap + 1) / (probabilities.sum(dim=1) + truth.sum(dim=1) + 1)
    return 2 * bce + dice.mean()


def _disturb(boxes: Tensor, rng: torch.Generator) -> Tensor:
    """Boxes about as wrong as a box decoder's: the mask decoder must not trust them fully."""
    size = boxes[..., 2:].repeat(1, 1, 2)
    sloppy = torch.rand(boxes.shape[:2], generator=rng) < 0.25
    spread = torch.where(sloppy, 0.25, 0.06)[..., None]
    return (boxes + spread * size * torch.randn(boxes.shape, generator=rng)).clamp(0, 1)
