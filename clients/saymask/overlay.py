"""Draws an answer on its picture: tint, contour, box, and a caption that can be read."""

from typing import TypeAlias

import numpy as np
import PIL.Image
import PIL.ImageDraw
from numpy.typing import NDArray

from saymask.conversation_round import ConversationRound
from saymask.drawing import (
    BOX_COLOR,
    CAPTION_BACKGROUND,
    MASK_COLOR,
    MUTED_COLOR,
    TEXT_COLOR,
    draw_box,
    draw_letters,
    draw_mask,
    font_for,
    has_letters,
    wrapped,
)
from saymask.results import Segmentation
from saymask.source_image import SourceImage

__all__ = ["draw_overlay", "draw_round"]

_LONGER_SIDE_PX = 896  # the picture is scaled up to this, so that contour and text stay fine
_SHORTER_SIDE_PX = 420  # a caption has room under a very narrow picture too
_INSTANCE_COLORS = (
    MASK_COLOR,
    (255, 99, 132),
    (255, 205, 86),
    (102, 153, 255),
    (186, 104, 255),
    (255, 145, 61),
    (138, 217, 73),
    (240, 130, 220),
)
_MARGIN_PX = 22
_QUESTION_LINES = 4

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
        draw_box(picture, (left * scale_x, top * scale_y, right * scale_x, bottom * scale_y))
        # Over the box, whose line would hide a small mask.
        draw_mask(picture, segmentation.mask, MASK_COLOR)
    _draw_sides(picture, source)
    # Of nothing found the predicted box means nothing, and is not drawn.
    said = f"score {segmentation.score:.2f} of 1   ·   " if segmentation.found else ""
    said += _area(source, segmentation.mask)
    legend = [[(MASK_COLOR, "mask"), (BOX_COLOR, "predicted box")]] if segmentation.found else []
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
            draw_mask(picture, instance.mask, color)
    for instance in answer.instances:  # over all masks
        if instance.found:
            row, column = _pixel_inside(instance.mask)
            place = ((column + 0.5) * scale_x, (row + 0.5) * scale_y)
            draw_letters(picture, place, str(instance.number), "mm")
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
        draw_letters(picture, place, letter, anchor)


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
    question_font, detail_font = font_for(26, prompt), font_for(18, said)
    room = width - 2 * _MARGIN_PX
    question = wrapped(f"“{prompt}”", question_font, room)
    if len(question) > _QUESTION_LINES:
        question = [*question[: _QUESTION_LINES - 1], question[_QUESTION_LINES - 1] + " …"]
    details = wrapped(said, detail_font, room)
    if note:
        details += wrapped(note, detail_font, room)
    height = 2 * _MARGIN_PX + 34 * len(question) + 8 + 25 * (len(details) + len(legend))
    canvas = PIL.Image.new("RGB", (width, picture.height + height), CAPTION_BACKGROUND)
    canvas.paste(picture, ((width - picture.width) // 2, 0))
    draw = PIL.ImageDraw.Draw(canvas)
    y = picture.height + _MARGIN_PX - 4
    for line in question:
        draw.text((_MARGIN_PX, y), line, TEXT_COLOR, question_font)
        y += 34
    y += 8
    for line in details:
        draw.text((_MARGIN_PX, y), line, TEXT_COLOR, detail_font)
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
    square_mm = "mm²" if has_letters(font_for(18, "²"), "²") else "mm2"
    return f"{pixels:,} px = {pixels * source.pixel_area_mm2:,.0f} {square_mm}"


def _draw_legend(
    draw: PIL.ImageDraw.ImageDraw, y: float, row: list[tuple[tuple[int, int, int], str]]
) -> None:
    x = float(_MARGIN_PX)
    for color, text in row:
        font = font_for(16, text)
        draw.rounded_rectangle((x, y + 5, x + 16, y + 17), radius=3, fill=color)
        draw.text((x + 24, y + 1), text, MUTED_COLOR, font)
        x += 24 + draw.textlength(text, font) + 28
