"""The version folder of the model `mllm`: base, adapters, embedding tables, engine settings."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from export.sources import LanguageModel
from training.weights_folder import TOKENIZER

SHARD_BYTES = 2 << 30

NO_TOKENIZER = "the source brings no tokenizer; name Mistral's sentencepiece model with --tokenizer"


def write_mllm_folder(model: LanguageModel, folder: Path, dtype: torch.dtype) -> None:
    """Write everything the backend `mllm` reads.

    Args:
        model: The base and what belongs to it.
        folder: Version folder; what it held before is replaced.
        dtype: Type of the stored weights and of the engine's arithmetic.

    Raises:
        ValueError: if the source brings no tokenizer.
    """
    if model.tokenizer is None:
        raise ValueError(NO_TOKENIZER)
    if folder.exists():
        shutil.rmtree(folder)
    base = folder / "base"
    base.mkdir(parents=True)
    config = {**model.config, "dtype": str(dtype).removeprefix("torch.")}
    (base / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    shutil.copyfile(model.tokenizer, base / TOKENIZER)
    _write_shards(((name, tensor.to(dtype)) for name, tensor in model.tensors()), base)
    for name, adapter in model.adapters.items():
        target = folder / "adapters" / name
        target.mkdir(parents=True)
        (target / "adapter_config.json").write_text(json.dumps(adapter.config, indent=1) + "\n")
        state = {key: tensor.to(dtype).contiguous() for key, tensor in adapter.state.items()}
        save_file(state, target / "adapter_model.safetensors", metadata={"format": "pt"})
    for name, table in model.embeddings.items():
        target = folder / "embeddings" / f"{name}.safetensors"
        target.parent.mkdir(exist_ok=True)
        save_file({"embed_tokens.weight": table.to(dtype).contiguous()}, target)
    engine = engine_settings(model, dtype)
    (folder / "engine.json").write_text(json.dumps(engine, indent=1) + "\n")


def engine_settings(model: LanguageModel, dtype: torch.dtype) -> dict[str, object]:
    """Content of `engine.json`, see docs/mllm.md."""
    max_model_len = min(2048, int(model.config["max_position_embeddings"]))
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "max_model_len": max_model_len,
        "max_num_batched_tokens": 2 * max_model_len,
        "max_loras": max(1, len(model.adapters)),
        "max_lora_rank": max([8, *(a.config["r"] for a in model.adapters.values())]),
        "max_in_flight": 64,
        **model.engine,
    }


def _write_shards(tensors: Iterator[tuple[str, Tensor]], folder: Path) -> None:
    """Write tensors to safetensors files of about `SHARD_BYTES`, with an index if several."""
    shard: dict[str, Tensor] = {}
    size = total = 0
    files: dict[str, list[str]] = {}

    def flush() -> None:
        name = f"model-{len(files) + 1:05d}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        files[name] = list(shard)
        shard.clear()

    for name, tensor in tensors:
        if shard and size + tensor.nbytes > SHARD_BYTES:
            flush()
            size = 0
        shard[name] = tensor.contiguous()
        size += tensor.nbytes
        total += tensor.nbytes
    flush()
    if len(files) == 1:
        (folder / next(iter(files))).rename(folder / "model.safetensors")
        return
    index = {
        "metadata": {"total_size": total},
        "weight_map": {tensor: file for file, names in files.items() for tensor in names},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
