"""CoTexNet's stage: the heads learn to segment with the text, and the class token to predict it.

Both are learned at once (Eq. 15). The image and the text encoder are frozen, as published, where
they are CLIP's; from scratch they are trained first, by the same stage over all tasks together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from training.cotexnet_loss import (
    cotexnet_loss,
    distillation_loss,
    mask_planes,
    segmentation_losses,
)
from training.networks.cotexnet.head import label_map
from training.networks.cotexnet.network import CoTexNet
from training.networks.cotexnet.prompts import PromptTokenizer
from training.stages.scores import dice

EVALUATION_BATCHES = 4
"""Batches of every task that an evaluation draws."""


@dataclass(frozen=True)
class CoTexNetBatch:
    """B pictures of one task."""

    task: str
    pixels: Tensor
    """(B, 3, S, S) float32, RGB, stretched to S and normalised by ImageNet's mean and deviation."""
    masks: Tensor
    """(B, n, S, S) bool, one plane per class, which do not overlap."""
    texts: Sequence[str]
    """Real-text prompt of each picture; of several classes one after the other."""


class CoTexNetSource(Protocol):
    """Where pictures come from."""

    def batch(self, task: str, count: int, rng: np.random.Generator) -> CoTexNetBatch:
        """Draw `count` pictures of a task; they depend on `rng` alone."""
        ...


class CoTexNetStage:
    """Trains tasks of a CoTexNet, a step for each in turn.

    Args:
        name: Folder of the stage.
        network: Its reading decides what is learned.
        tokenizer: Of the same profile and reading.
        source: Pictures to train on.
        held_out: Pictures to measure on.
        seed: Seed of the data.
        tasks: Those to train; all by default.
        batch_size: Pictures per step.
        train_encoders: Train both encoders as well, in place of CLIP's pretraining. Heads that
            are not among `tasks` no longer fit the encoders afterwards.
        image_only_weight: Factor of the segmentation losses of the masks that are served, made
            from the image alone. Published CoTexNet has no such term: what its decoder learns
            about the predicted embedding comes through the noise of Eq. 9.

    Raises:
        LookupError: if the network lacks a task.
    """

    def __init__(
        self,
        name: str,
        network: CoTexNet,
        tokenizer: PromptTokenizer,
        source: CoTexNetSource,
        held_out: CoTexNetSource,
        *,
        seed: int,
        tasks: Sequence[str] | None = None,
        batch_size: int = 16,
        train_encoders: bool = False,
        image_only_weight: float = 0.0,
    ) -> None:
        torch.manual_seed(seed)
        self.name, self.network, self.tokenizer = name, network, tokenizer
        self.source, self.held_out, self.seed = source, held_out, seed
        self.tasks = list(network.tasks if tasks is None else tasks)
        self.batch_size, self.image_only_weight = batch_size, image_only_weight
        network.requires_grad_(False)
        for task in self.tasks:
            network.head(task).requires_grad_(True)
            network.teachers[task].requires_grad_(True)
        for encoder in (network.image_encoder, network.text_encoder):
            encoder.requires_grad_(train_encoders)
        self.modules = nn.ModuleDict({"cotexnet": network})

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Joint loss of one task on fresh pictures."""
        task, reading = self.tasks[step % len(self.tasks)], self.network.reading
        batch = self.source.batch(task, self.batch_size, np.random.default_rng((self.seed, step)))
        prompts = self.tokenizer(batch.texts, batch.masks.shape[1])
        output = self.network(
            task, batch.pixels, prompts, regions_of_interest(batch.pixels, batch.masks)
        )
        planes = mask_planes(batch.masks)
        loss = cotexnet_loss(output, planes, reading)
        total = loss.total
        if self.image_only_weight:
            served = self.network.head(task).decode(output.features, output.class_embedding)
            total = total + self.image_only_weight * sum(
                segmentation_losses(served, planes, reading)
            )
        scores = class_dice(output.mask_logits, batch.masks)
        return total, {
            "dice_loss": loss.dice.item(),
            "cross_entropy": loss.cross_entropy.item(),
            "distillation": loss.distillation.item(),
            "dice_with_text": scores.mean().item(),
        }

    def evaluate(self) -> dict[str, float]:
        """Dice of the masks as they are served, by task and their mean, and the divergence.

        The divergence is measured without regions of interest, as in the released code.
        """
        figures, divergences = {}, []
        for number, task in enumerate(self.tasks):
            scores = []
            for batch_number in range(EVALUATION_BATCHES):
                rng = np.random.default_rng((self.seed, number, batch_number))
                batch = self.held_out.batch(task, self.batch_size, rng)
                prompts = self.tokenizer(batch.texts, batch.masks.shape[1])
                output = self.network(task, batch.pixels, prompts)
                divergences.append(distillation_loss(output, self.network.reading).item())
                served = self.network.head(task).decode(output.features, output.class_embedding)
                scores.append(class_dice(served, batch.masks))
            figures[f"dice_{task}"] = torch.cat(scores).mean().item()
        return {
            **figures,
            "dice": sum(figures.values()) / len(figures),
            "distillation": sum(divergences) / len(divergences),
        }


def regions_of_interest(pixels: Tensor, masks: Tensor) -> Tensor:
    """The picture inside each class's mask (Eq. 1).

    Made of normalised pixels, as in the released code: the zeros around are ImageNet's mean
    colour, not black.

    Args:
        pixels: (B, 3, S, S).
        masks: (B, n, S, S) bool.

    Returns:
        (B, n, 3, S, S).
    """
    return pixels[:, None] * masks[:, :, None]


def class_dice(mask_logits: Tensor, masks: Tensor) -> Tensor:
    """Dice of every class of every picture in which it is, or is said to be.

    Args:
        mask_logits: (B, K, S, S).
        masks: (B, n, S, S) bool.

    Returns:
        (N,) float32, N up to B n.
    """
    labels = label_map(mask_logits)
    found = torch.stack([labels == c + 1 for c in range(masks.shape[1])], dim=1).flatten(0, 1)
    truth = masks.flatten(0, 1)
    shown = (found | truth).flatten(1).any(dim=1)
    return dice(found[shown], truth[shown])
