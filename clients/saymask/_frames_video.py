"""Videos and animated GIFs as frames, RGB, turned as the file says."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from saymask._read_picture import eight_bits, pillow_errors
from saymask.errors import InvalidArgument, MissingExtra, SaymaskError
from saymask.frames import Frames


def video_frames(path: Path) -> Frames:
    """Open a video that FFmpeg reads; its first video stream counts."""
    with video_errors(path.name):
        import av

        with av.open(path) as container:
            if not container.streams.video:
                raise InvalidArgument(f"{path.name} has no video in it")
            stream = container.streams.video[0]
            count, rate = stream.frames, stream.average_rate
    first = next(_decoded(path, 0), None)
    if first is None:
        raise InvalidArgument(f"{path.name} holds no frame")
    return Frames(
        path=path,
        kind="video",
        size_hw=(first.shape[0], first.shape[1]),
        count=count or None,
        open_at=lambda start: _decoded(path, start),
        frames_per_second=float(rate) if rate else None,
    )


def gif_frames(path: Path) -> Frames:
    """Open an animated GIF, which is read whole once to see its frames and their delays."""
    with pillow_errors(path.name), PIL.Image.open(path) as animation:
        if animation.format != "GIF":
            raise InvalidArgument(f"{path.name} is {animation.format}, not GIF; rename it")
        count = getattr(animation, "n_frames", 1)
        duration_ms = 0.0
        for index in range(count):
            animation.seek(index)
            animation.load()
            duration_ms += animation.info.get("duration", 0)
        width, height = animation.size
    return Frames(
        path=path,
        kind="video",
        size_hw=(height, width),
        count=count,
        open_at=lambda start: _gif_pictures(path, start),
        names=tuple(f"frame{number:05d}" for number in range(1, count + 1)),
        frames_per_second=1000 * count / duration_ms if duration_ms else None,
    )


@contextmanager
def video_errors(name: str, problem: str = "not a whole video") -> Iterator[None]:
    """Turn what goes wrong with a video into `InvalidArgument`, with PyAV at hand."""
    try:
        import av
    except ImportError as error:
        raise MissingExtra(
            f"{name} needs PyAV, which carries FFmpeg: pip install 'av>=14'"
        ) from error
    try:
        yield
    except SaymaskError:
        raise
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InvalidArgument(f"{name}: {problem}: {error}") from error


def _decoded(path: Path, start: int) -> Iterator[NDArray[np.uint8]]:
    with video_errors(path.name):
        import av

        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for index, frame in enumerate(container.decode(stream)):
                if index < start:
                    continue
                pixels = frame.to_ndarray(format="rgb24")
                yield np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


def _gif_pictures(path: Path, start: int) -> Iterator[NDArray[np.uint8]]:
    with pillow_errors(path.name), PIL.Image.open(path) as animation:
        for index in range(start, getattr(animation, "n_frames", 1)):
            animation.seek(index)
            pixels = eight_bits(animation)
            yield np.array(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
