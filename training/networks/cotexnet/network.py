"""CoTexNet as it is trained, and the plain reference of what the server computes.

One frozen pair of CLIP encoders for all tasks, as published: what differs between the thirteen
released datasets is a head and, in training, what teaches it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.cotexnet.head import CoTexNetHead
from training.networks.cotexnet.image_encoder import CoTexNetImageEncoder
from training.networks.cotexnet.maps import Projection, SelfAddedNoise
from training.networks.cotexnet.profile import CoTexNetProfile
from training.networks.cotexnet.reading import RELEASED, Reading
from training.networks.cotexnet.text_encoder import CoTexNetTextEncoder, Prompts


@dataclass(frozen=True)
class CoTexNetOutput:
    """Masks, and the embeddings that the distillation compares."""

    mask_logits: Tensor
    """(B, K, S, S)."""
    features: Tensor
    """(B, 3, T, E), from the image encoder."""
    class_embedding: Tensor
    """T_c (B, D) in (0, 1), predicted from the class token."""
    text_embedding: Tensor
    """T_e (B, D), as the text encoder gives it."""
    noisy_embedding: Tensor
    """T' (B, D) of Eq. 9, which conditioned the masks."""


class Teacher(nn.Module):
    """What a task has of its own in training alone."""

    def __init__(self, profile: CoTexNetProfile, reading: Reading) -> None:
        super().__init__()
        self.roi_map = Projection(profile.vision.width, profile.text.width)
        self.noise = SelfAddedNoise(reading)


class CoTexNet(nn.Module):
    """All networks of CoTexNet.

    The released code runs the regions of interest through a second copy of the same frozen image
    encoder; here one serves both.

    Args:
        profile: Sizes.
        tasks: Name of every task and its classes without background.
        reading: The paper's or the code's.
    """

    def __init__(
        self,
        profile: CoTexNetProfile,
        tasks: Mapping[str, int],
        reading: Reading = RELEASED,
    ) -> None:
        super().__init__()
        self.profile, self.tasks, self.reading = profile, dict(tasks), reading
        self.image_encoder = CoTexNetImageEncoder(profile)
        self.text_encoder = CoTexNetTextEncoder(profile, reading)
        self.heads = nn.ModuleDict(
            {task: CoTexNetHead(profile, classes, reading) for task, classes in tasks.items()}
        )
        self.teachers = nn.ModuleDict({task: Teacher(profile, reading) for task in tasks})

    def forward(
        self,
        task: str,
        pixels: Tensor,
        prompts: Prompts,
        roi_pixels: Tensor | None = None,
    ) -> CoTexNetOutput:
        """Segment as in training, conditioned by the text with its self-added noise.

        Args:
            task: One of the network's.
            pixels: (B, 3, S, S) float32, normalised.
            prompts: Real-text prompts of the B images.
            roi_pixels: (B, n, 3, S, S): the image inside each class's mask and zero elsewhere;
                None leaves out the pseudo-text.

        Raises:
            LookupError: if the task is unknown.
        """
        head, teacher = self.head(task), self.teachers[task]
        assert isinstance(teacher, Teacher)
        features, class_token = self.image_encoder(pixels)
        class_embedding = head.class_token_map(class_token)
        roi_tokens = None
        if roi_pixels is not None:
            _, roi_class_tokens = self.image_encoder(roi_pixels.flatten(0, 1))
            roi_tokens = teacher.roi_map(roi_class_tokens.unflatten(0, roi_pixels.shape[:2]))
        text_embedding = self.text_encoder(prompts, roi_tokens)
        noisy = teacher.noise(text_embedding, class_embedding)
        condition = F.dropout(head.inverse_z_score(noisy), self.reading.dropout, self.training)
        return CoTexNetOutput(
            head.decoder(features, condition), features, class_embedding, text_embedding, noisy
        )

    def segment(self, task: str, pixels: Tensor) -> Tensor:
        """Segment as it is served, from the image alone: logits (B, K, S, S)."""
        return self.head(task)(*self.image_encoder(pixels))

    def head(self, task: str) -> CoTexNetHead:
        """What is served of one task.

        Raises:
            LookupError: if the task is unknown.
        """
        if task not in self.tasks:
            raise LookupError(f"task: expected one of {sorted(self.tasks)}, got {task!r}")
        head = self.heads[task]
        assert isinstance(head, CoTexNetHead)
        return head
