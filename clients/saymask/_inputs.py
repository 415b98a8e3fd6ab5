"""Checks of what the caller asks, before anything is sent."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from saymask.errors import InvalidArgument

if TYPE_CHECKING:
    from pathlib import Path

    import PIL.Image

    from saymask.source_image import SourceImage

ImageLike: TypeAlias = "NDArray[np.uint8] | PIL.Image.Image | SourceImage | str | Path"
"""What a caller may pass as the image; `check_image` says what each must hold."""

_WINDOW = (
    "choose the range to show and scale it to 0..255 first: "
    "saymask.windowing.window_to_uint8(image, low, high), with low=-160, high=240 for soft tissue "
    "in Hounsfield units"
)


def check_image(
    image: ImageLike, *, ct_window: tuple[float, float] | None = None
) -> NDArray[np.uint8]:
    """Return the picture as the pipelines take it.

    Args:
        image: uint8 (H, W), (H, W, 1) or (H, W, 3), RGB; a PIL image; a `SourceImage`; or the path
            of a file that `saymask.read_image` reads.
        ct_window: of a file, as `saymask.read_image` takes it.

    Returns:
        (H, W, C) uint8, C in {1, 3}, contiguous.

    Raises:
        InvalidArgument: for anything else; the message says how to get there.
    """
    from saymask.source_image import SourceImage

    if isinstance(image, str | os.PathLike):
        from saymask.readers import read_image

        image = read_image(image, ct_window=ct_window)
    if isinstance(image, SourceImage):
        return image.pixels
    if not isinstance(image, np.ndarray):
        image = _pixels_of_object(image)
    return _check_array(image)


def check_prompt(prompt: str) -> str:
    """Return the prompt if it is text.

    Raises:
        InvalidArgument: if it is not a str, is blank, or cannot be written as UTF-8.
    """
    if not isinstance(prompt, str):
        way_out = "decode it first" if isinstance(prompt, bytes) else "several go to segment_many"
        raise InvalidArgument(f"prompt: expected one str, got {type(prompt).__name__}; {way_out}")
    if not prompt.strip():
        raise InvalidArgument("prompt: it is empty; ask something, as in 'the thalamus'")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"prompt: it cannot be written as UTF-8: {error}") from error
    return prompt


def check_prompts(prompts: Iterable[str]) -> list[str]:
    """Return several prompts if each is text.

    Raises:
        InvalidArgument: as `check_prompt`, and for one str, which would be asked letter by letter.
    """
    if isinstance(prompts, str):
        raise InvalidArgument(
            "prompts: expected a list of questions, got one str; use segment, or [prompt]"
        )
    return [check_prompt(prompt) for prompt in prompts]


def _pixels_of_object(image: Any) -> NDArray[Any]:
    """Return the pixels of an object that is no array, if it is a PIL image."""
    import PIL.Image

    if not isinstance(image, PIL.Image.Image):
        raise InvalidArgument(
            "image: expected a numpy uint8 array, a PIL image or a path, got "
            f"{type(image).__module__}.{type(image).__qualname__}; convert it with np.asarray "
            "(a tensor with .cpu().numpy())"
        )
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    if image.mode == "RGB":
        return np.asarray(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise InvalidArgument(
            f"image: expected 8 bits a channel, got PIL mode {image.mode!r}; {_WINDOW}"
        )
    raise InvalidArgument(
        f"image: expected PIL mode L or RGB, got {image.mode!r}; "
        "image.convert('RGB') makes it so (and drops transparency)"
    )


def _check_array(image: NDArray[Any]) -> NDArray[np.uint8]:
    shape = image.shape
    if image.size == 0:
        raise InvalidArgument(f"image: it is empty, shape {shape}; check how it was read or cut")
    if image.ndim not in (2, 3):
        way_out = "send one image a call" if image.ndim == 4 else "check how it was read"
        raise InvalidArgument(
            f"image: expected (H, W), (H, W, 1) or (H, W, 3), got {shape}; {way_out}"
        )
    if image.ndim == 3 and shape[2] not in (1, 3):
        raise InvalidArgument(
            f"image: expected 1 or 3 channels last, got {shape}; {_way_to_channels_last(shape)}"
        )
    if image.dtype != np.uint8:
        found = str(image.dtype)
        if np.issubdtype(image.dtype, np.floating) and np.isnan(image).any():
            found += " with NaN"
        way_out = "image * np.uint8(255) makes it so" if image.dtype == np.bool_ else _WINDOW
        raise InvalidArgument(f"image: expected uint8, got {found}; {way_out}")
    return np.ascontiguousarray(image if image.ndim == 3 else image[:, :, np.newaxis])


def _way_to_channels_last(shape: tuple[int, ...]) -> str:
    if shape[2] == 4:
        return "drop the alpha channel with image[..., :3]"
    if shape[2] == 2:
        return "drop the alpha channel with image[..., :1]"
    if shape[0] in (1, 3):
        return "move the channels last with image.transpose(1, 2, 0)"
    return "of a volume send one slice, as in volume[index]"
