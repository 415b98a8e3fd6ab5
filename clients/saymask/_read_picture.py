"""PNG, JPEG and the other formats Pillow opens."""

import io
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from saymask.errors import InvalidArgument
from saymask.source_image import SourceImage
from saymask.windowing import range_to_show, window_to_uint8


def read_picture(
    path: Path, content: bytes, digest: str, window: tuple[float, float] | None
) -> SourceImage:
    """Read the first frame of a picture, turned upright as its EXIF orientation says.

    Grey stays one channel, colour becomes RGB, and transparency is laid on black. Values of more
    than 8 bits are windowed as `saymask.read_image` says.
    """
    try:
        stored = PIL.Image.open(io.BytesIO(content))
        stored.load()
    except (OSError, PIL.Image.DecompressionBombError, ValueError) as error:
        # Of an unknown format Pillow says nothing but the name of our buffer.
        unknown = isinstance(error, PIL.UnidentifiedImageError)
        raise InvalidArgument(
            f"{path.name}: not an image this client reads (PNG, JPEG, NIfTI .nii/.nii.gz, DICOM)"
            + ("" if unknown else f": {error}")
        ) from error
    picture = PIL.ImageOps.exif_transpose(stored)
    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        values = np.asarray(picture)
        low, high, shown = range_to_show(values, window)
        pixels = window_to_uint8(values, low, high)[:, :, np.newaxis]
        return _source(path, digest, pixels, f"{shown} -> 0..255")
    if window is not None:
        raise InvalidArgument(f"{path.name} has 8 bits a channel already; leave the window out")
    return _source(path, digest, _eight_bits(picture), "")


def _eight_bits(picture: PIL.Image.Image) -> NDArray[np.uint8]:
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
