"""How far an answer is from the expected one; 0 is the same, 1 something else."""

from collections.abc import Sequence

import numpy as np
from saymask import mask_codec
from torch import Tensor


def relative(value: np.ndarray, expected: np.ndarray | Tensor) -> float:
    """Largest difference, relative to the largest expected magnitude."""
    reference = expected.numpy() if isinstance(expected, Tensor) else expected
    if value.shape != reference.shape:
        raise ValueError(f"shape {value.shape}, expected {reference.shape}")
    return float(np.abs(value - reference).max() / max(1e-12, np.abs(reference).max()))


def differing(values: Sequence[object], expected: Sequence[object]) -> float:
    """Share of values that are not the expected ones."""
    if len(values) != len(expected):
        return 1.0
    unlike = sum(one != other for one, other in zip(values, expected, strict=True))
    return unlike / max(1, len(expected))


def differing_pixels(packed: np.ndarray, expected: np.ndarray) -> float:
    """Share of pixels on the other side, of the mask where it is largest.

    Args:
        packed: (P, H, ceil(W / 8)) uint8, one bit a pixel.
        expected: (P, H, W) bool.
    """
    masks = mask_codec.decode(packed, expected.shape[2])
    if masks.shape != expected.shape:
        raise ValueError(f"masks have shape {masks.shape}, expected {expected.shape}")
    return float((masks != expected).mean(axis=(1, 2)).max())


def outlines(packed: np.ndarray, scores: np.ndarray, probabilities: Tensor) -> float:
    """Worst of pixels on the other side and scores.

    Args:
        packed: (P, H, ceil(W / 8)) uint8, one bit a pixel.
        scores: (P,), mean probability inside each mask.
        probabilities: (P, H, W) of the reference.
    """
    foreground = probabilities > 0.5
    area = foreground.sum(dim=(1, 2))
    expected = (probabilities * foreground).sum(dim=(1, 2)) / area.clamp(min=1)
    return max(differing_pixels(packed, foreground.numpy()), relative(scores, expected))
