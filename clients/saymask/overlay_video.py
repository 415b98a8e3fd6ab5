"""A track as a moving picture, MP4 or GIF: every tracked frame with mask, box, name and score."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import PIL.Image

from saymask._frames_video import video_errors
from saymask.contact_sheet import frame_picture
from saymask.drawing import MASK_COLOR, draw_box, draw_letters, draw_mask
from saymask.errors import InvalidArgument
from saymask.frames import Frames
from saymask.tracks import Track

__all__ = ["DEFAULT_FRAMES_PER_SECOND", "write_overlay_video"]

DEFAULT_FRAMES_PER_SECOND = 10.0
"""Of sequences that have no rate, as a volume's slices."""

_LONGER_SIDE_PX = 512  # small frames are enlarged to it; GIF is made no larger, MP4 up to 1920
_LARGEST_SIDE_PX = 1920
_RATE_RANGE = (0.1, 240.0)


def write_overlay_video(
    path: Path, frames: Frames, track: Track, frames_per_second: float | None = None
) -> None:
    """Write the tracked frames with the answer drawn on them.

    Args:
        path: ends in `.mp4` (H.264) or `.gif`. A GIF is put together in memory; for more than a few
            hundred frames MP4 is the better choice.
        frames: the sequence that was tracked through.
        track: its masks.
        frames_per_second: 0.1 to 240; None takes the source's, and 10 where it has none. GIF counts
            in hundredths of a second, so single frames are up to 5 ms off, the whole is not.

    Raises:
        InvalidArgument: if the masks are not of these frames, or an argument is not as said.
        MissingExtra: if PyAV is not installed, for MP4.
    """
    track.check_belongs_to(frames)
    rate = frames_per_second or frames.frames_per_second or DEFAULT_FRAMES_PER_SECOND
    if not _RATE_RANGE[0] <= rate <= _RATE_RANGE[1]:
        raise InvalidArgument(
            f"frames_per_second: expected {_RATE_RANGE[0]:g} to {_RATE_RANGE[1]:g}, got {rate:g}"
        )
    ending = path.suffix.lower()
    if ending == ".gif":
        _write_gif(path, _drawn(frames, track, _LONGER_SIDE_PX), len(track), rate)
    elif ending == ".mp4":
        longer_px = min(max(_LONGER_SIDE_PX, *frames.size_hw), _LARGEST_SIDE_PX)
        _write_mp4(path, _drawn(frames, track, longer_px), rate)
    else:
        raise InvalidArgument(f"{path.name}: expected a name that ends in .mp4 or .gif")


def _drawn(frames: Frames, track: Track, longer_side_px: int) -> Iterator[PIL.Image.Image]:
    height, width = frames.size_hw
    for tracked, pixels in track.with_pixels(frames):
        picture = frame_picture(frames, pixels, longer_side_px)
        scale_x, scale_y = picture.width / width, picture.height / height
        said = frames.name_of(tracked.index)
        if tracked.found:
            if tracked.box_xyxy is not None:
                x0, y0, x1, y1 = (float(edge) for edge in tracked.box_xyxy)
                draw_box(picture, (x0 * scale_x, y0 * scale_y, x1 * scale_x, y1 * scale_y))
            draw_mask(picture, tracked.mask, MASK_COLOR, 2)
            said += f"   {tracked.score:.2f}"
        draw_letters(picture, (8, 8), said, "la")
        yield picture


def _write_gif(path: Path, pictures: Iterator[PIL.Image.Image], count: int, rate: float) -> None:
    # Rounded where frames begin, not how long they last, so that errors do not add up.
    begins_ms = np.rint(np.arange(count + 1) * 100 / rate).astype(int) * 10
    durations_ms = [max(10, int(duration)) for duration in np.diff(begins_ms)]
    next(pictures).save(
        path,
        format="GIF",
        save_all=True,
        append_images=pictures,
        duration=durations_ms if count > 1 else durations_ms[0],
        loop=0,
    )


def _write_mp4(path: Path, pictures: Iterator[PIL.Image.Image], rate: float) -> None:
    with video_errors(path.name, "cannot be written"):
        import av

        # The index in front, so that a browser shows the beginning before all has come.
        with av.open(path, "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("libx264", Fraction(rate).limit_denominator(1001))
            stream.pix_fmt = "yuv420p"
            stream.options = {"crf": "20"}
            for number, picture in enumerate(pictures):
                if number == 0:  # color has half the resolution, so sides are even
                    stream.width, stream.height = (2 * -(-side // 2) for side in picture.size)
                even = picture.resize((stream.width, stream.height))
                container.mux(stream.encode(av.VideoFrame.from_image(even)))
            container.mux(stream.encode(None))
