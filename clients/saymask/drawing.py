"""What drawings of answers share: colors, the mask's tint and contour, the box, letters, fonts."""

from typing import TypeAlias

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from numpy.typing import NDArray

__all__ = [
    "BOX_COLOR",
    "CAPTION_BACKGROUND",
    "MASK_COLOR",
    "MUTED_COLOR",
    "TEXT_COLOR",
    "draw_box",
    "draw_letters",
    "draw_mask",
    "font_for",
    "has_letters",
    "wrapped",
]

MASK_COLOR = (0, 214, 190)
BOX_COLOR = (255, 190, 61)
_FINE_UP_TO_PX = 1200  # larger pictures have pixels fine enough for a smooth contour
_TINT = 0.34  # share of the mask's color inside the mask
CAPTION_BACKGROUND = (18, 22, 28)
TEXT_COLOR = (240, 243, 246)
MUTED_COLOR = (154, 164, 175)
_NO_LETTER = "\uffff"  # drawn as the box that stands for a letter the font lacks
_WIDER_FONTS = (
    "DejaVuSans.ttf",
    "NotoSansCJK-Regular.ttc",
    "msyh.ttc",
    "PingFang.ttc",
    "Arial Unicode.ttf",
)


_Font: TypeAlias = PIL.ImageFont.FreeTypeFont | PIL.ImageFont.ImageFont


def draw_mask(
    picture: PIL.Image.Image,
    mask: NDArray[np.bool_],
    color: tuple[int, int, int],
    contour_px: int = 3,
) -> None:
    """Tint a mask (H, W), stretched over the picture, and draw its contour on its inside."""
    # Drawn larger, thresholded and made small again: a smooth edge that runs between pixels.
    factor = 2 if max(picture.size) <= _FINE_UP_TO_PX else 1
    size = (picture.width * factor, picture.height * factor)
    scaled = PIL.Image.fromarray(mask.astype(np.uint8) * 255).resize(
        size, PIL.Image.Resampling.BILINEAR
    )
    inside = np.asarray(scaled) > 127
    contour = inside & ~_eroded(inside, contour_px * factor)
    for region, opacity in ((inside, _TINT), (contour, 1.0)):
        layer = PIL.Image.fromarray(region.astype(np.uint8) * round(255 * opacity))
        picture.paste(color, mask=layer.resize(picture.size))


def _eroded(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    """Return the pixels of a mask with as many mask pixels to each of their four sides."""
    framed = np.pad(mask, pixels)
    height, width = mask.shape
    inner = mask.copy()
    for row, column in ((0, pixels), (2 * pixels, pixels), (pixels, 0), (pixels, 2 * pixels)):
        inner &= framed[row : row + height, column : column + width]
    return inner


def draw_box(picture: PIL.Image.Image, box: tuple[float, float, float, float]) -> None:
    """Draw a box (x0, y0, x1, y1) in the picture's pixels, cut off where the picture ends."""
    left, right = (min(max(x, 1), picture.width - 2) for x in (box[0], box[2]))
    top, bottom = (min(max(y, 1), picture.height - 2) for y in (box[1], box[3]))
    if right <= left or bottom <= top:
        return
    draw = PIL.ImageDraw.Draw(picture)
    draw.rounded_rectangle((left, top, right, bottom), radius=4, outline=(0, 0, 0), width=5)
    draw.rounded_rectangle(
        (left + 1, top + 1, right - 1, bottom - 1), radius=4, outline=BOX_COLOR, width=3
    )


def draw_letters(
    picture: PIL.Image.Image, place: tuple[float, float], letters: str, anchor: str
) -> None:
    """Write white letters with a black edge at (x, y); `anchor` is Pillow's."""
    PIL.ImageDraw.Draw(picture).text(
        place, letters, TEXT_COLOR, font_for(20), anchor, stroke_width=2, stroke_fill=(0, 0, 0)
    )


def wrapped(text: str, font: _Font, room_px: int) -> list[str]:
    """Break text into lines of at most `room_px`; a word too long alone is broken anywhere."""
    lines = [""]
    for word in text.split(" "):
        candidate = f"{lines[-1]} {word}" if lines[-1] else word
        if font.getlength(candidate) <= room_px:
            lines[-1] = candidate
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > room_px:
                lines.append("")
            lines[-1] += letter
    return lines


def font_for(size: int, text: str = "") -> _Font:
    """Return Pillow's own font, or the first of the system's that has all letters of the text."""
    own = PIL.ImageFont.load_default(size)
    if has_letters(own, text):
        return own
    for name in _WIDER_FONTS:
        try:
            font = PIL.ImageFont.truetype(name, size)
        except OSError:
            continue
        if has_letters(font, text):
            return font
    return own


def has_letters(font: _Font, text: str) -> bool:
    """Return whether a font has all letters of a text."""
    missing = bytes(font.getmask(_NO_LETTER))
    return all(bytes(font.getmask(letter)) != missing for letter in set(text) - set(" "))
