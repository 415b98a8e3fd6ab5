"""Organ-Seg's context cache: what a question asks for, by the texts it lies nearest to.

A version folder holds `context.safetensors` and `context.json`, both written by
`training.context_cache`. Organs, codes and answers come from there: an organ is added by adding its
texts and writing the next version, without a line of code.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

MATRIX_FILE = "context.safetensors"
"""One tensor, `context` (K + R, D) float32, rows of unit length: the mean embedding of each organ's
texts, then R rows of irrelevant texts."""

METADATA_FILE = "context.json"
"""`organs`: K objects with `name` and `snomed`, in the order of the rows; `hash`: the digest of all
source texts, by which answers name the cache."""


class ContextCache:
    """Information of interest -> cosine similarity to every organ's texts and to irrelevant ones.

    Args:
        version_folder: Holds the two files.

    Raises:
        ValueError: if they do not fit together.
    """

    def __init__(self, version_folder: Path) -> None:
        metadata = json.loads((version_folder / METADATA_FILE).read_text(encoding="utf-8"))
        self._context = load_file(version_folder / MATRIX_FILE)["context"].astype(np.float32)
        organs = metadata["organs"]
        if self._context.ndim != 2 or len(self._context) <= len(organs):
            raise ValueError(
                f"{version_folder}: context has shape {self._context.shape} for {len(organs)} "
                "organs; expected a row for each, and at least one of irrelevant texts"
            )
        lengths = np.linalg.norm(self._context, axis=1)
        if not np.allclose(lengths, 1, atol=1e-4):
            raise ValueError(
                f"{version_folder}: rows of context have lengths {lengths.min():.3g} to "
                f"{lengths.max():.3g}, expected 1"
            )
        self._labels = _texts(organ["name"] for organ in organs)
        self._snomed_codes = _texts(organ["snomed"] for organ in organs)
        self._version = str(metadata["hash"])

    def __call__(self, interest: np.ndarray) -> dict[str, np.ndarray | str]:
        """Compare with every row; of the irrelevant ones the nearest counts.

        Args:
            interest: (B, D) float32, unit length.

        Returns:
            similarities (B, K + 1) float32 in [-1, 1], the irrelevant texts last; labels and
            snomed_codes (K,) BYTES; cache_version.

        Raises:
            RuntimeError: if the extractors do not fit the cache.
        """
        width = self._context.shape[1]
        if interest.shape[1] != width or not np.isfinite(interest).all():
            raise RuntimeError(
                f"interest: expected {width} finite numbers each, the width of cache "
                f"{self._version}, got shape {interest.shape}; export extractors and cache of one "
                "training"
            )
        cosines = interest @ self._context.T
        organs = len(self._labels)
        nearest = cosines[:, organs:].max(axis=1, keepdims=True)
        return {
            "similarities": np.concatenate([cosines[:, :organs], nearest], axis=1),
            "labels": self._labels,
            "snomed_codes": self._snomed_codes,
            "cache_version": self._version,
        }


def _texts(values: Iterable[str]) -> np.ndarray:
    return np.array([value.encode() for value in values], np.object_)
