"""Sizes of TPP: the papers' (`full_profile`) and a small one to train here (`demo_profile`)."""

from dataclasses import dataclass
from typing import Literal

from transformers import ResNetConfig, RobertaConfig, SwinConfig

BackboneName = Literal["resnet50", "swin_l", "video_swin_t"]

LEVELS = 4
"""Feature maps of the deformable transformer, of strides 8, 16, 32 and 64."""


@dataclass(frozen=True)
class TppProfile:
    """Sizes of every component of TPP. The graph cuts are the same for all profiles."""

    name: str
    text: RobertaConfig
    backbone: ResNetConfig | SwinConfig
    group_norm: bool = False
    """ResNet only: group norms in place of frozen batch norms, which cannot start from scratch."""
    output_norms: bool = True
    """Swin only: layer norms on the four outputs. Swin-L has them, Video-Swin-T has not."""
    width: int = 256
    """Channels of words, pixels and queries after projection; a multiple of 32."""
    heads: int = 8
    points: int = 4
    """Points sampled by each head on each level."""
    encoder_layers: int = 4
    decoder_layers: int = 4
    feedforward_size: int = 2048
    queries: int = 5
    """Candidates on a first frame; later frames carry the best one on."""
    mask_channels: int = 8
    """Width of the dynamic mask convolutions."""
    dropout: float = 0.1

    @property
    def stage_channels(self) -> tuple[int, ...]:
        """Channels of the four stages."""
        if isinstance(self.backbone, ResNetConfig):
            return tuple(self.backbone.hidden_sizes or ())
        return tuple(self.backbone.embed_dim * 2**stage for stage in range(4))


def full_profile(backbone: BackboneName = "resnet50") -> TppProfile:
    """TPP as published, with RoBERTa-base and one of its three backbones.

    Video-Swin-T sees one frame at a time, which leaves a two-dimensional Swin-T.

    Raises:
        ValueError: if there is no such backbone.
    """
    backbones: dict[BackboneName, ResNetConfig | SwinConfig] = {
        "resnet50": ResNetConfig(),
        "swin_l": _swin(192, (2, 2, 18, 2), (6, 12, 24, 48)),
        "video_swin_t": _swin(96, (2, 2, 6, 2), (3, 6, 12, 24)),
    }
    if backbone not in backbones:
        raise ValueError(f"backbone: expected one of {sorted(backbones)}, got {backbone!r}")
    return TppProfile(
        name=f"full-{backbone}",
        text=RobertaConfig(
            vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5
        ),
        backbone=backbones[backbone],
        output_norms=backbone == "swin_l",
    )


def _swin(width: int, depths: tuple[int, ...], heads: tuple[int, ...]) -> SwinConfig:
    return SwinConfig(
        embed_dim=width,
        depths=list(depths),
        num_heads=list(heads),
        window_size=7,
    )


def demo_profile() -> TppProfile:
    """Under four million parameters: follows real structures through volumes on a laptop."""
    return TppProfile(
        name="demo",
        text=RobertaConfig(
            vocab_size=1536,
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=256,
            max_position_embeddings=130,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        ),
        backbone=ResNetConfig(
            embedding_size=32,
            hidden_sizes=[32, 64, 96, 128],
            depths=[2, 2, 2, 2],
            layer_type="basic",
        ),
        group_norm=True,
        width=96,
        encoder_layers=2,
        decoder_layers=3,
        feedforward_size=256,
    )
