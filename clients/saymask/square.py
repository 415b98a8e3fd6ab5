"""Asks about a picture that is not square as if it were: pads it, and maps the answer back."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from saymask.results import Segmentation

__all__ = ["answer_on_original", "pad_to_square"]


def pad_to_square(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Put a picture in the middle of a black square of its longer side.

    Args:
        pixels: (H, W, C) uint8.

    Returns:
        The square (S, S, C), S = max(H, W), and (row, column) of the picture's corner in it.
    """
    height, width, channels = pixels.shape
    side = max(height, width)
    corner = ((side - height) // 2, (side - width) // 2)
    square = np.zeros((side, side, channels), np.uint8)
    square[corner[0] : corner[0] + height, corner[1] : corner[1] + width] = pixels
    return square, corner


def answer_on_original(
    segmentation: Segmentation, corner: tuple[int, int], size: tuple[int, int]
) -> Segmentation:
    """Map an answer about the square back to the picture inside it.

    Args:
        segmentation: answer about what `pad_to_square` returned.
        corner: (row, column) of the picture in the square.
        size: (H, W) of the picture.

    Returns:
        The same answer with mask (H, W) and the box in the picture's pixels; what the mask had
        in the padding is gone, and the score 0 if nothing is left.
    """
    row, column = corner
    mask = segmentation.mask[row : row + size[0], column : column + size[1]]
    box_xyxy = segmentation.box_xyxy - np.array([column, row, column, row], np.float32)
    box_xyxy.flags.writeable = False
    score = segmentation.score if mask.any() else 0.0
    return replace(segmentation, mask=mask, box_xyxy=box_xyxy, score=score)
