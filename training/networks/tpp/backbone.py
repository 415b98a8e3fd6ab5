"""Feature maps of one frame: a ResNet or a Swin transformer of `transformers`."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import ResNetBackbone, ResNetConfig, SwinBackbone

from training.networks.tpp.profile import TppProfile

STAGES = ["stage1", "stage2", "stage3", "stage4"]
"""Of strides 4, 8, 16 and 32."""


class FrozenBatchNorm(nn.Module):
    """Batch norm whose statistics and affine parameters stay as they were loaded."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            self.register_buffer(name, torch.full((channels,), float(value)))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return features * scale[:, None, None] + shift[:, None, None]


class Backbone(nn.Module):
    """Four feature maps of strides 4, 8, 16 and 32."""

    def __init__(self, profile: TppProfile) -> None:
        super().__init__()
        config = type(profile.backbone).from_dict(
            {**profile.backbone.to_dict(), "out_features": STAGES, "out_indices": None}
        )
        self.network: ResNetBackbone | SwinBackbone
        if isinstance(config, ResNetConfig):
            self.network = ResNetBackbone(config)
            _replace_norms(self.network, _group_norm if profile.group_norm else FrozenBatchNorm)
        else:
            self.network = SwinBackbone(config)
            if not profile.output_norms:
                self.network.hidden_states_norms = nn.ModuleDict(
                    {stage: nn.Identity() for stage in STAGES}
                )

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Compute the feature maps.

        Args:
            frames: (B, 3, H, W) float, RGB in [0, 1] less ImageNet's mean, by its deviation.

        Returns:
            (B, C_s, ceil(H / s), ceil(W / s)) of the strides s = 4, 8, 16, 32.
        """
        return list(self.network(frames).feature_maps)


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(8, channels)


def _replace_norms(module: nn.Module, build: Callable[[int], nn.Module]) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, build(child.num_features))
        else:
            _replace_norms(child, build)
