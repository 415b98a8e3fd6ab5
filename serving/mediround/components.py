"""The served models that MediRound is made of, as functions on arrays.

Knows their tensors and nothing of conversations. What the two image encoders see in a picture is
kept by the picture's content, so that a later round neither sends the picture to them nor moves
their results between processes again.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass

import numpy as np

from serving.content_cache import Arrays, ContentCache, digest
from serving.mediround_prompt import Turn

Call = Callable[[str, dict[str, object], Sequence[str]], Arrays]

ADAPTER = "mediround"

_PICTURES_AT_ONCE = 8
"""As many as the encoder takes in one batch."""


@dataclass(frozen=True)
class Embeddings:
    """What one pass of the language model gives."""

    text_embedding: np.ndarray
    """(P, 1, C) float32, one for each position asked for."""
    cached_tokens: int
    """Prompt positions taken from the prefix cache."""
    computed_tokens: int
    """Prompt positions computed."""


@dataclass(frozen=True)
class Words:
    """An answer of the base model."""

    text: str
    """As generated, without the space in front."""
    cached_tokens: int
    """Prompt positions taken from the prefix cache."""
    computed_tokens: int
    """Prompt positions computed."""


class Components:
    """Calls the served models.

    Args:
        call: Runs another served model.
        cache_mib: Bound of what is kept of pictures; 13 MiB each at full size.
    """

    def __init__(self, call: Call, cache_mib: int) -> None:
        self._call = call
        self._cache = ContentCache(cache_mib << 20)
        self._threads = ThreadPoolExecutor(_PICTURES_AT_ONCE, "mediround-encoder")

    def picture(self, image: np.ndarray) -> Arrays:
        """Encode a picture with both encoders, at the same time.

        Args:
            image: (H, W, 3) uint8.

        Returns:
            image_embedding (1, C, h, w) and patch_tokens (T, E) float32, input_size and
            original_size (1, 2) int64; read-only.
        """

        def embed() -> Arrays:
            return self._call(
                "medsam_image_embedding",
                {"image": image},
                ["image_embedding", "input_size", "original_size"],
            )

        def compute() -> Arrays:
            # A thread of its own would not know the id of the request.
            context = copy_context()
            embedding = self._threads.submit(context.run, embed)
            tokens = self._call("llava_image_tokens", {"image": image}, ["patch_tokens"])
            return {**embedding.result(), **tokens}

        return self._cache.get(digest(image), compute)

    def reference_token(self, crop: np.ndarray, box_xyxy: np.ndarray) -> np.ndarray:
        """What one reference puts into the prompt.

        Args:
            crop: (S, S, 3) uint8, from `serving.reference_region`.
            box_xyxy: (4,) float32 in [0, 1].

        Returns:
            (2, E) float32: the crop's projected CLS token, then the box token.
        """
        crop_token = self._call("llava_image_tokens", {"image": crop}, ["cls_token"])
        box_token = self._call(
            "mediround_box_encoder", {"boxes_xyxy": box_xyxy[np.newaxis]}, ["box_token"]
        )
        return np.concatenate([crop_token["cls_token"], box_token["box_token"]])

    def conversation(self, turns: Sequence[Turn]) -> tuple[np.ndarray, np.ndarray]:
        """Write the prompt of a conversation.

        Args:
            turns: Oldest first.

        Returns:
            token_ids (L,) int32 and, for each turn, hidden_positions (T,) int32, from the end.
        """
        written = self._call(
            "mediround_prompt",
            {
                "prompts": np.array([turn.prompt.encode() for turn in turns], np.object_),
                "references": np.array([turn.references for turn in turns], np.int32),
            },
            ["token_ids", "hidden_positions"],
        )
        return written["token_ids"], written["hidden_positions"]

    def question(self, prompt: str) -> tuple[np.ndarray, int]:
        """Write the base model's prompt around a question.

        Returns:
            token_ids (L,) int32, and how many tokens the answer may have.
        """
        written = self._call("explanation_prompt", {"prompt": prompt}, ["token_ids", "max_tokens"])
        return written["token_ids"], int(written["max_tokens"][0])

    def embeddings(
        self,
        token_ids: np.ndarray,
        hidden_positions: np.ndarray,
        segments: Sequence[np.ndarray],
    ) -> Embeddings:
        """Read a conversation's prompt.

        Args:
            token_ids: (L,) int32, in which the k-th -1 stands for the k-th segment.
            hidden_positions: (P,) int32, counted from the end.
            segments: (R, E) float32 each.
        """
        read = self._call(
            "mllm",
            {
                "token_ids": token_ids,
                "embeddings": np.concatenate(segments),
                "embedding_lengths": np.array([len(rows) for rows in segments], np.int32),
                "hidden_positions": hidden_positions,
                "adapter": ADAPTER,
            },
            ["hidden_states", "cached_tokens", "computed_tokens"],
        )
        projected = self._call(
            "mediround_text_projection",
            {"hidden_states": read["hidden_states"]},
            ["text_embedding"],
        )
        return Embeddings(
            projected["text_embedding"].transpose(1, 0, 2),
            int(read["cached_tokens"][0]),
            int(read["computed_tokens"][0]),
        )

    def words(self, token_ids: np.ndarray, patch_tokens: np.ndarray, max_tokens: int) -> Words:
        """Let the base model, without adapter, answer in words.

        Args:
            token_ids: (L,) int32, from `question`.
            patch_tokens: (T, E) float32.
            max_tokens: Most tokens of the answer.
        """
        read = self._call(
            "mllm",
            {
                "token_ids": token_ids,
                "embeddings": patch_tokens,
                "max_tokens": np.array([max_tokens], np.int32),
            },
            ["text", "cached_tokens", "computed_tokens"],
        )
        return Words(
            read["text"][0].decode("utf-8").strip(),
            int(read["cached_tokens"][0]),
            int(read["computed_tokens"][0]),
        )

    def judged(self, text_embedding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Judge text embeddings (N, 1, C).

        Returns:
            quality (N,) in [0, 1], and corrected embeddings (N, 1, C), both float32.
        """
        found = self._call(
            "mediround_jcm", {"text_embedding": text_embedding}, ["quality", "corrected_embedding"]
        )
        return found["quality"], found["corrected_embedding"]

    def masks(self, picture: Arrays, text_embedding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Decode one mask for each text embedding.

        Args:
            picture: From `picture`.
            text_embedding: (N, 1, C) float32.

        Returns:
            masks (N, H, ceil(W / 8)) uint8, one bit a pixel, and scores (N,) float32.
        """
        decoded = self._call(
            "mediround_mask_decoder",
            {
                "image_embedding": picture["image_embedding"],
                "text_embedding": np.ascontiguousarray(text_embedding),
                "input_size": picture["input_size"],
                "original_size": picture["original_size"],
            },
            ["masks", "scores"],
        )
        return decoded["masks"], decoded["scores"]

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()
