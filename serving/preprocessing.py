"""The frames a picture is brought into, two for each encoder.

MediSee's follow its released code: SAM's frame is padded; CLIP's drops the ends of a picture that
is not square. Organ-Seg's follow the models it builds on: MedSAM's frame is stretched, and the
picture is padded to a square before CLIP's.
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
_LARGEST_SQUARE = 4096
"""Side in pixels up to which a square is padded from the picture as it came."""


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


def medsam_frame(image: np.ndarray, size: int) -> np.ndarray:
    """Bring a picture into MedSAM's own frame.

    Both sides are stretched to `size`, whatever their ratio, and the values to [0, 1]; no mean or
    deviation (MedSAM_Inference.py and pre_CT_MR.py of MedSAM). Resampled by PIL (bicubic) where
    MedSAM takes scikit-image's cubic splines: a twentieth of the time, and values that differ by
    less than 0.01 on average (tests/serving/test_preprocessing.py).

    Args:
        image: (H, W, 3) uint8.
        size: Side S of the frame.

    Returns:
        pixels (3, S, S) float32 in [0, 1]; all 0 for a picture of one value.
    """
    resized = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    pixels = np.asarray(resized, np.float32).transpose(2, 0, 1)
    low, high = pixels.min(), pixels.max()
    return np.ascontiguousarray((pixels - low) / max(high - low, np.float32(1e-8)))


def square_clip_frame(image: np.ndarray, size: int) -> np.ndarray:
    """Bring a whole picture into CLIP's frame, as LLaVA's `image_aspect_ratio` "pad" does.

    The picture is laid in the middle of a square of CLIP's mean colour (`expand2square` of
    llava/mm_utils.py), which then goes through `clip_frame`. Nothing is cropped.

    Args:
        image: (H, W, 3) uint8.
        size: Side S of the frame.

    Returns:
        pixels (3, S, S) float32.
    """
    height, width = image.shape[:2]
    if height == width:
        return clip_frame(image, size)
    picture = Image.fromarray(image)
    # The square of 1 x 65,535 pixels would take gigabytes, to be made small again below.
    picture.thumbnail((_LARGEST_SQUARE, _LARGEST_SQUARE), Image.Resampling.BICUBIC)
    side = max(picture.size)
    square = Image.new("RGB", (side, side), tuple(int(255 * mean) for mean in CLIP_MEAN))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return clip_frame(np.asarray(square), size)


def _row(values: tuple[float, ...]) -> np.ndarray:
    return np.array(values, np.float32)
