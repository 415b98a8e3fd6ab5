"""Intensities of any range to the 8 bits that pictures have."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SOFT_TISSUE_HU", "range_to_show", "window_to_uint8"]

SOFT_TISSUE_HU = (-160.0, 240.0)
"""CT's soft-tissue window, level 40 and width 400, as (low, high) in Hounsfield units."""


def window_to_uint8(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Scale `low`..`high` linearly to 0..255; what lies outside is clipped.

    Args:
        values: any shape and numeric dtype; NaN becomes 0.
        low: value shown black.
        high: value shown white; above `low`.

    Returns:
        Same shape, uint8, rounded to nearest.

    Raises:
        ValueError: if `high` is not above `low`.
    """
    if not high > low:
        raise ValueError(f"window: expected low < high, got {low} and {high}")
    scaled = (values.astype(np.float64) - low) * (255.0 / (high - low))
    return np.rint(np.clip(np.nan_to_num(scaled, nan=0.0), 0.0, 255.0)).astype(np.uint8)


def range_to_show(
    values: NDArray[Any], window: tuple[float, float] | None
) -> tuple[float, float, str]:
    """Return the window, or where there is none the range between percentiles 0.5 and 99.5.

    Args:
        values: any shape; only finite values count.
        window: (low, high) with low < high; None chooses by the values.

    Returns:
        (low, high, text) with low < high, also for constant values; the text says where it is from.
    """
    if window is not None:
        return *window, f"{window[0]:g}..{window[1]:g}"
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0, "no finite value"
    low, high = (float(value) for value in np.percentile(finite, (0.5, 99.5)))
    source = "percentiles 0.5 and 99.5"
    if low == high:  # nearly everything has one value: show whatever else there is
        low, high, source = float(finite.min()), float(finite.max()), "lowest and highest"
    if low == high:
        return low, low + 1.0, f"all {low:g}"
    return low, high, f"{low:g}..{high:g} ({source})"
