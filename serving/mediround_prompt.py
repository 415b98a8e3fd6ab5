"""Token ids of a MediRound conversation, as the slow tokenizer gives them.

One sequence holds all rounds; a later round only appends to it. Which masks a turn refers to, and
what is shown of them, is the pipeline's and `serving.reference_region`'s business.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from serving.llava_prompt import IMAGE_SEGMENT, SEG_TOKEN, LlavaTokenizer, image_prefix_ids

MEDIROUND_ADDED_TOKENS = (SEG_TOKEN, "[BBOXINPUT]", "[CROPPEDIMAGE]")
"""In this order their ids follow the base vocabulary (32000 to 32002 for Mistral's)."""

REFERENCE_SEGMENTS = (IMAGE_SEGMENT, IMAGE_SEGMENT)
"""Stands in a prompt's ids for one reference: the crop's CLS token, then the box token.

The published prompt has `[CROPPEDIMAGE][BBOXINPUT]` here, whose embeddings are overwritten.
"""


@dataclass(frozen=True)
class Turn:
    """One question of a conversation that is answered by one mask."""

    prompt: str
    """What the user asks."""
    references: int = 0
    """How many earlier masks stand in front of the question."""


def conversation_prompt(
    tokenizer: LlavaTokenizer, turns: Sequence[Turn]
) -> tuple[list[int], list[int]]:
    """Ids of a conversation up to the token that predicts the last turn's `[SEG]`.

    Causality makes what follows idle: the ids of the first n turns are a prefix of those of more.

    Args:
        tokenizer: With `MEDIROUND_ADDED_TOKENS`.
        turns: At least one, oldest first.

    Returns:
        token_ids, in which -1 stands for the image (T rows), and -1, -1 for a reference (one row
        for its crop, one for its box); and hidden_positions: for every turn, where its [SEG] is
        predicted, counted from the end (-1 is the last).

    Raises:
        ValueError: if there is no turn.
    """
    if not turns:
        raise ValueError("turns: expected at least one")
    ids = image_prefix_ids(tokenizer)
    ends = []
    for number, turn in enumerate(turns):
        # A text is split at added tokens before it is encoded, so a reference parts it in two.
        before = "\n" if number == 0 else "[INST]"
        if turn.references:
            ids += tokenizer.encode_plain(f"{before} ")
            ids += REFERENCE_SEGMENTS * turn.references
            before = ""
        ids += tokenizer.encode_plain(f"{before} {turn.prompt} [/INST] ")
        ends.append(len(ids))
        if number + 1 < len(turns):
            ids += answer_ids(tokenizer)
    # Behind the image, which is in front of all of them, every id is one row.
    return ids, [end - len(ids) - 1 for end in ends]


def answer_ids(tokenizer: LlavaTokenizer) -> list[int]:
    """Ids of a turn's answer, `[SEG]. </s>`, behind the space that predicts its first."""
    return [
        tokenizer.added_ids[SEG_TOKEN],
        *tokenizer.encode_plain(". "),
        tokenizer.eos_id,
    ]
