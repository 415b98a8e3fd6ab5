"""What a round that gave masks says in words."""

from collections.abc import Sequence


def mask_answer(
    found: Sequence[bool], taken: Sequence[str], corrections: Sequence[float], beta: float
) -> str:
    """Say what a round outlined, and what it went by.

    Args:
        found: For each mask of the round, whether it has a pixel.
        taken: Each reference in words.
        corrections: Scores of the embeddings that were corrected before they were decoded.
        beta: The score up to which they are.
    """
    if not any(found):
        said = "Found nothing to outline"
    elif len(found) == 1:
        said = "Outlined"
    elif all(found):
        said = f"Outlined {len(found)} objects"
    else:
        said = f"Outlined {sum(found)} of {len(found)} objects"
    going_by = f", going by {_listed(taken)}" if taken else ""
    scores = _listed([f"{score:.2f}" for score in corrections])
    corrected = f" Corrected: judged {scores}, not above {beta:.2f}." if corrections else ""
    return f"{said}{going_by}.{corrected}"


def reference_words(round_number: int, instance: int, prompt: str) -> str:
    """One earlier mask as a person would point to it."""
    return f"instance {instance} of round {round_number} (“{shortened(prompt)}”)"


def shortened(prompt: str, length: int = 40) -> str:
    """The beginning of a prompt, on one line."""
    line = " ".join(prompt.split())
    return line if len(line) <= length else f"{line[: length - 1].rstrip()}…"


def _listed(items: Sequence[str]) -> str:
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
