"""The demo's own tokenizer: sentencepiece with Mistral's settings and a small vocabulary."""

import io
from collections.abc import Iterable
from pathlib import Path

import sentencepiece


def train_tokenizer(lines: Iterable[str], vocabulary_size: int, output: Path) -> None:
    """Train a byte-pair model on the lines and write it to `output`.

    As Mistral's: byte fallback (any text has ids), a dummy space before each text, white space
    kept as it is.

    Args:
        lines: Text to learn pieces from.
        vocabulary_size: Pieces, with the three control and 256 byte pieces.
        output: `tokenizer.model` to write.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocabulary_size,
        byte_fallback=True,
        add_dummy_prefix=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        split_digits=True,
        character_coverage=1.0,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        minloglevel=2,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(model.getvalue())
