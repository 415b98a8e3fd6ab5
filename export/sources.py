"""Where exported weights come from: one description for all origins.

The language model is described by tensors, not as a network: at full size it is read, renamed
and written a tensor at a time, and never built.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

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
