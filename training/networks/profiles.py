"""Sizes of the networks: `demo` (trained here from scratch), `full` (the papers'), and a mix."""

from dataclasses import dataclass, replace
from typing import Literal

from transformers import (
    CLIPVisionConfig,
    MistralConfig,
    SamMaskDecoderConfig,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

ProfileName = Literal["demo", "full", "full-sam"]


@dataclass(frozen=True)
class Profile:
    """Sizes of every component of MediSee. The graph cuts are the same for all profiles."""

    name: str
    sam_vision: SamVisionConfig
    sam_prompt: SamPromptEncoderConfig
    sam_decoder: SamMaskDecoderConfig
    clip: CLIPVisionConfig
    mistral: MistralConfig
    convolutional_stem: bool
    """Replace the two patch projections by small convolutional stems of the same stride."""
    clip_select_layer: int = -2
    """Which of CLIP's hidden states feeds the projector (LLaVA's `mm_vision_select_layer`)."""
    router_hidden_size: int = 1024
    """Inner width of the two routers (paper, section 5.1)."""
    box_hidden_size: int = 512
    """Inner width of the box decoder (paper, section 5.1)."""
    jcm_hidden_size: int = 512
    """Inner width of both MLPs of MediRound's judgment and correction mechanism (appendix A)."""
    lora_rank: int = 8
    lora_alpha: int = 16

    @property
    def sam_size(self) -> int:
        """Side of the SAM frame in pixels."""
        return _side(self.sam_vision.image_size)

    @property
    def sam_patch(self) -> int:
        """Stride of the SAM image encoder in pixels."""
        return _side(self.sam_vision.patch_size)

    @property
    def clip_size(self) -> int:
        """Side of the CLIP frame in pixels."""
        return _side(self.clip.image_size)

    @property
    def clip_patch(self) -> int:
        """Stride of the CLIP tower in pixels."""
        return _side(self.clip.patch_size)

    @property
    def image_tokens(self) -> int:
        """Patch tokens of one image, without CLS."""
        return (self.clip_size // self.clip_patch) ** 2


def _side(size: object) -> int:
    """Side of a square; transformers also allows (height, width), which nothing here uses."""
    if not isinstance(size, int):
        raise TypeError(f"size: expected one int for a square, got {size!r}")
    return size


def full_profile() -> Profile:
    """MedSAM ViT-B at 1024 px, CLIP ViT-L/14-336, Mistral-7B, as MediSee was published."""
    return Profile(
        name="full",
        # transformers' default, 1e-10, would start the layers from almost zero.
        sam_vision=SamVisionConfig(initializer_range=0.02),
        sam_prompt=SamPromptEncoderConfig(),
        # SAM leaves these norms at torch's default; transformers' is another.
        sam_decoder=SamMaskDecoderConfig(layer_norm_eps=1e-5),
        clip=CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            projection_dim=768,
            num_hidden_layers=24,
            num_attention_heads=16,
            image_size=336,
            patch_size=14,
        ),
        mistral=MistralConfig(
            vocab_size=32000,
            hidden_size=4096,
            intermediate_size=14336,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
            max_position_embeddings=32768,
            rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            sliding_window=None,
        ),
        convolutional_stem=False,
    )


def demo_profile() -> Profile:
    """About eight million parameters: makes real masks of MNI slices on a laptop."""
    image_size, sam_patch, channels = 160, 8, 192
    return Profile(
        name="demo",
        sam_vision=SamVisionConfig(
            hidden_size=160,
            output_channels=channels,
            num_hidden_layers=3,
            num_attention_heads=5,
            image_size=image_size,
            patch_size=sam_patch,
            window_size=10,
            global_attn_indexes=(1,),
            mlp_ratio=3.0,
            mlp_dim=480,
            num_pos_feats=channels // 2,
            initializer_range=0.02,
        ),
        sam_prompt=SamPromptEncoderConfig(
            hidden_size=channels, image_size=image_size, patch_size=sam_patch
        ),
        sam_decoder=SamMaskDecoderConfig(
            hidden_size=channels, mlp_dim=256, num_attention_heads=8, iou_head_hidden_dim=64
        ),
        clip=CLIPVisionConfig(
            hidden_size=192,
            intermediate_size=576,
            num_hidden_layers=5,
            num_attention_heads=6,
            image_size=image_size,
            patch_size=16,
        ),
        mistral=MistralConfig(
            vocab_size=1536,
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=64,
            max_position_embeddings=2048,
            rms_norm_eps=1e-5,
            sliding_window=None,
            tie_word_embeddings=False,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        ),
        convolutional_stem=True,
        router_hidden_size=256,
        box_hidden_size=256,
        jcm_hidden_size=256,
        # In a language model as narrow as this one, rank 8 is too little to learn a conversation.
        lora_rank=32,
        lora_alpha=64,
    )


def full_sam_profile() -> Profile:
    """SAM at full size beside the demo's language branch: the image side's cost on a laptop."""
    full = full_profile()
    return replace(
        demo_profile(),
        name="full-sam",
        sam_vision=full.sam_vision,
        sam_prompt=full.sam_prompt,
        sam_decoder=full.sam_decoder,
        convolutional_stem=False,
    )


def profile(name: ProfileName) -> Profile:
    """The profile of that name.

    Raises:
        ValueError: if there is none.
    """
    builders = {"demo": demo_profile, "full": full_profile, "full-sam": full_sam_profile}
    if name not in builders:
        raise ValueError(f"profile: expected one of {sorted(builders)}, got {name!r}")
    return builders[name]()
