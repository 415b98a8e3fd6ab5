"""Expands token ids and embedding segments into one sequence of prompt embeddings.

Every way a prompt can be wrong is answered here, with the numbers, so that nothing malformed
reaches the engine. Knows no vLLM.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from serving.mllm.messages import GenerateRequest
from serving.mllm.model_folder import BASE, ModelFolder

SEGMENT = -1
"""Token id that stands for one whole embedding segment."""


@dataclass(frozen=True)
class Prompt:
    """A prompt that the engine accepts."""

    embeddings: torch.Tensor
    """(N, E) in the engine's dtype."""
    hidden_positions: list[int]
    """P positions in [0, N)."""


def assemble_prompt(
    request: GenerateRequest, folder: ModelFolder, dtype: torch.dtype, max_length: int
) -> Prompt:
    """Look up ids, put segments in their places and resolve positions.

    Args:
        request: What came.
        folder: Adapters and embedding tables.
        dtype: Dtype of the engine.
        max_length: Most prompt positions and generated tokens together.

    Raises:
        ValueError: if the request cannot be served; the text says what came and what would do.
    """
    if request.adapter != BASE and request.adapter not in folder.adapters:
        known = ", ".join(folder.adapters) or "none"
        raise ValueError(
            f'adapter: unknown name {request.adapter!r}; known: {known}; "" is the base model'
        )
    if request.max_tokens < 0:
        raise ValueError(f"max_tokens: got {request.max_tokens}, expected 0 or more")
    if not (np.isfinite(request.temperature) and request.temperature >= 0):
        raise ValueError(f"temperature: got {request.temperature}, expected 0 or more and finite")
    if request.max_tokens > 1 and request.adapter in folder.tables and request.adapter != BASE:
        raise ValueError(
            f"max_tokens: got {request.max_tokens} with adapter {request.adapter!r}, which has its "
            "own embedding table; generated tokens are embedded with the base's, so at most 1 is "
            "right; ask the base model for text"
        )
    table = folder.table(request.adapter)
    token_ids = request.token_ids
    is_segment = _check_token_ids(token_ids, len(table))
    lengths = _segment_lengths(request, int(is_segment.sum()), table.shape[1])
    if request.embeddings is not None:
        _check_range(request.embeddings, torch.finfo(dtype).max)

    spans = np.ones(len(token_ids), dtype=np.int64)
    spans[is_segment] = lengths
    length = int(spans.sum())
    # The engine generates one token even when none is wanted.
    wanted = max(request.max_tokens, 1)
    if length == 0:
        raise ValueError("token_ids: the prompt is empty; expected at least one position")
    if length + wanted > max_length:
        raise ValueError(
            f"token_ids: the prompt has {length} positions and {wanted} more may be generated, "
            f"together {length + wanted}; expected at most {max_length} (max_model_len in "
            "engine.json, less 2)"
        )
    embeddings = torch.empty((length, table.shape[1]), dtype=dtype)
    from_segment = torch.from_numpy(np.repeat(is_segment, spans))
    embeddings[~from_segment] = table[torch.from_numpy(token_ids[~is_segment].astype(np.int64))].to(
        dtype
    )
    if request.embeddings is not None:
        embeddings[from_segment] = torch.from_numpy(_writable(request.embeddings)).to(dtype)
    return Prompt(embeddings, _resolve_positions(request.hidden_positions, length))


def _check_token_ids(token_ids: np.ndarray, table_size: int) -> np.ndarray:
    """Mask (T,) of the ids that stand for a segment."""
    if token_ids.ndim != 1:
        raise ValueError(f"token_ids: expected (T,), got {token_ids.shape}")
    if len(token_ids) == 0:
        raise ValueError("token_ids: the prompt is empty; expected at least one id")
    bad = (token_ids < SEGMENT) | (token_ids >= table_size)
    if bad.any():
        index = int(bad.argmax())
        raise ValueError(
            f"token_ids[{index}]: got {token_ids[index]}, expected [0, {table_size}) for the "
            f"adapter's embedding table, or {SEGMENT} for an embedding segment"
        )
    return token_ids == SEGMENT


def _segment_lengths(request: GenerateRequest, segments: int, width: int) -> np.ndarray:
    """Rows (S,) of each segment, checked against `embeddings`."""
    embeddings = request.embeddings
    if embeddings is None:
        if segments or request.embedding_lengths is not None:
            raise ValueError(
                f"embeddings: missing, but token_ids has {segments} segments ({SEGMENT}) and "
                f"embedding_lengths is {_shown(request.embedding_lengths)}"
            )
        return np.zeros(0, dtype=np.int64)
    if embeddings.ndim != 2 or embeddings.shape[1] != width:
        raise ValueError(f"embeddings: expected (R, {width}), got {embeddings.shape}")
    rows = len(embeddings)
    lengths = request.embedding_lengths
    if lengths is None and segments == rows == 0:
        return np.zeros(0, dtype=np.int64)
    if lengths is None:
        if segments != 1:
            raise ValueError(
                f"embedding_lengths: missing, but token_ids has {segments} segments ({SEGMENT}); "
                "without it all rows are one segment"
            )
        lengths = np.array([rows])
    if lengths.ndim != 1 or len(lengths) != segments:
        raise ValueError(
            f"embedding_lengths: got {_shown(lengths)}, expected one length for each of the "
            f"{segments} segments ({SEGMENT}) in token_ids"
        )
    if (lengths < 1).any():
        raise ValueError(f"embedding_lengths: got {_shown(lengths)}, expected 1 or more each")
    total = int(lengths.astype(np.int64).sum())
    if total != rows:
        raise ValueError(
            f"embeddings: got {rows} rows, but embedding_lengths {_shown(lengths)} sum to {total}"
        )
    return lengths.astype(np.int64)


def _check_range(embeddings: np.ndarray, largest: float) -> None:
    good = np.abs(embeddings) <= largest  # False for NaN, too
    if not good.all():
        row, column = np.argwhere(~good)[0]
        raise ValueError(
            f"embeddings[{row}, {column}]: got {embeddings[row, column]}, expected finite values "
            f"up to {largest:.6g} in the engine's dtype ({int((~good).sum())} of "
            f"{embeddings.size} are not)"
        )


def _resolve_positions(positions: np.ndarray | None, length: int) -> list[int]:
    if positions is None:
        return []
    if positions.ndim != 1:
        raise ValueError(f"hidden_positions: expected (P,), got {positions.shape}")
    bad = (positions < -length) | (positions >= length)
    if bad.any():
        index = int(bad.argmax())
        raise ValueError(
            f"hidden_positions[{index}]: got {positions[index]}, expected [{-length}, {length}) "
            f"for the prompt's {length} positions"
        )
    return np.where(positions < 0, positions + length, positions).astype(int).tolist()


def _shown(lengths: np.ndarray | None) -> str:
    if lengths is None:
        return "missing"
    return np.array2string(lengths, threshold=8, separator=", ")


def _writable(array: np.ndarray) -> np.ndarray:
    # torch warns about read-only memory, which is only read here.
    return array if array.flags.writeable else array.copy()
