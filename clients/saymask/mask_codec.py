"""Bit-packed masks as they travel between server and client: both directions, in one place.

One bit per pixel, rows padded to whole bytes, most significant bit first, as
`numpy.packbits(axis=-1)` writes them. Knows nothing of tensors' names or of gRPC.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["decode", "encode", "packed_width"]


def packed_width(width: int) -> int:
    """Return the bytes that one row of `width` pixels takes: ceil(width / 8)."""
    return (width + 7) // 8


def encode(masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Pack masks eight pixels to a byte.

    Args:
        masks: (N, H, W) bool, true is foreground.

    Returns:
        (N, H, ceil(W / 8)) uint8; the padding bits at the end of a row are 0.

    Raises:
        ValueError: if `masks` has another rank or dtype.
    """
    if masks.ndim != 3 or masks.dtype != np.bool_:
        raise ValueError(
            f"masks: expected (N, H, W) bool, got {masks.shape} {masks.dtype}; "
            "threshold probabilities first (probabilities > 0.5)"
        )
    return np.packbits(masks, axis=-1)


def decode(packed: NDArray[np.uint8], width: int) -> NDArray[np.bool_]:
    """Unpack what `encode` packed.

    Args:
        packed: (N, H, ceil(width / 8)) uint8; padding bits are ignored.
        width: W, the pixels in a row; the packed form alone does not tell it.

    Returns:
        (N, H, W) bool, true is foreground.

    Raises:
        ValueError: if `packed` is not the packed form of rows of `width` pixels.
    """
    if packed.ndim != 3 or packed.dtype != np.uint8 or packed.shape[-1] != packed_width(width):
        raise ValueError(
            f"packed masks of width {width}: expected (N, H, {packed_width(width)}) uint8, "
            f"got {packed.shape} {packed.dtype}"
        )
    return np.unpackbits(packed, axis=-1, count=width).astype(np.bool_)
