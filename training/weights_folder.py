"""Reads and writes a folder of weights: one safetensors file per served part.

    medsam_image_encoder.safetensors    shared by MediSee, MediRound and Organ-Seg
    llava_image_encoder.safetensors     shared likewise
    mllm_base/                          Hugging Face folder of the shared language model
    <system>.safetensors                what the system has of its own
    <system>_adapter/                   PEFT folder
    organseg_context/<version>/         Organ-Seg's context cache, `training.context_cache`
    tokenizer.model                     sentencepiece

Weights are kept in half precision; computing is in single precision. The heads over the vocabulary
that MediSee and MediRound train are left out: nothing that is served reads them.
"""

from pathlib import Path
from typing import TypeVar

from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.networks.mediround import MediRound
from training.networks.medisee import MediSee
from training.networks.organseg import OrganSeg
from training.networks.system import System

TOKENIZER = "tokenizer.model"

S = TypeVar("S", bound=System)

OWN_PARTS: dict[type[System], tuple[str, ...]] = {
    MediSee: ("fusion", "box_decoder", "mask_decoder", "embed_tokens"),
    MediRound: ("box_encoder", "text_projection", "jcm", "mask_decoder", "embed_tokens"),
    OrganSeg: ("extractors", "mask_decoder"),
}
"""Attributes that are served and belong to one system alone."""


def save_weights(network: System, folder: Path) -> None:
    """Write every part of a trained network, the shared ones too, rounded to float16."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(_half(network.image_encoder), folder / "medsam_image_encoder.safetensors")
    save_file(_half(network.llava_image_encoder), folder / "llava_image_encoder.safetensors")
    own = {
        f"{part}.{name}": tensor
        for part in OWN_PARTS[type(network)]
        for name, tensor in _half(getattr(network, part)).items()
    }
    save_file(own, folder / f"{network.adapter}.safetensors")

    base = folder / "mllm_base"
    network.base.config.save_pretrained(base)
    save_file(base_state(network), base / "model.safetensors", metadata={"format": "pt"})
    adapter = folder / f"{network.adapter}_adapter"
    network.mllm.peft_config[network.adapter].save_pretrained(str(adapter))
    adapter_state = get_peft_model_state_dict(network.mllm, adapter_name=network.adapter)
    save_file(
        {name: tensor.detach().half().contiguous() for name, tensor in adapter_state.items()},
        adapter / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )


def load_weights(network: S, folder: Path) -> S:
    """Fill a network with the weights of a folder, in float32, and put it in evaluation mode.

    Raises:
        FileNotFoundError: if a file is missing; names it and the command that makes it.
    """
    network.image_encoder.load_state_dict(_read(folder / "medsam_image_encoder.safetensors"))
    network.llava_image_encoder.load_state_dict(_read(folder / "llava_image_encoder.safetensors"))
    own = _read(folder / f"{network.adapter}.safetensors")
    for part in OWN_PARTS[type(network)]:
        prefix = f"{part}."
        getattr(network, part).load_state_dict(
            {k.removeprefix(prefix): v for k, v in own.items() if k.startswith(prefix)}
        )
    load_base_state(network, _read(folder / "mllm_base" / "model.safetensors"))
    set_peft_model_state_dict(
        network.mllm,
        _read(folder / f"{network.adapter}_adapter" / "adapter_model.safetensors"),
        adapter_name=network.adapter,
    )
    return network.eval()


def base_state(network: System) -> dict[str, Tensor]:
    """State of the base language model under its plain names, float16."""
    plain = {}
    for name, tensor in network.base.state_dict().items():
        if "lora_" not in name:
            plain[name.replace(".base_layer", "")] = tensor.detach().half().contiguous()
    return plain


def load_base_state(network: System, state: dict[str, Tensor]) -> None:
    """Load plain base weights into the base that PEFT has wrapped."""
    own = network.base.state_dict()
    wrapped = {name.replace(".base_layer", ""): name for name in own if "lora_" not in name}
    if wrapped.keys() != state.keys():
        missing, unknown = sorted(wrapped.keys() - state.keys()), sorted(state.keys() - wrapped)
        raise ValueError(f"base weights: missing {missing[:3]}, unknown {unknown[:3]}")
    network.base.load_state_dict(
        {wrapped[name]: tensor for name, tensor in state.items()}, strict=False
    )


def _half(module: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().half().contiguous() for k, v in module.state_dict().items()}


def _read(file: Path) -> dict[str, Tensor]:
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing; make it with: python -m training.run")
    return {name: tensor.float() for name, tensor in load_file(file).items()}
