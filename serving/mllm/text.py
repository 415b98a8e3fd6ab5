"""Turns generated token ids into text, a piece at a time.

Decoding is sentencepiece's on the base's `tokenizer.model`. Prompts never come through here:
they arrive as token ids.
"""

from __future__ import annotations

from collections.abc import Sequence

from sentencepiece import SentencePieceProcessor

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class TextDecoder:
    """Text of one growing sequence of token ids.

    The increments of all `push` calls and the final `flush` concatenate to sentencepiece's text
    of all ids: bytes of a character are held back until it is whole, and pieces are always
    decoded together with what precedes them, so no space is lost.
    """

    def __init__(self, processor: SentencePieceProcessor) -> None:
        self._processor = processor
        self._token_ids: list[int] = []
        self._sent = 0

    def push(self, token_ids: Sequence[int]) -> str:
        """Add ids; return the text that is certain now, perhaps empty."""
        # The engine's vocabulary may be padded beyond the tokenizer's.
        size = self._processor.get_piece_size()
        self._token_ids += [token_id for token_id in token_ids if token_id < size]
        text = self._text()
        if text.endswith(INCOMPLETE):
            return ""
        return self._send(text)

    def flush(self) -> str:
        """Return what was held back."""
        return self._send(self._text())

    def _text(self) -> str:
        return self._processor.decode(self._token_ids)

    def _send(self, text: str) -> str:
        increment = text[self._sent :]
        self._sent = max(self._sent, len(text))
        return increment
