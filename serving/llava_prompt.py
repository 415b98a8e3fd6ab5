"""Token ids of LLaVA-Med's prompts (template `mistral_instruct`), as the slow tokenizer gives them.

Serving sends ids, never text: the fast tokenizer of Hugging Face gives other ids for the same
prompt (no lone space piece before an added token), and the hidden states are read exactly there.
"""

import re
from pathlib import Path

from sentencepiece import SentencePieceProcessor

IMAGE_SEGMENT = -1
"""Stands in a prompt's ids for the whole image, one embedding row per patch."""

SEG_TOKEN = "[SEG]"
BOX_TOKEN = "[BBOX]"

MEDISEE_ADDED_TOKENS = (SEG_TOKEN, BOX_TOKEN)
"""In this order their ids follow the base vocabulary (32000, 32001 for Mistral's)."""

MEDISEE_HIDDEN_POSITIONS = (-5, -1)
"""Where h_seg and h_box are read, counted from the end of `medisee_prompt`'s ids."""


class LlavaTokenizer:
    """Sentencepiece with added tokens, as Hugging Face's slow `LlamaTokenizer` (legacy) splits.

    Args:
        model_file: Sentencepiece model, Mistral's or one trained alike.
        added_tokens: Tokens behind the base vocabulary, in the order of their ids.
    """

    def __init__(self, model_file: Path, added_tokens: tuple[str, ...] = ()) -> None:
        self.processor = SentencePieceProcessor(model_file=str(model_file))
        size = self.processor.get_piece_size()
        self.added_ids = {token: size + index for index, token in enumerate(added_tokens)}
        self._split = re.compile("(" + "|".join(map(re.escape, added_tokens)) + ")")

    @property
    def vocabulary_size(self) -> int:
        """Base pieces and added tokens together."""
        return self.processor.get_piece_size() + len(self.added_ids)

    @property
    def bos_id(self) -> int:
        """Id of `<s>`, the first token of every prompt."""
        return self.processor.bos_id()

    @property
    def eos_id(self) -> int:
        """Id of `</s>`, the last token of every answer."""
        return self.processor.eos_id()

    def encode(self, text: str) -> list[int]:
        """Ids of a text in which added tokens stand for themselves."""
        if not self.added_ids:
            return self.encode_plain(text)
        ids: list[int] = []
        for part in self._split.split(text):
            if part in self.added_ids:
                ids.append(self.added_ids[part])
            elif part:
                ids += self.encode_plain(part)
        return ids

    def encode_plain(self, text: str) -> list[int]:
        """Ids of a text in which nothing is special: what a user typed can forge no token."""
        return self.processor.encode(text)


def question_ids(tokenizer: LlavaTokenizer, prompt: str) -> list[int]:
    """`<s>[INST] <image>`, a line break, ` {prompt} [/INST]` and the space that follows it.

    The image comes before the question, so that all questions about one image share its prefix.
    Between the two stands what MediSee's evaluation puts there (utils/dataset.py:606, 998).
    """
    return [
        *image_prefix_ids(tokenizer),
        *tokenizer.encode_plain(f"\n {prompt} [/INST] "),
    ]


def image_prefix_ids(tokenizer: LlavaTokenizer) -> list[int]:
    """Ids up to and with the image, alike for all prompts."""
    return [tokenizer.bos_id, *tokenizer.encode_plain("[INST] "), IMAGE_SEGMENT]


def medisee_prompt(tokenizer: LlavaTokenizer, prompt: str) -> list[int]:
    """Ids of a MediSee query up to the token that predicts `[BBOX]`.

    MediSee reads two hidden states of one forward pass over the fixed answer
    `[SEG] and [BBOX].`; what comes after the second position cannot change them and is left out.
    """
    return [
        *question_ids(tokenizer, prompt),
        tokenizer.added_ids[SEG_TOKEN],
        *tokenizer.encode_plain(" and "),
    ]


def explanation_prompt(tokenizer: LlavaTokenizer, prompt: str) -> list[int]:
    """Ids after which the base model answers in words."""
    # Without the trailing space piece: the answer's first piece brings its own.
    return [
        *image_prefix_ids(tokenizer),
        *tokenizer.encode_plain(f"\n {prompt} [/INST]"),
    ]
