"""A small random `mllm` version folder, and its Hugging Face + PEFT twin as the oracle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import MistralConfig, MistralForCausalLM

VOCABULARY = 400
HIDDEN = 256
OWN_TABLE = "own_table"
SHARED_TABLE = "shared_table"
EXTRA_ROWS = 2
END_PROMPT = [1, 30, 31, 32]
"""Prompt whose greedy text on the base ends after a few tokens."""
CORPUS = (
    "The liver lies in the right upper abdomen, below the diaphragm. "
    "A bright lesion is seen near the left kidney; größe 3 µm. "
    "Please segment the spleen and explain where it is in this image. "
    "The prostate is dark in T2 and the bladder is bright. "
)


def write_model_folder(folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write base, tokenizer, two adapters (one with its own table) and `engine.json`."""
    torch.manual_seed(0)
    base = folder / "base"
    base.mkdir(parents=True)
    config = MistralConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=2048,
        sliding_window=None,
        initializer_range=0.06,
        rms_norm_eps=1e-5,
    )
    model = MistralForCausalLM(config)
    with torch.no_grad():
        model.model.norm.weight.uniform_(0.5, 1.5)
        _end_after(model, END_PROMPT, 6)
    model = model.to(dtype).eval()
    model.save_pretrained(base)
    train_tokenizer(base / "tokenizer.model")
    for name in (OWN_TABLE, SHARED_TABLE):
        lora = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
        adapted = get_peft_model(MistralForCausalLM(config), lora)
        with torch.no_grad():
            for key, weight in adapted.named_parameters():
                if "lora_B" in key:
                    weight.normal_(std=0.05)
        adapted.save_pretrained(folder / "adapters" / name)
    (folder / "embeddings").mkdir()
    table = torch.randn(VOCABULARY + EXTRA_ROWS, HIDDEN) * 0.06
    save_file(
        {"embed_tokens.weight": table.to(dtype)}, folder / "embeddings" / f"{OWN_TABLE}.safetensors"
    )
    settings = {
        "dtype": str(dtype).removeprefix("torch."),
        "max_model_len": 1024,
        "max_num_batched_tokens": 256,
        "block_size": 32,
        "max_loras": 2,
        "max_lora_rank": 8,
        "enforce_eager": True,
        "max_in_flight": 24,
        "environment": {"VLLM_CPU_KVCACHE_SPACE": "1"},
    }
    (folder / "engine.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")


def _end_after(model: MistralForCausalLM, prompt: list[int], tokens: int) -> None:
    """Make greedy decoding of `prompt` end after at most `tokens`, and hardly any other."""
    end = model.lm_head.weight[model.config.eos_token_id]
    end.zero_()
    ids = torch.tensor([prompt])
    for _ in range(tokens + 1):
        hidden = model.model(ids).last_hidden_state[0, -1]
        logits = model.lm_head(hidden)
        ids = torch.cat([ids, logits.argmax()[None, None]], dim=1)
    end.copy_(hidden * 1.5 * logits.max() / hidden.square().sum())


def train_tokenizer(path: Path) -> None:
    """Train a small tokenizer with byte fallback on a few sentences."""
    text = path.with_suffix(".txt")
    text.write_text((CORPUS + "\n") * 20, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(path.with_suffix("")),
        vocab_size=VOCABULARY,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=0.98,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    text.unlink()
    path.with_suffix(".vocab").unlink()


class Oracle:
    """Hugging Face and PEFT on the same folder, in float32."""

    def __init__(self, folder: Path) -> None:
        self._model = MistralForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
        base_table = self._model.model.embed_tokens.weight.detach().clone()
        adapters = sorted(path.name for path in (folder / "adapters").iterdir())
        self._peft = PeftModel.from_pretrained(
            self._model, folder / "adapters" / adapters[0], adapter_name=adapters[0]
        )
        for name in adapters[1:]:
            self._peft.load_adapter(folder / "adapters" / name, adapter_name=name)
        self._peft.eval()
        from safetensors.torch import load_file

        own = load_file(folder / "embeddings" / f"{OWN_TABLE}.safetensors")["embed_tokens.weight"]
        self._tables = {"": base_table, SHARED_TABLE: base_table, OWN_TABLE: own.float()}

    def embed(self, token_ids: list[int], segments: list[np.ndarray], adapter: str) -> torch.Tensor:
        """(1, N, E): ids looked up one by one, segments where -1 stands."""
        remaining = iter(segments)
        rows = [
            torch.from_numpy(next(remaining)) if i == -1 else self._tables[adapter][i : i + 1]
            for i in token_ids
        ]
        return torch.cat(rows)[None]

    @torch.inference_mode()
    def hidden_states(self, embeddings: torch.Tensor, adapter: str) -> np.ndarray:
        """(N, E) after the final norm."""
        if adapter:
            self._peft.set_adapter(adapter)
            return self._inner(embeddings)
        with self._peft.disable_adapter():
            return self._inner(embeddings)

    def _inner(self, embeddings: torch.Tensor) -> np.ndarray:
        output = self._peft.base_model.model.model(inputs_embeds=embeddings)
        return output.last_hidden_state[0].numpy()

    @torch.inference_mode()
    def greedy(self, embeddings: torch.Tensor, max_tokens: int, adapter: str = "") -> list[int]:
        """Ids that greedy decoding generates."""

        def generate() -> list[int]:
            return self._peft.generate(
                inputs_embeds=embeddings,
                attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.long),
                max_new_tokens=max_tokens,
                do_sample=False,
                pad_token_id=0,
            )[0].tolist()

        if adapter:
            self._peft.set_adapter(adapter)
            return generate()
        with self._peft.disable_adapter():
            return generate()
