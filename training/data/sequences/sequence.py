"""An image sequence with its masks, and a scene: what renders one, frame by frame.

A sequence is a film (ultrasound, endoscopy, cine MRI) or the slices of a volume in order, as TPP
sees both (Sec. 3). Knows nothing of prompts or networks.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Modality = Literal["MRI", "CT", "ultrasound", "endoscopy"]
"""The four of Ref-MISS-Bench."""


@dataclass(frozen=True)
class Frame:
    """One picture of a sequence."""

    image: NDArray[np.uint8]
    """(H, W), or (H, W, 3) RGB."""
    masks: NDArray[np.bool_]
    """(K, H, W), in the order of the scene's names; all False where a structure is not in view."""


@dataclass(frozen=True)
class ImageSequence:
    """Frames in order, with masks of K named structures.

    Raises:
        ValueError: if frames, masks and names do not belong together.
    """

    frames: NDArray[np.uint8]
    """(T, H, W), or (T, H, W, 3) RGB."""
    masks: NDArray[np.bool_]
    """(T, K, H, W); K is 0 where nobody labelled the sequence."""
    names: tuple[str, ...]
    """The K structures; they may overlap."""
    modality: Modality
    pixel_spacing_mm: tuple[float, float] | None = None
    """Between rows and between columns; None where the picture has no scale."""
    slice_spacing_mm: float | None = None
    """Between the slices of a volume; None for a film."""

    def __post_init__(self) -> None:
        if self.frames.dtype != np.uint8 or self.frames.ndim not in (3, 4):
            raise ValueError(
                "frames: expected (T, H, W) or (T, H, W, 3) uint8, "
                f"got {self.frames.shape} {self.frames.dtype}"
            )
        count, height, width = self.frames.shape[:3]
        expected = (count, len(self.names), height, width)
        if self.masks.dtype != np.bool_ or self.masks.shape != expected:
            raise ValueError(
                f"masks: expected {expected} bool for {len(self.names)} names, "
                f"got {self.masks.shape} {self.masks.dtype}"
            )


class Scene(ABC):
    """What can be looked at frame by frame; any frame, in any order, is always the same."""

    modality: Modality
    names: tuple[str, ...]
    """Structures that can be in view."""
    length: int
    """Frames, numbered from 0."""
    pixel_spacing_mm: tuple[float, float] | None = None
    """As in `ImageSequence`."""
    slice_spacing_mm: float | None = None
    """As in `ImageSequence`."""
    has_sides: bool = False
    """Whether left and right tell structures apart, so that a mirrored picture would be wrong."""

    @abstractmethod
    def frame(self, index: int) -> Frame:
        """Render one frame; `index` lies in 0..length-1."""

    def render(self, indices: Iterable[int] | None = None) -> ImageSequence:
        """Render frames in the order given; None: all of them, in theirs.

        Raises:
            IndexError: if a frame is asked for that the scene does not have.
        """
        wanted = list(range(self.length) if indices is None else indices)
        outside = [index for index in wanted if not 0 <= index < self.length]
        if outside or not wanted:
            raise IndexError(
                f"indices: expected some within 0..{self.length - 1}, got {outside or 'none'}"
            )
        frames = [self.frame(index) for index in wanted]
        return ImageSequence(
            np.stack([frame.image for frame in frames]),
            np.stack([frame.masks for frame in frames]),
            self.names,
            self.modality,
            self.pixel_spacing_mm,
            self.slice_spacing_mm,
        )
