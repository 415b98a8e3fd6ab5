"""Whether loop and server gave the same masks: else they did not do the same work."""

from collections.abc import Sequence

import numpy as np

LEAST_AGREEMENT = 0.95
"""Share of pixels below which loop and server cannot have the same weights."""


def least_agreement(served: Sequence[np.ndarray], plain: Sequence[np.ndarray]) -> float:
    """Share of equal pixels in the pair of masks that agrees least.

    Args:
        served: (H, W) bool each, from the server.
        plain: The same from the loop.

    Raises:
        RuntimeError: if it is below `LEAST_AGREEMENT`.
    """
    least = min(float((mine == other).mean()) for mine, other in zip(served, plain, strict=True))
    if least < LEAST_AGREEMENT:
        raise RuntimeError(
            f"loop and server agree on {least:.0%} of a mask's pixels: the repository was not "
            "exported from the weights that the loop reads; export it again: python -m export"
        )
    return least
