"""Draws an answer on its picture: tint, contour, box, and a caption that can be read."""

from typing import TypeAlias

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from numpy.typing import NDArray

from saymask.conversation_round import ConversationRound
from saymask.results import Segmentation
from saymask.source_image import SourceImage

__all__ = ["draw_overlay", "draw_round"]

_LONGER_SIDE_PX = 896  # the picture is scaled up to this, so that contour and text stay fine
_SHORTER_SIDE_PX = 420  # a caption has room under a very narrow picture too
_MASK_COLOR = (0, 214, 190)
_BOX_COLOR = (255, 190, 61)
_INSTANCE_COLORS = (
    _MASK_COLOR,
    (255, 99, 132),
    (255, 205, 86),
    (102, 153, 255),
    (186, 104, 255),
    (255, 145, 61),
    (138, 217, 73),
    (240, 130, 220),
)
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
_Legend: TypeAlias = list[list[tuple[tuple[int, int, int], str]]]  # rows of colors and texts


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
    picture, scale_x, scale_y = _enlarged(source)
    if segmentation.found:
        left, top, right, bottom = segmentation.box_xyxy
        _draw_box(picture, (left * scale_x, top * scale_y, right * scale_x, bottom * scale_y))
        # Over the box, whose line would hide a small mask.
        _draw_mask(picture, segmentation.mask, _MASK_COLOR)
    _draw_sides(picture, source)
    # Of nothing found the predicted box means nothing, and is not drawn.
    said = f"score {segmentation.score:.2f} of 1   ·   " if segmentation.found else ""
    said += _area(source, segmentation.mask)
    legend = [[(_MASK_COLOR, "mask"), (_BOX_COLOR, "predicted box")]] if segmentation.found else []
    return _with_caption(picture, source, segmentation.prompt, said, legend, note)


def draw_round(source: SourceImage, answer: ConversationRound, note: str = "") -> PIL.Image.Image:
    """Return the picture with all masks of one round, each in its color and with its number.

    Args:
        source: the picture of the conversation.
        answer: one of its rounds.
        note: a further line under the picture, as `Health.note`.

    Returns:
        An RGB picture, as `draw_overlay` has it.
    """
    picture, scale_x, scale_y = _enlarged(source)
    legend: _Legend = []
    for instance in answer.instances:
        color = _INSTANCE_COLORS[(instance.number - 1) % len(_INSTANCE_COLORS)]
        said = [f"instance {instance.number}"]
        said += [] if np.isnan(instance.quality) else [f"q {instance.quality:.2f}"]
        said += ["corrected"] if instance.corrected else []
        said += [_area(source, instance.mask)]
        legend.append([(color, "   ·   ".join(said))])
        if instance.found:
            _draw_mask(picture, instance.mask, color)
    for instance in answer.instances:  # over all masks
        if instance.found:
            row, column = _pixel_inside(instance.mask)
            place = ((column + 0.5) * scale_x, (row + 0.5) * scale_y)
            _draw_letters(picture, place, str(instance.number), "mm")
    _draw_sides(picture, source)
    said_of_all = f"round {answer.round}   ·   {answer.answer}"
    return _with_caption(picture, source, answer.prompt, said_of_all, legend, note)


def _enlarged(source: SourceImage) -> tuple[PIL.Image.Image, float, float]:
    """Return the picture at the size it is drawn in, and its factors across and down."""
    scale_x, scale_y = _scales(source)
    height, width = source.pixels.shape[:2]
    size = (max(1, round(width * scale_x)), max(1, round(height * scale_y)))
    return _picture(source).resize(size, PIL.Image.Resampling.BICUBIC), scale_x, scale_y


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


def _draw_mask(
    picture: PIL.Image.Image, mask: NDArray[np.bool_], color: tuple[int, int, int]
) -> None:
    # Drawn larger, thresholded and made small again: a smooth edge that runs between pixels.
    factor = 2 if max(picture.size) <= _FINE_UP_TO_PX else 1
    size = (picture.width * factor, picture.height * factor)
    scaled = PIL.Image.fromarray(mask.astype(np.uint8) * 255).resize(
        size, PIL.Image.Resampling.BILINEAR
    )
    inside = np.asarray(scaled) > 127
    contour = inside & ~_eroded(inside, _CONTOUR_PX * factor)
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


def _draw_sides(picture: PIL.Image.Image, source: SourceImage) -> None:
    if source.geometry is None:
        return
    left, right, top, bottom = source.geometry.edge_letters()
    middle_x, middle_y = picture.width // 2, picture.height // 2
    for letter, place, anchor in (
        (left, (8, middle_y), "lm"),
        (right, (picture.width - 8, middle_y), "rm"),
        (top, (middle_x, 8), "mt"),
        (bottom, (middle_x, picture.height - 8), "mb"),
    ):
        _draw_letters(picture, place, letter, anchor)


def _draw_letters(
    picture: PIL.Image.Image, place: tuple[float, float], letters: str, anchor: str
) -> None:
    PIL.ImageDraw.Draw(picture).text(
        place, letters, _TEXT_COLOR, _font(20), anchor, stroke_width=2, stroke_fill=(0, 0, 0)
    )


def _pixel_inside(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the mask's own pixel, row and column, that is nearest to its middle."""
    rows, columns = np.nonzero(mask)
    nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    return int(rows[nearest]), int(columns[nearest])


def _with_caption(
    picture: PIL.Image.Image,
    source: SourceImage,
    prompt: str,
    said: str,
    legend: _Legend,
    note: str,
) -> PIL.Image.Image:
    width = max(picture.width, _SHORTER_SIDE_PX)
    said = "   ·   ".join(part for part in (said, source.description) if part)
    question_font, detail_font = _font(26, prompt), _font(18, said)
    room = width - 2 * _MARGIN_PX
    question = _wrapped(f"“{prompt}”", question_font, room)
    if len(question) > _QUESTION_LINES:
        question = [*question[: _QUESTION_LINES - 1], question[_QUESTION_LINES - 1] + " …"]
    details = _wrapped(said, detail_font, room)
    if note:
        details += _wrapped(note, detail_font, room)
    height = 2 * _MARGIN_PX + 34 * len(question) + 8 + 25 * (len(details) + len(legend))
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
    for row in legend:
        _draw_legend(draw, y, row)
        y += 25
    return canvas


def _area(source: SourceImage, mask: NDArray[np.bool_]) -> str:
    pixels = int(mask.sum())
    if not pixels:
        return "nothing found"
    if source.pixel_area_mm2 is None:
        return f"{pixels:,} px"
    square_mm = "mm²" if _has_all(_font(18, "²"), "²") else "mm2"
    return f"{pixels:,} px = {pixels * source.pixel_area_mm2:,.0f} {square_mm}"


def _draw_legend(
    draw: PIL.ImageDraw.ImageDraw, y: float, row: list[tuple[tuple[int, int, int], str]]
) -> None:
    x = float(_MARGIN_PX)
    for color, text in row:
        font = _font(16, text)
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
