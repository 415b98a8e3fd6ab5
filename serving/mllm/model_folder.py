"""Reads a version folder of the `mllm` model: settings, adapters, embedding tables, final norm.

The folder holds `engine.json`, `base/` (Hugging Face MistralForCausalLM with a sentencepiece
`tokenizer.model`), `adapters/<name>/` (PEFT LoRA) and `embeddings/<name>.safetensors`. Starts
nothing and imports no vLLM.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

BASE = ""
"""Name of the base model in requests: no adapter, the base's own embedding table."""

BASE_TABLE_FILE = "base"
"""`embeddings/base.safetensors`, where present, replaces the table inside `base/`."""

OWN_SETTINGS = ("max_in_flight", "restart_window_s", "environment")

RESERVED_ARGUMENTS = {
    "model": "it is `base/`",
    "tokenizer": "text is decoded with `base/tokenizer.model`",
    "skip_tokenizer_init": "text is decoded outside the engine",
    "enable_prompt_embeds": "every prompt is given as embeddings",
    "enable_lora": "adapters are those under `adapters/`",
    "speculative_config": "it extracts the hidden states",
    "kv_transfer_config": "it returns the hidden states",
}


@dataclass(frozen=True)
class EngineSettings:
    """What `engine.json` says."""

    max_in_flight: int = 16
    """Requests accepted and not yet answered; at least 1. Beyond it requests are refused."""
    restart_window_s: float = 600.0
    """A second death of the engine within this many seconds leaves it down."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables set before the engine starts, such as VLLM_CPU_KVCACHE_SPACE (GiB)."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Everything else: vLLM engine arguments such as dtype and max_model_len."""


@dataclass(frozen=True)
class ModelFolder:
    """A version folder, read."""

    base: Path
    """Hugging Face folder of the base model."""
    adapters: dict[str, Path]
    """Adapter name to PEFT folder, sorted by name."""
    adapted_modules: tuple[str, ...]
    """Names of the layers that any adapter changes, such as "q_proj"; sorted."""
    tables: dict[str, torch.Tensor]
    """Name to embedding table (V, E) in the file's dtype; `BASE` is always there."""
    norm_weight: torch.Tensor
    """(E,) float32 weight of the final RMSNorm."""
    norm_eps: float
    """Added to the mean square inside the norm."""
    num_layers: int
    """Decoder layers of the base."""
    eos_token_ids: tuple[int, ...]
    """Tokens that end a text."""
    settings: EngineSettings
    """What `engine.json` says."""

    def table(self, adapter: str) -> torch.Tensor:
        """Embedding table (V, E) for `adapter`: its own, or else the base's."""
        return self.tables.get(adapter, self.tables[BASE])


def read_settings(path: Path) -> EngineSettings:
    """Read `engine.json`.

    Raises:
        ValueError: if a setting is out of range or sets what this backend sets itself.
    """
    values = json.loads(path.read_text(encoding="utf-8"))
    for name, reason in RESERVED_ARGUMENTS.items():
        if name in values:
            raise ValueError(f"{path}: `{name}` may not be set, since {reason}; remove it")
    own = {name: values.pop(name) for name in OWN_SETTINGS if name in values}
    own["environment"] = {name: str(v) for name, v in own.get("environment", {}).items()}
    settings = EngineSettings(**own, arguments=values)
    if settings.max_in_flight < 1:
        raise ValueError(f"{path}: max_in_flight is {settings.max_in_flight}, expected 1 or more")
    if settings.restart_window_s < 0:
        raise ValueError(f"{path}: restart_window_s is {settings.restart_window_s}, expected >= 0")
    return settings


def read_model_folder(folder: Path) -> ModelFolder:
    """Read the version folder `folder`.

    Raises:
        FileNotFoundError: if a part is missing, with the command that writes it.
        ValueError: if parts do not fit each other.
    """
    for part in ("engine.json", "base/config.json", "base/tokenizer.model"):
        if not (folder / part).is_file():
            raise FileNotFoundError(
                f"{folder / part} is missing; `python -m export --profile demo` writes it"
            )
    base = folder / "base"
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    eos = config.get("eos_token_id", 2)
    adapters = {
        path.parent.name: path.parent
        for path in sorted((folder / "adapters").glob("*/adapter_config.json"))
    }
    if BASE_TABLE_FILE in adapters:
        raise ValueError(
            f"adapters/{BASE_TABLE_FILE}: the name belongs to the base's table; rename the adapter"
        )
    tables = {BASE: _read_tensor(base, "model.embed_tokens.weight")}
    for path in sorted((folder / "embeddings").glob("*.safetensors")):
        if path.stem not in (*adapters, BASE_TABLE_FILE):
            raise ValueError(
                f"{path}: no adapter has this name; known: {', '.join(adapters) or 'none'}"
            )
        name = BASE if path.stem == BASE_TABLE_FILE else path.stem
        with safe_open(path, framework="pt") as tensors:
            tables[name] = tensors.get_tensor("embed_tokens.weight")
        width = tables[name].shape[1]
        if width != config["hidden_size"]:
            raise ValueError(f"{path}: rows are {width} wide, the base's {config['hidden_size']}")
    return ModelFolder(
        base=base,
        adapters=adapters,
        adapted_modules=tuple(
            sorted(set().union(*(_adapted_modules(path) for path in adapters.values())))
        ),
        tables=tables,
        norm_weight=_read_tensor(base, "model.norm.weight").float(),
        norm_eps=float(config["rms_norm_eps"]),
        num_layers=int(config["num_hidden_layers"]),
        eos_token_ids=tuple(eos) if isinstance(eos, list) else (eos,),
        settings=read_settings(folder / "engine.json"),
    )


def _adapted_modules(adapter: Path) -> set[str]:
    """Names of the layers that a PEFT folder has weights for.

    Raises:
        FileNotFoundError: if the folder has no weights.
        ValueError: if it adapts the token embedding.
    """
    file = adapter / "adapter_model.safetensors"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; PEFT's `save_pretrained` writes it")
    with safe_open(file, framework="pt") as tensors:
        names = {name.split(".lora_")[0].rpartition(".")[2] for name in tensors.keys()}  # noqa: SIM118
    if "embed_tokens" in names:
        raise ValueError(
            f"adapters/{adapter.name}: it adapts the token embedding, which the engine never looks "
            f"up for a prompt; write the adapted table to embeddings/{adapter.name}.safetensors"
        )
    return names


def _read_tensor(base: Path, name: str) -> torch.Tensor:
    """One tensor of a Hugging Face folder, in one file or in shards."""
    index = base / "model.safetensors.index.json"
    file = "model.safetensors"
    if index.is_file():
        file = json.loads(index.read_text(encoding="utf-8"))["weight_map"].get(name, file)
    if not (base / file).is_file():
        raise FileNotFoundError(f"{base / file} is missing; it should hold `{name}`")
    with safe_open(base / file, framework="pt") as tensors:
        if name not in tensors.keys():  # noqa: SIM118  (safe_open is no mapping)
            raise ValueError(f"{base / file}: no tensor `{name}`; is it a MistralForCausalLM?")
        return tensors.get_tensor(name)
