"""PNG, JPEG and the other formats Pillow opens."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from saymask.errors import InvalidArgument, SaymaskError
from saymask.source_image import SourceImage
from saymask.windowing import range_to_show, window_to_uint8


def read_picture(
    path: Path, content: bytes, digest: str, window: tuple[float, float] | None
) -> SourceImage:
    """Read the first frame of a picture, turned upright as its EXIF orientation says.

    Grey stays one channel, colour becomes RGB, and transparency is laid on black. Values of more
    than 8 bits are windowed as `saymask.read_image` says.
    """
    with pillow_errors(path.name):
        stored = PIL.Image.open(io.BytesIO(content))
        stored.load()
    picture = PIL.ImageOps.exif_transpose(stored)
    if has_more_than_eight_bits(picture):
        values = np.asarray(picture)
        low, high, shown = range_to_show(values, window)
        pixels = window_to_uint8(values, low, high)[:, :, np.newaxis]
        return _source(path, digest, pixels, f"{shown} -> 0..255")
    if window is not None:
        raise InvalidArgument(f"{path.name} has 8 bits a channel already; leave the window out")
    return _source(path, digest, eight_bits(picture), "")


@contextmanager
def pillow_errors(name: str) -> Iterator[None]:
    """Turn what Pillow raises for a file that is no whole picture into `InvalidArgument`."""
    try:
        yield
    except SaymaskError:
        raise
    except (EOFError, OSError, PIL.Image.DecompressionBombError, SyntaxError, ValueError) as error:
        # Of an unknown format Pillow says nothing but the name of our buffer.
        unknown = isinstance(error, PIL.UnidentifiedImageError)
        raise InvalidArgument(
            f"{name}: not an image this client reads (PNG, JPEG, NIfTI .nii/.nii.gz, DICOM)"
            + ("" if unknown else f": {error}")
        ) from error


def has_more_than_eight_bits(picture: PIL.Image.Image) -> bool:
    """Return whether its values need a window."""
    return picture.mode in ("I", "F") or picture.mode.startswith("I;")


def eight_bits(picture: PIL.Image.Image) -> NDArray[np.uint8]:
    """Return a picture of 8 bits a channel as (H, W, 1), or (H, W, 3) RGB, on black."""
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = PIL.Image.new("RGBA", layer.size, "black")
        picture.alpha_composite(layer)
    if picture.mode in ("1", "L"):
        return np.asarray(picture.convert("L"))[:, :, np.newaxis]
    return np.asarray(picture.convert("RGB"))


def _source(path: Path, digest: str, pixels: NDArray[np.uint8], intensity: str) -> SourceImage:
    return SourceImage(
        pixels=np.ascontiguousarray(pixels),
        path=path,
        sha256=digest,
        kind="picture",
        intensity=intensity,
    )
