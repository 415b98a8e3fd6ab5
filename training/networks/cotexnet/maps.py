"""The small maps between CLIP's class token and its text space."""

import torch
from torch import Tensor, nn

from training.networks.cotexnet.profile import CoTexNetProfile
from training.networks.cotexnet.reading import Reading

INITIAL_NOISE = 0.2
INITIAL_SCALE = 1.0
INITIAL_SHIFT = -0.002


class Projection(nn.Sequential):
    """Two linear layers with GELU and a norm: (..., E) -> (..., outputs) (section 3.1)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Linear(inputs, outputs),
            nn.GELU(),
            nn.Linear(outputs, outputs),
            nn.LayerNorm(outputs),
        )


class Perceptron(nn.Sequential):
    """Three linear layers with ReLU: (..., E) -> (..., outputs); the code's map."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Linear(inputs, inputs),
            nn.ReLU(),
            nn.Linear(inputs, inputs),
            nn.ReLU(),
            nn.Linear(inputs, outputs),
        )


class ClassTokenMap(nn.Module):
    """Predicts the text embedding from the class token (Eq. 8)."""

    def __init__(self, profile: CoTexNetProfile, reading: Reading) -> None:
        super().__init__()
        kind = Perceptron if reading.student_map == "perceptron" else Projection
        self.layers = kind(profile.vision.width, profile.embedding_width)
        self.double_sigmoid = reading.double_sigmoid

    def forward(self, class_token: Tensor) -> Tensor:
        """(B, E) -> T_c (B, D) in (0, 1), or in (0.5, 0.731) under `double_sigmoid`."""
        mapped = self.layers(class_token)
        if self.double_sigmoid:
            mapped = torch.sigmoid(mapped)
        return torch.sigmoid(mapped)


class InverseZScore(nn.Module):
    """Learned scale and shift, one number each, of what conditions the decoder (Eq. 11)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([INITIAL_SCALE]))
        self.shift = nn.Parameter(torch.tensor([INITIAL_SHIFT]))

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        return embedding * self.scale + self.shift


class SelfAddedNoise(nn.Module):
    """Mixes the text embedding with its own prediction, in a learned ratio (Eq. 9)."""

    def __init__(self, reading: Reading) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor([INITIAL_NOISE]))
        self.after_sigmoid = reading.noise == "after_sigmoid"

    def forward(self, text_embedding: Tensor, class_embedding: Tensor) -> Tensor:
        """Mix T_e (B, D), any values, with T_c (B, D) in (0, 1): T' (B, D)."""
        if self.after_sigmoid:
            return torch.lerp(torch.sigmoid(text_embedding), class_embedding, self.alpha)
        return torch.sigmoid(torch.lerp(text_embedding, class_embedding, self.alpha))
