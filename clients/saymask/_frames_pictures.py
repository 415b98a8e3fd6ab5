"""A folder of PNG or JPEG files as frames, in the order of their names."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from saymask._read_picture import eight_bits, has_more_than_eight_bits, pillow_errors
from saymask.errors import InvalidArgument
from saymask.frames import Frames, check_names, stem_of
from saymask.windowing import range_to_show, window_to_uint8

_EXIF_ORIENTATION = 0x0112
_SAMPLES = 16  # frames spread over the sequence, from which a common range of values is taken


def picture_frames(folder: Path, files: list[Path], window: tuple[float, float] | None) -> Frames:
    """Open a folder's pictures; arguments as `saymask.read_frames` has them.

    Headers are read here. Frames are grey if all pictures are, else RGB; values of more than
    8 bits have one window, by default percentiles of 16 frames spread over the sequence.
    """
    files = sorted(files, key=_natural)
    sizes: dict[tuple[int, int], list[str]] = {}
    grey, deep = True, []
    for file in files:
        with pillow_errors(file.name), PIL.Image.open(file) as picture:
            width, height = picture.size
            # Of a PNG without, Pillow would read all of the file to look for it behind the pixels.
            exif = picture.getexif() if picture.format != "PNG" or "exif" in picture.info else {}
            if exif.get(_EXIF_ORIENTATION, 1) >= 5:  # turned by a quarter
                width, height = height, width
            sizes.setdefault((height, width), []).append(file.name)
            deep.append(has_more_than_eight_bits(picture))
            grey = grey and (picture.mode in ("1", "L") or deep[-1])
    if len(sizes) > 1:
        told = "; ".join(
            f"{height} x {width}: {names[0]}" + (f" and {len(names) - 1} more" * (len(names) > 1))
            for (height, width), names in sizes.items()
        )
        raise InvalidArgument(
            f"{folder.name} holds pictures of different sizes ({told}); a sequence has one: put "
            "each into a folder of its own"
        )
    if any(deep) != all(deep):
        raise InvalidArgument(
            f"{folder.name}: {sum(deep)} of {len(files)} pictures have more than 8 bits a channel, "
            "the others not; save all alike"
        )
    if window is not None and not any(deep):
        raise InvalidArgument(f"{folder.name} has 8 bits a channel already; leave the window out")
    low, high, shown = 0.0, 255.0, ""
    if any(deep):
        sampled = files[:: -(-len(files) // _SAMPLES)] if window is None else []
        values = np.concatenate([[], *(np.asarray(_upright(file)).ravel() for file in sampled)])
        low, high, shown = range_to_show(values, window)
        shown += " -> 0..255"

    def open_at(start: int) -> Iterator[NDArray[np.uint8]]:
        for file in files[start:]:
            picture = _upright(file)
            if any(deep):
                yield window_to_uint8(np.asarray(picture), low, high)
                continue
            pixels = eight_bits(picture)
            yield pixels[:, :, 0] if grey else np.broadcast_to(pixels, (*pixels.shape[:2], 3))

    return Frames(
        path=folder,
        kind="pictures",
        size_hw=next(iter(sizes)),
        count=len(files),
        open_at=open_at,
        names=check_names([stem_of(file) for file in files], files, folder),
        description=f"{files[0].name} to {files[-1].name}",
        intensity=shown,
    )


def _upright(file: Path) -> PIL.Image.Image:
    """Open a picture and turn it as its EXIF orientation says."""
    with pillow_errors(file.name), PIL.Image.open(file) as picture:
        picture.load()
        return PIL.ImageOps.exif_transpose(picture)


def _natural(file: Path) -> tuple[list[tuple[int, str]], str]:
    """Return what to sort by: numbers as such, letters whatever their case."""
    parts = re.split(r"([0-9]+)", file.name.lower())
    # Text and numbers take turns, so that like is compared with like.
    return [(int(part), "") if n % 2 else (0, part) for n, part in enumerate(parts)], file.name
