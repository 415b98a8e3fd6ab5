"""Masks of one prompt through a sequence, as they come and as they are kept.

Knows nothing of files; `track_writers`, `contact_sheet` and `overlay_video` write.
"""

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saymask import mask_codec
from saymask.errors import InvalidArgument
from saymask.frames import Frames

__all__ = ["Track", "TrackedFrame"]


@dataclass(frozen=True, eq=False)
class TrackedFrame:
    """What a prompt asks for in one frame."""

    index: int
    """Of the frame in its sequence, from 0."""
    mask: NDArray[np.bool_]
    """(H, W) bool on the frame's pixel grid; true is foreground."""
    score: float
    """How sure the model is of the frame, 0 to 1."""
    box_xyxy: NDArray[np.float32] | None = None
    """(4,) float32 (x0, y0, x1, y1) in pixels, half-open; None where the model gave none."""

    @property
    def found(self) -> bool:
        """Whether the mask holds any pixel."""
        return bool(self.mask.any())


class Track:
    """Frames of one prompt, in any order of arrival; masks are kept compressed.

    Args:
        prompt: what was asked for.
        tracked: frames to begin with.
    """

    def __init__(self, prompt: str, tracked: Iterable[TrackedFrame] = ()) -> None:
        self.prompt = prompt
        self.size_hw: tuple[int, int] | None = None
        self._frames: dict[int, tuple[bytes, float, NDArray[np.float32] | None]] = {}
        for frame in tracked:
            self.add(frame)

    def add(self, frame: TrackedFrame) -> None:
        """Take one frame in.

        Raises:
            InvalidArgument: if its mask is no (H, W) bool of the others' size, or its index is
                below 0 or taken.
        """
        mask, size_hw = frame.mask, self.size_hw or frame.mask.shape
        if mask.ndim != 2 or mask.dtype != np.bool_ or mask.shape != size_hw:
            expected = "(H, W)" if self.size_hw is None else self.size_hw
            raise InvalidArgument(
                f"mask of frame {frame.index}: expected {expected} bool, got {mask.shape} "
                f"{mask.dtype}"
            )
        if frame.index < 0 or frame.index in self._frames:
            raise InvalidArgument(
                f"frame {frame.index}: expected an index from 0 on that this track does not hold"
            )
        self.size_hw = (mask.shape[0], mask.shape[1])
        packed = zlib.compress(mask_codec.encode(mask[np.newaxis]).tobytes(), 1)
        self._frames[frame.index] = (packed, float(frame.score), frame.box_xyxy)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._frames)

    def __iter__(self) -> Iterator[TrackedFrame]:
        """Yield the frames by index."""
        return (self[index] for index in self.indices)

    def __getitem__(self, index: int) -> TrackedFrame:
        """Return the frame of this index in the sequence; KeyError if it was not tracked."""
        packed, score, box_xyxy = self._frames[index]
        assert self.size_hw is not None
        height, width = self.size_hw
        rows = np.frombuffer(zlib.decompress(packed), np.uint8)
        mask = mask_codec.decode(rows.reshape(1, height, mask_codec.packed_width(width)), width)[0]
        return TrackedFrame(index, mask, score, box_xyxy)

    @property
    def indices(self) -> tuple[int, ...]:
        """Indices of the frames, ascending."""
        return tuple(sorted(self._frames))

    def check_belongs_to(self, frames: Frames) -> None:
        """Check that the masks can lie on these frames.

        Raises:
            InvalidArgument: if there is no mask, or size or count differ.
        """
        if not self._frames:
            raise InvalidArgument(f"nothing was tracked in {frames.path.name} yet")
        if self.size_hw != frames.size_hw:
            raise InvalidArgument(
                f"masks of {self.size_hw} pixels do not belong to {frames.path.name}, whose frames "
                f"have {frames.size_hw}"
            )
        if frames.names is not None and self.indices[-1] >= len(frames.names):
            raise InvalidArgument(
                f"frame {self.indices[-1]}: {frames.path.name} has {len(frames.names)} frames"
            )

    def with_pixels(
        self, frames: Frames, indices: Iterable[int] | None = None
    ) -> Iterator[tuple[TrackedFrame, NDArray[np.uint8]]]:
        """Yield the frames, or those of these indices, by index, with what they were found in.

        The sequence is read once, from the first of them to the last.
        """
        wanted = sorted(self._frames if indices is None else indices)
        pictures = enumerate(frames.read_from(wanted[0]), wanted[0])
        for index in wanted:
            for at, pixels in pictures:
                if at == index:
                    yield self[index], pixels
                    break
            else:
                raise InvalidArgument(f"frame {index}: {frames.path.name} ends before it")
