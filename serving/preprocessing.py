"""The two frames a picture is brought into: SAM's (padded) and CLIP's (cropped).

Both follow MediSee's released code. The CLIP frame drops the ends of a picture that is not
square; the SAM frame keeps all of it.
"""

import numpy as np
from PIL import Image

SAM_MEAN = (123.675, 116.28, 103.53)
"""ImageNet mean per RGB channel, in grey levels of [0, 255]."""
SAM_STD = (58.395, 57.12, 57.375)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""CLIP's mean per RGB channel, in [0, 1]."""
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_LONGEST_SLIVER = 100
"""Ratio of sides up to which the CLIP frame scales all of a picture."""


def check_image(image: np.ndarray) -> np.ndarray:
    """Check a picture from outside and give it three channels.

    Args:
        image: (H, W, C) uint8, C = 1 (grey) or 3 (RGB), H and W at least 1.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: for any other shape or type.
    """
    if image.dtype != np.uint8 or image.ndim != 3:
        raise ValueError(
            f"image: expected (H, W, C) uint8, got shape {image.shape} {image.dtype}; "
            "window CT and MR to 8 bit first"
        )
    height, width, channels = image.shape
    if channels not in (1, 3):
        raise ValueError(
            f"image: expected 1 (grey) or 3 (RGB) channels, got {channels}; "
            "drop an alpha channel with image[..., :3]"
        )
    if height == 0 or width == 0:
        raise ValueError(f"image: expected at least one pixel, got {height} x {width}")
    return image if channels == 3 else np.repeat(image, 3, axis=2)


def sam_frame(image: np.ndarray, size: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Bring a picture into SAM's frame.

    The longer side is scaled to `size` (PIL bilinear), then mean and deviation of ImageNet, then
    zeros at the right and bottom (segment_anything/utils/transforms.py; MediSee
    utils/dataset.py:564-574).

    Args:
        image: (H, W, 3) uint8.
        size: Side S of the frame.

    Returns:
        pixels (3, S, S) float32, and the scaled size (h', w') before padding.
    """
    height, width = image.shape[:2]
    scale = size / max(height, width)
    # A sliver of one pixel may round to nothing; SAM's recipe would fail on it.
    scaled_height = max(1, int(height * scale + 0.5))
    scaled_width = max(1, int(width * scale + 0.5))
    resized = Image.fromarray(image).resize(
        (scaled_width, scaled_height), Image.Resampling.BILINEAR
    )
    pixels = np.zeros((3, size, size), np.float32)
    normalised = (np.asarray(resized, np.float32) - _row(SAM_MEAN)) / _row(SAM_STD)
    pixels[:, :scaled_height, :scaled_width] = normalised.transpose(2, 0, 1)
    return pixels, (scaled_height, scaled_width)


def clip_frame(image: np.ndarray, size: int) -> np.ndarray:
    """Bring a picture into CLIP's frame, as Hugging Face's `CLIPImageProcessor` does.

    The shorter side is scaled to `size` (PIL bicubic), the centre is cropped, then mean and
    deviation of CLIP.

    Args:
        image: (H, W, 3) uint8.
        size: Side S of the frame.

    Returns:
        pixels (3, S, S) float32.
    """
    # 1 x 65,535 pixels would be scaled to gigabytes; what is left out here is cropped below.
    longest = _LONGEST_SLIVER * min(image.shape[:2])
    y, x = (max(0, side - longest) // 2 for side in image.shape[:2])
    image = image[y : image.shape[0] - y, x : image.shape[1] - x]

    height, width = image.shape[:2]
    shorter = min(height, width)
    scaled_height, scaled_width = int(size * height / shorter), int(size * width / shorter)
    top, left = (scaled_height - size) // 2, (scaled_width - size) // 2
    whole = Image.fromarray(image).resize((scaled_width, scaled_height), Image.Resampling.BICUBIC)
    centre = whole.crop((left, top, left + size, top + size))
    normalised = (np.asarray(centre, np.float32) / 255 - _row(CLIP_MEAN)) / _row(CLIP_STD)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1))


def _row(values: tuple[float, ...]) -> np.ndarray:
    return np.array(values, np.float32)
