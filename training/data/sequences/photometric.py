"""Random brightness, contrast, saturation and hue, the same for all frames of a clip."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in ITU-R BT.601."""


@dataclass(frozen=True)
class PhotometricConfig:
    """Ranges, uniform; each distortion is applied to `share` of the clips."""

    share: float = 0.5
    brightness: float = 0.12
    """Largest offset, each way; 1 is white."""
    contrast: tuple[float, float] = (0.7, 1.3)
    """Factor about the mean of the clip."""
    saturation: tuple[float, float] = (0.6, 1.4)
    """Factor about the grey of each pixel; leaves grey pictures as they are."""
    hue_deg: float = 12.0
    """Largest turn about the grey axis, each way; leaves grey pictures as they are."""


def distort(
    frames: NDArray[np.uint8], rng: np.random.Generator, config: PhotometricConfig
) -> NDArray[np.uint8]:
    """Distort frames (T, H, W, 3) uint8 RGB, all alike."""
    applied = rng.random(4) < config.share
    offset = rng.uniform(-config.brightness, config.brightness)
    contrast, saturation = rng.uniform(*config.contrast), rng.uniform(*config.saturation)
    hue = np.deg2rad(rng.uniform(-config.hue_deg, config.hue_deg))

    values = frames.astype(np.float32) / 255
    if applied[0]:
        values = values + np.float32(offset)
    if applied[1]:
        mean = values.mean()
        values = mean + (values - mean) * np.float32(contrast)
    if applied[2]:
        grey = (values @ _LUMA)[..., None]
        values = grey + (values - grey) * np.float32(saturation)
    if applied[3]:
        values = values @ _hue_turn(hue).T
    return (values.clip(0, 1) * 255).round().astype(np.uint8)


def _hue_turn(angle: float) -> NDArray[np.float32]:
    """Rotation (3, 3) of colours about the axis of grey."""
    third, root = 1 / 3, np.sqrt(1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) * root
    turn = np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * third
    return turn.astype(np.float32)
