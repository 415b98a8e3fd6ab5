"""Sizes of CoTexNet: `full` (the paper's, CLIPSeg ViT-B/16) and `demo` (trained here)."""

from dataclasses import dataclass
from typing import TypeVar

from transformers import CLIPSegTextConfig, CLIPSegVisionConfig

C = TypeVar("C", CLIPSegVisionConfig, CLIPSegTextConfig)

NORM_EPS = 1e-5
"""Of every norm."""


@dataclass(frozen=True)
class Tower:
    """Sizes of one stack of transformer layers."""

    width: int
    layers: int
    heads: int
    feed_forward: int
    """Inner width of the perceptron of a layer."""


@dataclass(frozen=True)
class CoTexNetProfile:
    """Sizes of all networks. The graph cuts are the same for all profiles."""

    name: str
    image_size: int
    """Side S of the frame in pixels; pictures are stretched to it."""
    patch_size: int
    """Stride of the image encoder in pixels; a multiple of 4."""
    vision: Tower
    taps: tuple[int, ...]
    """Layers of the image encoder, from 0 and ascending, whose output the decoder reads."""
    text: Tower
    vocabulary_size: int
    """V; the last two ids are the start and the end of a prompt."""
    text_length: int
    """L, tokens of a prompt with start and end."""
    embedding_width: int
    """D, width of the text embedding, which the class token learns to predict."""
    decoder: Tower
    """`layers` is the number of taps."""
    convolutional_stem: bool
    """Replace the patch projection by a small convolutional stem of the same stride."""

    def __post_init__(self) -> None:
        if len(self.taps) != self.decoder.layers or self.patch_size % 4:
            raise ValueError(
                "profile: expected as many decoder layers as taps and a patch_size that 4 divides, "
                f"got {self.decoder.layers} layers, taps {self.taps}, patch_size {self.patch_size}"
            )

    @property
    def grid(self) -> int:
        """Patches along a side, S / patch_size."""
        return self.image_size // self.patch_size

    def vision_config(self) -> CLIPSegVisionConfig:
        """The image encoder's, for the layers of `transformers`."""
        return _with_fused_attention(
            CLIPSegVisionConfig(
                hidden_size=self.vision.width,
                intermediate_size=self.vision.feed_forward,
                num_hidden_layers=self.vision.layers,
                num_attention_heads=self.vision.heads,
                image_size=self.image_size,
                patch_size=self.patch_size,
                layer_norm_eps=NORM_EPS,
            )
        )

    def text_config(self) -> CLIPSegTextConfig:
        """The text encoder's, for the layers of `transformers`."""
        return _with_fused_attention(
            CLIPSegTextConfig(
                vocab_size=self.vocabulary_size,
                hidden_size=self.text.width,
                intermediate_size=self.text.feed_forward,
                num_hidden_layers=self.text.layers,
                num_attention_heads=self.text.heads,
                max_position_embeddings=self.text_length,
                bos_token_id=self.vocabulary_size - 2,
                eos_token_id=self.vocabulary_size - 1,
                layer_norm_eps=NORM_EPS,
            )
        )

    def decoder_config(self) -> CLIPSegVisionConfig:
        """Of the decoder's layers, for the layers of `transformers`."""
        return _with_fused_attention(
            CLIPSegVisionConfig(
                hidden_size=self.decoder.width,
                intermediate_size=self.decoder.feed_forward,
                num_hidden_layers=self.decoder.layers,
                num_attention_heads=self.decoder.heads,
                hidden_act="relu",
                layer_norm_eps=NORM_EPS,
            )
        )


def full_profile() -> CoTexNetProfile:
    """CLIPSeg rd64-refined, as CoTexNet was published."""
    return CoTexNetProfile(
        name="full",
        image_size=224,
        patch_size=16,
        vision=Tower(width=768, layers=12, heads=12, feed_forward=3072),
        taps=(3, 6, 9),
        text=Tower(width=512, layers=12, heads=8, feed_forward=2048),
        vocabulary_size=49408,
        text_length=77,
        embedding_width=512,
        decoder=Tower(width=64, layers=3, heads=4, feed_forward=2048),
        convolutional_stem=False,
    )


def demo_profile() -> CoTexNetProfile:
    """1.8 million parameters in the trunk, and 0.23 million more for every task."""
    return CoTexNetProfile(
        name="demo",
        image_size=128,
        patch_size=8,
        vision=Tower(width=160, layers=6, heads=5, feed_forward=480),
        taps=(1, 3, 4),
        text=Tower(width=128, layers=3, heads=4, feed_forward=384),
        # The demo's sentencepiece model has 1536 pieces; start and end come after them.
        vocabulary_size=1538,
        text_length=64,
        embedding_width=128,
        decoder=Tower(width=48, layers=3, heads=4, feed_forward=192),
        convolutional_stem=True,
    )


def _with_fused_attention(config: C) -> C:
    # Layers that stand outside a model of transformers find no choice made for them.
    config._attn_implementation = "sdpa"
    return config
