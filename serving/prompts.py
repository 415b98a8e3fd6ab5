"""Questions as token ids: for masks, of every system, and for an answer in words by the base."""

from pathlib import Path

import numpy as np

from serving.llava_prompt import (
    MEDISEE_ADDED_TOKENS,
    MEDISEE_HIDDEN_POSITIONS,
    LlavaTokenizer,
    explanation_prompt,
    medisee_prompt,
)
from serving.mediround_prompt import MEDIROUND_ADDED_TOKENS, Turn, conversation_prompt
from serving.organseg_prompt import ORGANSEG_HIDDEN_POSITIONS, check_template, organseg_prompt

MEDISEE_ADAPTER = "medisee"
MEDIROUND_ADAPTER = "mediround"
ORGANSEG_ADAPTER = "organseg"


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


class MediroundPrompt:
    """Turns of a conversation -> MediRound's prompt.

    Args:
        version_folder: Holds `tokenizer.model`.
    """

    def __init__(self, version_folder: Path) -> None:
        self._tokenizer = LlavaTokenizer(version_folder / "tokenizer.model", MEDIROUND_ADDED_TOKENS)

    def __call__(self, prompts: np.ndarray, references: np.ndarray) -> dict[str, np.ndarray | str]:
        """Write the prompt of a conversation.

        Args:
            prompts: (T,) BYTES, questions, oldest first; none blank.
            references: (T,) int32, how many masks each refers to.

        Returns:
            token_ids (L,) int32, hidden_positions (T,) int32, and the adapter's name.

        Raises:
            ValueError: if there is no turn, a question is blank, or the numbers do not fit.
        """
        if len(prompts) != len(references) or (references < 0).any():
            raise ValueError(
                f"references: expected a number from 0 for each of {len(prompts)} prompts, got "
                f"{references.tolist()}"
            )
        turns = [
            Turn(check_prompt(prompt.decode("utf-8")), int(count))
            for prompt, count in zip(prompts, references, strict=True)
        ]
        token_ids, hidden_positions = conversation_prompt(self._tokenizer, turns)
        return {
            "token_ids": np.array(token_ids, np.int32),
            "hidden_positions": np.array(hidden_positions, np.int32),
            "adapter": MEDIROUND_ADAPTER,
        }


class OrgansegPrompt:
    """Question -> Organ-Seg's prompt.

    Args:
        version_folder: Holds `tokenizer.model`, and the template of the trained adapter,
            `prompt.txt`.

    Raises:
        ValueError: if the template has no place for the question, or two.
    """

    def __init__(self, version_folder: Path) -> None:
        self._tokenizer = LlavaTokenizer(version_folder / "tokenizer.model")
        self._template = check_template((version_folder / "prompt.txt").read_text(encoding="utf-8"))

    def __call__(self, prompt: str) -> dict[str, np.ndarray | str]:
        """Write Organ-Seg's prompt around a question about one organ.

        Args:
            prompt: The question; not blank.

        Returns:
            token_ids (T,) int32, hidden_positions (1,) int32, and the adapter's name.

        Raises:
            ValueError: if the question is blank.
        """
        return {
            "token_ids": np.array(
                organseg_prompt(self._tokenizer, check_prompt(prompt), self._template), np.int32
            ),
            "hidden_positions": np.array(ORGANSEG_HIDDEN_POSITIONS, np.int32),
            "adapter": ORGANSEG_ADAPTER,
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
