"""Where exported weights come from: one description for all origins.

The language model is described by tensors, not as a network: at full size it is read, renamed
and written a tensor at a time, and never built.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from sentencepiece import SentencePieceProcessor
from torch import Tensor
from transformers import MistralForCausalLM

from training.networks.llava import LlavaImageEncoder
from training.networks.medisee_heads import BoxDecoder, DemocraticFusion
from training.networks.profiles import Profile, demo_profile
from training.networks.sam import PromptedMaskDecoder, SamImageEncoder
from training.run import WEIGHTS
from training.weights_folder import TOKENIZER, load_weights

DEMO_ENGINE = {
    # Compiling takes minutes on a small machine and gains nothing for four small layers.
    "enforce_eager": True,
    # The image's rows must fill whole blocks to be reused; the CPU's default of 128 is more than
    # the demo's image has.
    "block_size": 32,
    "environment": {"VLLM_CPU_KVCACHE_SPACE": "1"},
}


@dataclass(frozen=True)
class Networks:
    """The networks that become ONNX files, in evaluation mode."""

    image_encoder: SamImageEncoder
    llava_image_encoder: LlavaImageEncoder
    fusion: DemocraticFusion
    box_decoder: BoxDecoder
    mask_decoder: PromptedMaskDecoder


@dataclass(frozen=True)
class Adapter:
    """One LoRA adapter of the language model."""

    config: dict[str, Any]
    """Content of PEFT's `adapter_config.json`."""
    state: dict[str, Tensor]
    """Content of PEFT's `adapter_model.safetensors`."""


@dataclass(frozen=True)
class LanguageModel:
    """The shared base, its adapters and their embedding tables."""

    config: dict[str, Any]
    """Content of Hugging Face's `config.json`."""
    tensors: Callable[[], Iterator[tuple[str, Tensor]]]
    """Names as in `MistralForCausalLM.state_dict()`, one tensor at a time."""
    adapters: dict[str, Adapter]
    embeddings: dict[str, Tensor]
    """(V, E) per adapter: the token embedding its system was trained with."""
    tokenizer: Path | None
    """Sentencepiece model; None where the origin brings none."""
    engine: dict[str, Any] = field(default_factory=dict)
    """Entries of `engine.json` beside the common ones."""


@dataclass(frozen=True)
class Source:
    """Everything an export is made of."""

    description: str
    """Where the weights come from, for the manifest."""
    profile: Profile
    networks: Networks
    language_model: LanguageModel


def build_networks(profile: Profile) -> Networks:
    """The networks of a profile, not trained."""
    return Networks(
        SamImageEncoder(profile).eval(),
        LlavaImageEncoder(profile).eval(),
        DemocraticFusion(profile).eval(),
        BoxDecoder(profile).eval(),
        PromptedMaskDecoder(profile).eval(),
    )


def base_shapes(profile: Profile) -> dict[str, torch.Size]:
    """Names and shapes of the base language model, without building it."""
    with torch.device("meta"):
        base = MistralForCausalLM(profile.mistral)
    return {name: tensor.shape for name, tensor in base.state_dict().items()}


def base_config(profile: Profile) -> dict[str, Any]:
    """Content of the base's `config.json`."""
    return {**profile.mistral.to_dict(), "architectures": ["MistralForCausalLM"]}


def adapter_config(profile: Profile) -> dict[str, Any]:
    """Content of `adapter_config.json` for the LoRA that MediSee and MediRound are trained with."""
    return {
        "peft_type": "LORA",
        "r": profile.lora_rank,
        "lora_alpha": profile.lora_alpha,
        "lora_dropout": 0.05,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
    }


def check_tokenizer(file: Path, profile: Profile) -> Path:
    """Return the tokenizer as it is.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if its vocabulary is not the language model's.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; --tokenizer names a sentencepiece model")
    size = SentencePieceProcessor(model_file=str(file)).get_piece_size()
    expected = profile.mistral.vocab_size
    if size != expected:
        raise ValueError(
            f"{file}: {size} pieces, the language model of profile {profile.name} has {expected}; "
            "take the tokenizer.model that the base was published with"
        )
    return file


def demo_source(weights: Path = WEIGHTS) -> Source:
    """The committed demo weights.

    Raises:
        FileNotFoundError: if one is missing.
    """
    profile = demo_profile()
    network = load_weights(profile, weights)
    base, adapter = weights / "mllm_base", weights / "medisee_adapter"
    return Source(
        description="committed demo weights, trained by `python -m training.run`",
        profile=profile,
        networks=Networks(
            network.image_encoder,
            network.llava_image_encoder,
            network.fusion,
            network.box_decoder,
            network.mask_decoder,
        ),
        language_model=LanguageModel(
            config=json.loads((base / "config.json").read_text()),
            tensors=lambda: iter(load_file(base / "model.safetensors").items()),
            adapters={
                "medisee": Adapter(
                    json.loads((adapter / "adapter_config.json").read_text()),
                    load_file(adapter / "adapter_model.safetensors"),
                )
            },
            embeddings={"medisee": network.embed_tokens.weight.detach()},
            tokenizer=weights / TOKENIZER,
            engine=DEMO_ENGINE,
        ),
    )
