"""What CoTexNet's text says of a region, computed from its mask and the picture.

The paper asks a language and vision model for number, shape, size, color and location (Sec. 3.1);
here each is a word or two by rule. Knows nothing of tasks or of sentences.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.networks.cotexnet.prompts import Attributes

Bools = NDArray[np.bool_]

NUMBERS = ("one", "two", "three", "four")
MANY = "several"
"""More parts than `NUMBERS` has words for."""

MIN_PART_SHARE = 0.05
"""Smaller parts, relative to the whole region, are not counted."""

SIZES = ((0.01, "tiny"), (0.04, "small"), (0.12, "medium"), (1.0, "large"))
"""Largest share of the picture that each word covers."""

CENTRE_TOLERANCE = 0.1
"""A centre of mass this near to the middle of an axis, in picture lengths, is in its middle."""

COLORS = {
    "black": (15, 15, 15),
    "dark gray": (65, 65, 65),
    "gray": (125, 125, 125),
    "light gray": (185, 185, 185),
    "white": (240, 240, 240),
    "pink": (225, 150, 140),
    "red": (190, 60, 50),
    "dark red": (105, 35, 30),
    "orange": (220, 130, 75),
    "brown": (125, 80, 60),
}
"""Color of each word, RGB; the nearest to the median of the region is taken."""


def attributes_of(image: NDArray[np.uint8], mask: Bools) -> Attributes:
    """Describe a region.

    Args:
        image: (H, W, 3) RGB.
        mask: (H, W), not empty.

    Raises:
        ValueError: if the mask is empty or has another size.
    """
    if image.shape != (*mask.shape, 3):
        raise ValueError(f"image: expected {(*mask.shape, 3)} for the mask, got {image.shape}")
    if not mask.any():
        raise ValueError("mask: expected at least one pixel; there is nothing to describe")
    parts, largest = _parts(mask)
    return Attributes(
        number=NUMBERS[parts - 1] if parts <= len(NUMBERS) else MANY,
        shape=_shape(largest),
        size=next(word for share, word in SIZES if mask.mean() <= share),
        color=_color(image[mask]),
        location=_location(mask),
    )


def _parts(mask: Bools) -> tuple[int, Bools]:
    """How many connected parts count, and the largest."""
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    counted = int((areas >= MIN_PART_SHARE * mask.sum()).sum())
    return counted, labels == areas.argmax() + 1


def _shape(part: Bools) -> str:
    """A word for the form of one connected part, from its holes, moments and ellipse."""
    if ndimage.binary_fill_holes(part).sum() > 1.15 * part.sum():
        return "ring-shaped"
    rows, columns = np.nonzero(part)
    points = np.stack([rows, columns]).astype(float)
    offset = points - points.mean(axis=1, keepdims=True)
    # A pixel is a square, not a point: its own variance keeps lines from having none.
    covariance = offset @ offset.T / part.sum() + np.eye(2) / 12
    variances, axes = np.linalg.eigh(covariance)
    minor, major = np.sqrt(variances)
    # An ellipse with these moments covers this share of its own area, if the part is one.
    level = (offset * (np.linalg.inv(covariance) @ offset)).sum(axis=0)
    filled = (level <= 4).sum() / (4 * np.pi * minor * major)
    if filled < 0.86:
        # An arc has its mass off its centre line, on the outer side of the bend.
        skewness = ((axes[:, 0] @ offset) ** 3).mean() / minor**3
        return "crescent-shaped" if abs(skewness) > 0.25 else "irregular"
    if major < 1.25 * minor:
        return "round"
    return "oval" if major < 2.2 * minor else "elongated"


def _color(pixels: NDArray[np.uint8]) -> str:
    distance = np.array(list(COLORS.values())) - np.median(pixels, axis=0)
    return list(COLORS)[int((distance**2).sum(axis=1).argmin())]


def _location(mask: Bools) -> str:
    """One of nine words for where the centre of mass lies."""
    middle = (np.array(ndimage.center_of_mass(mask)) + 0.5) / mask.shape - 0.5
    words = [
        low if offset < -CENTRE_TOLERANCE else high if offset > CENTRE_TOLERANCE else ""
        for offset, (low, high) in zip(middle, (("top", "bottom"), ("left", "right")), strict=True)
    ]
    return " ".join(word for word in words if word) or "center"
