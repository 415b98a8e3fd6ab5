"""Where exported weights come from: one description for all origins.

The language model is described by tensors, not as a network: at full size it is read, renamed
and written a tensor at a time, and never built.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from sentencepiece import SentencePieceProcessor
from torch import Tensor, nn
from transformers import MistralForCausalLM

from serving.context_cache import METADATA_FILE
from serving.organseg_prompt import DEMO_TEMPLATE
from training.networks.llava import LlavaImageEncoder
from training.networks.mediround import (
    BoxEncoder,
    JudgmentCorrection,
    MediRound,
    TextProjection,
)
from training.networks.medisee import MediSee
from training.networks.medisee_heads import BoxDecoder, DemocraticFusion
from training.networks.organseg import OrganSeg, OrganSegExtractors
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
class MediSeeNetworks:
    """What MediSee has of its own."""

    fusion: DemocraticFusion
    box_decoder: BoxDecoder
    mask_decoder: PromptedMaskDecoder


@dataclass(frozen=True)
class MediRoundNetworks:
    """What MediRound has of its own."""

    box_encoder: BoxEncoder
    text_projection: TextProjection
    jcm: JudgmentCorrection
    mask_decoder: PromptedMaskDecoder


@dataclass(frozen=True)
class OrganSegNetworks:
    """What Organ-Seg has of its own."""

    extractors: OrganSegExtractors
    mask_decoder: PromptedMaskDecoder


@dataclass(frozen=True)
class Networks:
    """The networks that become ONNX files, in evaluation mode; a system may be missing."""

    image_encoder: SamImageEncoder
    llava_image_encoder: LlavaImageEncoder
    medisee: MediSeeNetworks | None = None
    mediround: MediRoundNetworks | None = None
    organseg: OrganSegNetworks | None = None

    def modules(self) -> nn.ModuleDict:
        """All networks that are there, by their names here; those of systems one level down."""
        parts: dict[str, nn.Module] = {}
        for name, part in vars(self).items():
            if isinstance(part, nn.Module):
                parts[name] = part
            elif part is not None:
                parts[name] = nn.ModuleDict(vars(part))
        return nn.ModuleDict(parts)


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
class OrganSegTexts:
    """What Organ-Seg is told in words."""

    context: Path
    """Folder of a context cache, as `training.context_cache` writes it."""
    template: str
    """Prompt around a question, `serving.organseg_prompt`."""


@dataclass(frozen=True)
class Source:
    """Everything an export is made of."""

    description: str
    """Where the weights come from, for the manifest."""
    profile: Profile
    networks: Networks
    language_model: LanguageModel
    organseg: OrganSegTexts | None = None
    """Missing where the networks have no Organ-Seg."""


def build_medisee(profile: Profile) -> Networks:
    """The shared encoders and MediSee's networks, not trained."""
    return _evaluating(
        Networks(
            SamImageEncoder(profile),
            LlavaImageEncoder(profile),
            medisee=MediSeeNetworks(
                DemocraticFusion(profile), BoxDecoder(profile), PromptedMaskDecoder(profile)
            ),
        )
    )


def build_networks(profile: Profile) -> Networks:
    """The networks of all systems, not trained."""
    return _evaluating(
        replace(
            build_medisee(profile),
            mediround=MediRoundNetworks(
                BoxEncoder(profile),
                TextProjection(profile),
                JudgmentCorrection(profile),
                PromptedMaskDecoder(profile),
            ),
            organseg=OrganSegNetworks(OrganSegExtractors(profile), PromptedMaskDecoder(profile)),
        )
    )


def _evaluating(networks: Networks) -> Networks:
    networks.modules().eval()
    return networks


def base_shapes(profile: Profile) -> dict[str, torch.Size]:
    """Names and shapes of the base language model, without building it."""
    with torch.device("meta"):
        base = MistralForCausalLM(profile.mistral)
    return {name: tensor.shape for name, tensor in base.state_dict().items()}


def base_config(profile: Profile) -> dict[str, Any]:
    """Content of the base's `config.json`."""
    return {**profile.mistral.to_dict(), "architectures": ["MistralForCausalLM"]}


def adapter_config(profile: Profile) -> dict[str, Any]:
    """Content of `adapter_config.json` for the LoRA that all systems are trained with."""
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
    medisee = load_weights(MediSee(profile), weights)
    mediround = load_weights(MediRound(profile), weights)
    organseg = load_weights(OrganSeg(profile), weights)
    base = weights / "mllm_base"
    return Source(
        description="committed demo weights, trained by `python -m training.run`",
        profile=profile,
        networks=Networks(
            medisee.image_encoder,
            medisee.llava_image_encoder,
            MediSeeNetworks(medisee.fusion, medisee.box_decoder, medisee.mask_decoder),
            MediRoundNetworks(
                mediround.box_encoder,
                mediround.text_projection,
                mediround.jcm,
                mediround.mask_decoder,
            ),
            OrganSegNetworks(organseg.extractors, organseg.mask_decoder),
        ),
        language_model=LanguageModel(
            config=json.loads((base / "config.json").read_text()),
            tensors=lambda: iter(load_file(base / "model.safetensors").items()),
            adapters={
                system.adapter: _read_adapter(weights / f"{system.adapter}_adapter")
                for system in (medisee, mediround, organseg)
            },
            embeddings={
                system.adapter: system.embed_tokens.weight.detach()
                for system in (medisee, mediround)
            },
            tokenizer=weights / TOKENIZER,
            engine=DEMO_ENGINE,
        ),
        organseg=OrganSegTexts(context_folder(weights), DEMO_TEMPLATE),
    )


def joined(first: Source, second: Source) -> Source:
    """Two systems on one base: what both share is taken from the first.

    Both were trained with these parts frozen, so that they are the same where the weights are.
    """
    own = {name: part for name, part in vars(second.networks).items() if part is not None}
    base = first.language_model
    return replace(
        first,
        description=f"{first.description}; {second.description}",
        networks=Networks(
            **(own | {k: v for k, v in vars(first.networks).items() if v is not None})
        ),
        language_model=replace(
            base,
            adapters=base.adapters | second.language_model.adapters,
            embeddings=base.embeddings | second.language_model.embeddings,
        ),
    )


def context_folder(weights: Path) -> Path:
    """Folder of the one context cache that a folder of weights was trained with.

    Raises:
        FileNotFoundError: if there is none, or more than one.
    """
    versions = sorted((weights / "organseg_context").glob(f"*/{METADATA_FILE}"))
    if len(versions) != 1:
        raise FileNotFoundError(
            f"{weights / 'organseg_context'}: expected the folder of one context cache, found "
            f"{len(versions)}; make it with: python -m training.context_cache; of several keep "
            "the one the weights were trained with"
        )
    return versions[0].parent


def _read_adapter(folder: Path) -> Adapter:
    return Adapter(
        json.loads((folder / "adapter_config.json").read_text()),
        load_file(folder / "adapter_model.safetensors"),
    )
