"""Draws an answer on its picture: tint, contour, box, and a caption that can be read."""

from typing import TypeAlias

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from numpy.typing import NDArray

from saymask.results import Segmentation
from saymask.source_image import SourceImage

__all__ = ["draw_overlay"]

_LONGER_SIDE_PX = 896  # the picture is scaled up to this, so that contour and text stay fine
_SHORTER_SIDE_PX = 420  # a caption has room under a very narrow picture too
_MASK_COLOR = (0, 214, 190)
_BOX_COLOR = (255, 190, 61)
_CONTOUR_PX = 3
_FINE_UP_TO_PX = 1200  # larger pictures have pixels fine enough for a smooth contour
_TINT = 0.34  # share of the mask's color inside the mask
_CAPTION_BACKGROUND = (18, 22, 28)
_TEXT_COLOR = (240, 243, 246)
_MUTED_COLOR = (154, 164, 175)
_MARGIN_PX = 22
_QUESTION_LINES = 4
_NO_LETTER = "\uffff"  # drawn as the box that stands for a letter the font lacks
_WIDER_FONTS = (
    "DejaVuSans.ttf",
    "NotoSansCJK-Regular.ttc",
    "msyh.ttc",
    "PingFang.ttc",
    "Arial Unicode.ttf",
)

_Font: TypeAlias = PIL.ImageFont.FreeTypeFont | PIL.ImageFont.ImageFont


def draw_overlay(
    source: SourceImage, segmentation: Segmentation, note: str = ""
) -> PIL.Image.Image:
    """Return the picture with the answer drawn on it and said under it.

    Args:
        source: the picture that was asked about.
        segmentation: the answer, on the picture's pixel grid.
        note: a further line under the picture, as `Health.note`.

    Returns:
        An RGB picture. Small pictures are enlarged, and pixels that are not square are shown in
        their true proportions.
    """
    scale_x, scale_y = _scales(source)
    height, width = source.pixels.shape[:2]
    size = (max(1, round(width * scale_x)), max(1, round(height * scale_y)))
    picture = _picture(source).resize(size, PIL.Image.Resampling.BICUBIC)
    if segmentation.found:
        left, top, right, bottom = segmentation.box_xyxy
        _draw_box(picture, (left * scale_x, top * scale_y, right * scale_x, bottom * scale_y))
        _draw_mask(picture, segmentation)  # over the box, whose line would hide a small mask
    if source.geometry is not None:
        _draw_sides(picture, source.geometry.edge_letters())
    return _with_caption(picture, source, segmentation, note)


def _scales(source: SourceImage) -> tuple[float, float]:
    """Return the factors from picture pixels to drawn pixels, across and down."""
    height, width = source.pixels.shape[:2]
    row_mm, column_mm = source.spacing_mm or (1.0, 1.0)
    longer = max(height * row_mm, width * column_mm)
    factor = max(_LONGER_SIDE_PX, height, width) / longer
    return column_mm * factor, row_mm * factor


def _picture(source: SourceImage) -> PIL.Image.Image:
    pixels = source.pixels
    return PIL.Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("RGB")


def _draw_mask(picture: PIL.Image.Image, segmentation: Segmentation) -> None:
    # Drawn larger, thresholded and made small again: a smooth edge that runs between pixels.
    factor = 2 if max(picture.size) <= _FINE_UP_TO_PX else 1
    size = (picture.width * factor, picture.height * factor)
    scaled = PIL.Image.fromarray(segmentation.mask.astype(np.uint8) * 255).resize(
        size, PIL.Image.Resampling.BILINEAR
    )
    mask = np.asarray(scaled) > 127
    contour = mask & ~_eroded(mask, _CONTOUR_PX * factor)
    for region, opacity in ((mask, _TINT), (contour, 1.0)):
        layer = PIL.Image.fromarray(region.astype(np.uint8) * round(255 * opacity))
        picture.paste(_MASK_COLOR, mask=layer.resize(picture.size))


def _eroded(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    """Return the pixels of a mask with as many mask pixels to each of their four sides."""
    framed = np.pad(mask, pixels)
    height, width = mask.shape
    inner = mask.copy()
    for row, column in ((0, pixels), (2 * pixels, pixels), (pixels, 0), (pixels, 2 * pixels)):
        inner &= framed[row : row + height, column : column + width]
    return inner


def _draw_box(picture: PIL.Image.Image, box: tuple[float, float, float, float]) -> None:
    left, right = (min(max(x, 1), picture.width - 2) for x in (box[0], box[2]))
    top, bottom = (min(max(y, 1), picture.height - 2) for y in (box[1], box[3]))
    if right <= left or bottom <= top:
        return
    draw = PIL.ImageDraw.Draw(picture)
    draw.rounded_rectangle((left, top, right, bottom), radius=4, outline=(0, 0, 0), width=5)
    draw.rounded_rectangle(
        (left + 1, top + 1, right - 1, bottom - 1), radius=4, outline=_BOX_COLOR, width=3
    )


def _draw_sides(picture: PIL.Image.Image, letters: tuple[str, str, str, str]) -> None:
    left, right, top, bottom = letters
    draw = PIL.ImageDraw.Draw(picture)
    middle_x, middle_y = picture.width // 2, picture.height // 2
    for letter, place, anchor in (
        (left, (8, middle_y), "lm"),
        (right, (picture.width - 8, middle_y), "rm"),
        (top, (middle_x, 8), "mt"),
        (bottom, (middle_x, picture.height - 8), "mb"),
    ):
        draw.text(
            place, letter, _TEXT_COLOR, _font(20), anchor, stroke_width=2, stroke_fill=(0, 0, 0)
        )


def _with_caption(
    picture: PIL.Image.Image, source: SourceImage, segmentation: Segmentation, note: str
) -> PIL.Image.Image:
    width = max(picture.width, _SHORTER_SIDE_PX)
    question_font, detail_font = _font(26, segmentation.prompt), _font(18, "²")
    square_mm = "mm²" if _has_all(detail_font, "²") else "mm2"
    room = width - 2 * _MARGIN_PX
    question = _wrapped(f"“{segmentation.prompt}”", question_font, room)
    if len(question) > _QUESTION_LINES:
        question = [*question[: _QUESTION_LINES - 1], question[_QUESTION_LINES - 1] + " …"]
    details = _wrapped(_details(source, segmentation, square_mm), detail_font, room)
    if note:
        details += _wrapped(note, detail_font, room)
    height = 2 * _MARGIN_PX + 34 * len(question) + 8 + 25 * (len(details) + segmentation.found)
    canvas = PIL.Image.new("RGB", (width, picture.height + height), _CAPTION_BACKGROUND)
    canvas.paste(picture, ((width - picture.width) // 2, 0))
    draw = PIL.ImageDraw.Draw(canvas)
    y = picture.height + _MARGIN_PX - 4
    for line in question:
        draw.text((_MARGIN_PX, y), line, _TEXT_COLOR, question_font)
        y += 34
    y += 8
    for line in details:
        draw.text((_MARGIN_PX, y), line, _TEXT_COLOR, detail_font)
        y += 25
    if segmentation.found:
        _draw_legend(draw, y)
    return canvas


def _details(source: SourceImage, segmentation: Segmentation, square_mm: str) -> str:
    if segmentation.found:
        pixels = int(segmentation.mask.sum())
        area = f"{pixels:,} px"
        if source.pixel_area_mm2 is not None:
            area += f" = {pixels * source.pixel_area_mm2:,.0f} {square_mm}"
        found = f"score {segmentation.score:.2f} of 1   ·   {area}"
    else:
        found = "nothing found"  # the predicted box means nothing then, and is not drawn
    return "   ·   ".join(part for part in (found, source.description) if part)


def _draw_legend(draw: PIL.ImageDraw.ImageDraw, y: float) -> None:
    x = float(_MARGIN_PX)
    font = _font(16)
    for color, text in ((_MASK_COLOR, "mask"), (_BOX_COLOR, "predicted box")):
        draw.rounded_rectangle((x, y + 5, x + 16, y + 17), radius=3, fill=color)
        draw.text((x + 24, y + 1), text, _MUTED_COLOR, font)
        x += 24 + draw.textlength(text, font) + 28


def _wrapped(text: str, font: _Font, room_px: int) -> list[str]:
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


def _font(size: int, text: str = "") -> _Font:
    """Return Pillow's own font, or the first of the system's that has all letters of the text."""
    own = PIL.ImageFont.load_default(size)
    if _has_all(own, text):
        return own
    for name in _WIDER_FONTS:
        try:
            font = PIL.ImageFont.truetype(name, size)
        except OSError:
            continue
        if _has_all(font, text):
            return font
    return own


def _has_all(font: _Font, text: str) -> bool:
    missing = bytes(font.getmask(_NO_LETTER))
    return all(bytes(font.getmask(letter)) != missing for letter in set(text) - set(" "))
