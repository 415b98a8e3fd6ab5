"""What a mask shows to a later round of a conversation: the masked crop and its box.

As MediRound's evaluation builds both from a predicted mask (train_ds.py:637-669, 766-799).
"""

import numpy as np

TINY_MASK_PX = 9
"""Masks with no more lit pixels than this refer to the whole picture."""


def reference_region(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut out what a mask covers.

    What lies outside the mask is black. The window is tight around the pixels that are not black,
    so an object's dark rim is cut off, while the box is tight around the mask itself. The crop
    stands at the top left of a black square. A mask with at most `TINY_MASK_PX` pixels whose red
    is above 0, empty masks among them, counts as the whole picture.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) bool.

    Returns:
        The crop (S, S, 3) uint8, S the longer side of the window, and box_xyxy (4,) float32:
        the first and the last column and row of the mask, divided by W and H.

    Raises:
        ValueError: if the sizes differ, or if the picture is black all over.
    """
    if image.ndim != 3 or image.shape[2] != 3 or mask.shape != image.shape[:2]:
        raise ValueError(
            f"mask: expected (H, W) of an (H, W, 3) picture, got {mask.shape} for {image.shape}"
        )
    masked = np.where(mask[..., None], image, 0).astype(np.uint8)
    if np.count_nonzero(masked[..., 0]) <= TINY_MASK_PX:
        masked, mask = image, np.ones(mask.shape, bool)
    if not masked.any():
        raise ValueError(
            "image: every pixel is black, so no earlier mask can be shown to this round; "
            "send a picture with content"
        )
    left, top, right, bottom = _extent(masked.any(axis=2))
    window = masked[top : bottom + 1, left : right + 1]
    side = max(window.shape[:2])
    crop = np.zeros((side, side, 3), np.uint8)
    crop[: window.shape[0], : window.shape[1]] = window

    height, width = mask.shape
    box = np.array(_extent(mask)) / (width, height, width, height)
    return crop, box.astype(np.float32)


def _extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    """First and last column and row that are not empty: x0, y0, x1, y1, the last ones included."""
    columns, rows = mask.any(axis=0).nonzero()[0], mask.any(axis=1).nonzero()[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])
