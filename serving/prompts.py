"""Questions as token ids, for the mask (MediSee) and for an answer in words (the base model)."""

from pathlib import Path

import numpy as np

from serving.llava_prompt import (
    MEDISEE_ADDED_TOKENS,
    MEDISEE_HIDDEN_POSITIONS,
    LlavaTokenizer,
    explanation_prompt,
    medisee_prompt,
)

MEDISEE_ADAPTER = "medisee"


class MediseePrompt:
    """Question -> MediSee's prompt.

    Args:
        version_folder: Holds `tokenizer.model`.
    """

    def __init__(self, version_folder: Path) -> None:
        self._tokenizer = LlavaTokenizer(version_folder / "tokenizer.model", MEDISEE_ADDED_TOKENS)

    def __call__(self, prompt: str) -> dict[str, np.ndarray | str]:
        """Write MediSee's prompt around a question.

        Args:
            prompt: The question; not blank.

        Returns:
            token_ids (T,) int32, hidden_positions (2,) int32, and the adapter's name.

        Raises:
            ValueError: if the question is blank.
        """
        return {
            "token_ids": np.array(medisee_prompt(self._tokenizer, check_prompt(prompt)), np.int32),
            "hidden_positions": np.array(MEDISEE_HIDDEN_POSITIONS, np.int32),
            "adapter": MEDISEE_ADAPTER,
        }


class ExplanationPrompt:
    """Question -> the base model's prompt.

    Args:
        version_folder: Holds `tokenizer.model`.
        token_limit: Tokens an answer may have.
    """

    def __init__(self, version_folder: Path, token_limit: int) -> None:
        self._tokenizer = LlavaTokenizer(version_folder / "tokenizer.model")
        self._token_limit = token_limit

    def __call__(self, prompt: str) -> dict[str, np.ndarray]:
        """Write the base model's prompt around a question.

        Args:
            prompt: The question; not blank.

        Returns:
            token_ids (T,) int32, max_tokens (1,) int32.

        Raises:
            ValueError: if the question is blank.
        """
        return {
            "token_ids": np.array(
                explanation_prompt(self._tokenizer, check_prompt(prompt)), np.int32
            ),
            "max_tokens": np.array([self._token_limit], np.int32),
        }


def check_prompt(prompt: str) -> str:
    """Return the question as it is.

    Raises:
        ValueError: if it is blank.
    """
    if not prompt.strip():
        raise ValueError("prompt: expected a question, got blank text")
    return prompt
