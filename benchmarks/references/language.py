"""The language model as Hugging Face and PEFT compute it, and prompts as texts."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from sentencepiece import SentencePieceProcessor
from torch import Tensor
from transformers import MistralForCausalLM

SHOWN = "<image>"
"""Stands in a prompt's text for each run of embedding rows."""


class LanguageReference:
    """Hugging Face's Mistral with PEFT's adapter, read from the folder the engine reads.

    Args:
        mllm_folder: Version folder of the model `mllm`.
        adapter: Name of the adapter.
        added_tokens: What follows the base vocabulary, in the order of the ids.
    """

    def __init__(self, mllm_folder: Path, adapter: str, added_tokens: Sequence[str] = ()) -> None:
        self.adapter = adapter
        base = MistralForCausalLM.from_pretrained(mllm_folder / "base", dtype=torch.float32)
        own_table = mllm_folder / "embeddings" / f"{adapter}.safetensors"
        self.table = (
            load_file(own_table)["embed_tokens.weight"].float()
            if own_table.exists()
            else base.model.embed_tokens.weight
        )
        self.model = PeftModel.from_pretrained(base, mllm_folder / "adapters" / adapter).eval()
        self.processor = SentencePieceProcessor(
            model_file=str(mllm_folder / "base" / "tokenizer.model")
        )
        size = self.processor.get_piece_size()
        self.special = {SHOWN: -1, "</s>": self.processor.eos_id()}
        self.special |= {token: size + index for index, token in enumerate(added_tokens)}

    def token_ids(self, text: str) -> list[int]:
        """Ids of a prompt behind `<s>`, as the slow tokenizer gives them; -1 for `SHOWN`.

        A text is split at special tokens, and what lies between is encoded piece by piece.
        """
        parts = re.split("(" + "|".join(map(re.escape, self.special)) + ")", text)
        ids = [self.processor.bos_id()]
        for part in filter(None, parts):
            ids += [self.special[part]] if part in self.special else self.processor.encode(part)
        return ids

    def hidden_states(
        self, token_ids: Sequence[int], segments: Sequence[Tensor], positions: Sequence[int]
    ) -> Tensor:
        """Rows (P, E) after the final norm, of one pass over the whole prompt.

        Args:
            token_ids: In which the k-th -1 stands for all rows of the k-th segment.
            segments: (R, E) each.
            positions: Indices into the ids, none of them of a -1.
        """
        shown = iter(segments)
        rows = [next(shown) if token == -1 else self.table[[token]] for token in token_ids]
        ends = torch.tensor([len(row) for row in rows]).cumsum(0)
        output = self.model(inputs_embeds=torch.cat(rows)[None], output_hidden_states=True)
        hidden: Tensor = output.hidden_states[-1][0, ends[list(positions)] - 1]
        return hidden
