"""Parity of what all systems share: both image encoders, and the language model."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.differences import relative
from benchmarks.references.language import LanguageReference
from benchmarks.references.llava import LlavaReference
from benchmarks.references.sam import SamReference
from benchmarks.served_models import ServedModels


def encoder_differences(
    served: ServedModels, sam: SamReference, llava: LlavaReference
) -> dict[str, float]:
    """Worst relative difference of each image encoder."""
    pixels = torch.randn(2, 3, sam.size, sam.size)
    embedded = served.ask("medsam_image_encoder", pixels=pixels)
    differences = {
        "medsam_image_encoder": relative(embedded["image_embedding"], sam.embedding(pixels))
    }
    pixels = torch.randn(2, 3, llava.size, llava.size)
    encoded = served.ask("llava_image_encoder", pixels=pixels)
    expected = llava.tokens(pixels)
    differences["llava_image_encoder"] = max(
        relative(encoded["patch_tokens"], expected[:, 1:]),
        relative(encoded["cls_token"], expected[:, :1]),
    )
    return differences


def language_difference(
    served: ServedModels,
    language: LanguageReference,
    token_ids: Sequence[int],
    segments: Sequence[Tensor],
    positions: Sequence[int],
) -> float:
    """Worst relative difference of hidden states, computed and then from the prefix cache.

    Args:
        served: The server.
        language: The reference of one adapter.
        token_ids: In which the k-th -1 stands for the k-th segment, the longest of them first.
        segments: (R, E) each.
        positions: Indices into the ids.
    """
    expected = language.hidden_states(token_ids, segments, positions)
    answers = [
        hidden_states(served, language.adapter, token_ids, segments, positions) for _ in range(2)
    ]
    if answers[1]["cached_tokens"][0] == 0:
        raise RuntimeError("mllm: the second request found nothing in the prefix cache")
    return max(relative(answer["hidden_states"][0], expected) for answer in answers)


def hidden_states(
    served: ServedModels,
    adapter: str,
    token_ids: Sequence[int],
    segments: Sequence[Tensor],
    positions: Sequence[int],
) -> dict[str, np.ndarray]:
    """Outputs of the served language model, whose positions count from the end."""
    return served.ask(
        "mllm",
        token_ids=np.array(token_ids, np.int32),
        embeddings=torch.cat(list(segments)),
        embedding_lengths=np.array([len(rows) for rows in segments], np.int32),
        hidden_positions=np.array(positions, np.int32) - len(token_ids),
        adapter=adapter,
    )
