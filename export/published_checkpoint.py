"""What the checkpoints of MediSee's and MediRound's authors have in common -> a source.

Both are the whole PEFT-wrapped network as `zero_to_fp32` writes it, one or several `*.bin` in a
folder: base, adapter, embedding and head, CLIP with its projector, SAM, and the system's own
networks. Tensors stay on the disk until they are written.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from export.sam_keys import segment_anything_name
from export.sources import (
    Adapter,
    LanguageModel,
    Networks,
    Source,
    adapter_config,
    base_config,
    base_shapes,
    check_tokenizer,
)
from export.torch_files import check_tensors, read_torch_files
from training.networks.profiles import Profile

PEFT_PREFIX = "base_model.model."

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_CLIP = "model.vision_tower.vision_tower.vision_model."
_CLIP_LAYER = re.compile(re.escape(_CLIP) + r"encoder\.layers\.(\d+)\.")
_IMAGE_SIDE = {
    "projector.": "model.mm_projector.",
    # transformers 5 keeps CLIP's tower without the level `vision_model`; earlier ones do not.
    "vision_tower.vision_model.": _CLIP,
    "vision_tower.": _CLIP,
}


@dataclass(frozen=True)
class PublishedSystem:
    """How one system's checkpoint differs from the other's."""

    name: str
    """As it is written."""
    adapter: str
    """Name of its adapter here."""
    added_tokens: int
    """Rows of embedding and head behind the base's."""
    prefixes: Mapping[str, Mapping[str, str]]
    """Prefixes of our names and of theirs, by name of the network; SAM and CLIP are not listed."""


def published_source(
    system: PublishedSystem,
    profile: Profile,
    networks: Networks,
    folder: Path,
    tokenizer: Path,
    llava_med: Path | None = None,
) -> Source:
    """Open a checkpoint.

    Args:
        system: Whose it is.
        profile: Sizes of the networks; `full` for what is published.
        networks: To be filled; of the systems' own, those of this system.
        folder: Holds the `*.bin` files.
        tokenizer: Sentencepiece model of the base.
        llava_med: Hugging Face folder of LLaVA-Med. The base's own embedding and head come from
            there; without it they are the system's, without the rows of its added tokens.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if names or shapes differ from the published layout, or the tokenizer's
            vocabulary from the base's.
    """
    check_tokenizer(tokenizer, profile)
    tensors = _read(system, folder)
    check_tensors(tensors, published_shapes(system, profile, networks), folder)
    for part, names in _names(system, networks).items():
        network = _parts(system, networks)[part]
        network.load_state_dict({name: tensors[theirs] for name, theirs in names.items()})
    shapes = base_shapes(profile)
    if llava_med is None:
        vocabulary = profile.mistral.vocab_size
        own = {name: tensors[name][:vocabulary] for name in (_EMBEDDING, _HEAD)}
        origin = f"{system.name}'s, without its added tokens"
    else:
        own = _read_vocabulary(llava_med, shapes)
        origin = "LLaVA-Med's"

    def base() -> Iterator[tuple[str, Tensor]]:
        for name in shapes:
            yield name, own[name] if name in own else tensors[name]

    return Source(
        description=f"{system.name}'s checkpoint; the base's embedding and head are {origin}",
        profile=profile,
        networks=networks,
        language_model=LanguageModel(
            config=base_config(profile),
            tensors=base,
            adapters={system.adapter: Adapter(adapter_config(profile), _adapter_state(tensors))},
            embeddings={system.adapter: tensors[_EMBEDDING]},
            tokenizer=tokenizer,
        ),
    )


def published_shapes(
    system: PublishedSystem, profile: Profile, networks: Networks
) -> dict[str, torch.Size]:
    """Every name of the checkpoint, as it stands after `PEFT_PREFIX`, and its shape.

    `.base_layer`, which newer versions of PEFT put into names, is left out.
    """
    shapes = {
        theirs: _parts(system, networks)[part].state_dict()[name].shape
        for part, names in _names(system, networks).items()
        for name, theirs in names.items()
    }
    # The export does not build CLIP's layers behind the selected hidden state.
    built = profile.clip.num_hidden_layers + profile.clip_select_layer + 1
    for name, shape in list(shapes.items()):
        layer = _CLIP_LAYER.match(name)
        if layer and layer.group(1) == "0":
            rest = name[layer.end() :]
            for number in range(built, profile.clip.num_hidden_layers):
                shapes[f"{_CLIP}encoder.layers.{number}.{rest}"] = shape
    for name, shape in base_shapes(profile).items():
        if name in (_EMBEDDING, _HEAD):
            shapes[name] = torch.Size((shape[0] + system.added_tokens, shape[1]))
        else:
            shapes[name] = shape
        if name.endswith((".q_proj.weight", ".v_proj.weight")):
            layer_name, rank = name.removesuffix("weight"), profile.lora_rank
            shapes[f"{layer_name}lora_A.default.weight"] = torch.Size((rank, shape[1]))
            shapes[f"{layer_name}lora_B.default.weight"] = torch.Size((shape[0], rank))
    return shapes


def _parts(system: PublishedSystem, networks: Networks) -> dict[str, nn.Module]:
    """The shared encoders and the system's own networks, by name."""
    return {
        "image_encoder": networks.image_encoder,
        "llava_image_encoder": networks.llava_image_encoder,
        **vars(getattr(networks, system.adapter)),
    }


def _names(system: PublishedSystem, networks: Networks) -> dict[str, dict[str, str]]:
    """Our names -> theirs, by name of the network."""
    prefixes = {"llava_image_encoder": _IMAGE_SIDE, **system.prefixes}
    names: dict[str, dict[str, str]] = {}
    for part, network in _parts(system, networks).items():
        if part in ("image_encoder", "mask_decoder"):
            names[part] = {
                name: f"model.visual_model.{segment_anything_name(name)}"
                for name in network.state_dict()
            }
        else:
            names[part] = {
                name: next(
                    theirs + name.removeprefix(ours)
                    for ours, theirs in prefixes[part].items()
                    if name.startswith(ours)
                )
                for name in network.state_dict()
            }
    return names


def _adapter_state(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        PEFT_PREFIX + name.replace(".default", ""): tensor
        for name, tensor in tensors.items()
        if ".lora_" in name
    }


def _read(system: PublishedSystem, folder: Path) -> dict[str, Tensor]:
    files = sorted(folder.glob("*.bin"))
    if not files:
        raise FileNotFoundError(
            f"{folder}: no *.bin; expected what zero_to_fp32 writes of {system.name}"
        )
    tensors = {}
    for name, tensor in read_torch_files(files).items():
        if not name.startswith(PEFT_PREFIX):
            raise ValueError(f"{folder}: {name}: expected names that begin with {PEFT_PREFIX}")
        tensors[name.removeprefix(PEFT_PREFIX).replace(".base_layer", "")] = tensor
    return tensors


def _read_vocabulary(folder: Path, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """The base's own embedding and head, from safetensors or `*.bin`."""
    wanted = (_EMBEDDING, _HEAD)
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            stored = set(opened.keys())
            found |= {name: opened.get_tensor(name) for name in wanted if name in stored}
    if not found:
        tensors = read_torch_files(sorted(folder.glob("*.bin")))
        found = {name: tensors[name] for name in wanted if name in tensors}
    check_tensors(found, {name: shapes[name] for name in wanted}, folder)
    return found
