"""One picture of a whole track: frames spread over it, each with outline, name and score."""

from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
from numpy.typing import NDArray

from saymask.drawing import (
    CAPTION_BACKGROUND,
    MASK_COLOR,
    MUTED_COLOR,
    TEXT_COLOR,
    draw_mask,
    font_for,
    wrapped,
)
from saymask.frames import Frames
from saymask.tracks import Track

__all__ = ["contact_sheet", "frame_picture", "write_contact_sheet"]

_FRAMES = 24
_COLUMNS = 6
_LONGER_SIDE_PX = 220  # of each frame
_LEAST_WIDTH_PX = 560  # of the sheet: room for the prompt over a few narrow frames
_CONTOUR_PX = 2
_MARGIN_PX = 18
_GAP_PX = 8
_CAPTION_PX = 26
_PROMPT_LINES = 2


def contact_sheet(frames: Frames, track: Track, note: str = "") -> PIL.Image.Image:
    """Return up to 24 frames of a track, evenly spread from the first to the last.

    Args:
        frames: the sequence that was tracked through.
        track: its masks.
        note: a line under the frames, as `Health.note`.

    Returns:
        An RGB picture. Where nothing was found, "nothing" stands in place of the score.

    Raises:
        InvalidArgument: if the masks are not of these frames.
    """
    track.check_belongs_to(frames)
    spread = np.linspace(0, len(track) - 1, min(_FRAMES, len(track))).round().astype(int)
    chosen = [track.indices[at] for at in spread]
    columns = min(_COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    cell_width, cell_height = _size(frames, _LONGER_SIDE_PX)
    width = 2 * _MARGIN_PX + columns * (cell_width + _GAP_PX) - _GAP_PX
    width = max(width, _LEAST_WIDTH_PX)
    prompt_font, small_font = font_for(22, track.prompt), font_for(15)
    lines = wrapped(" ".join(track.prompt.split()), prompt_font, width - 2 * _MARGIN_PX)
    if len(lines) > _PROMPT_LINES:
        lines = [*lines[: _PROMPT_LINES - 1], f"{lines[_PROMPT_LINES - 1][:-2]} ..."]
    found = sum(tracked.found for tracked in track)
    told = [
        f"{frames.path.name}   ·   {len(chosen)} of {len(track)} frames shown, found in {found}"
    ]
    told = wrapped(told[0], font_for(15, told[0]), width - 2 * _MARGIN_PX)
    top = _MARGIN_PX + 30 * len(lines) + 21 * len(told) + _GAP_PX
    height = top + rows * (cell_height + _CAPTION_PX) + _MARGIN_PX + (22 if note else 0)
    sheet = PIL.Image.new("RGB", (width, height), CAPTION_BACKGROUND)
    draw = PIL.ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        draw.text((_MARGIN_PX, _MARGIN_PX + 30 * number), line, TEXT_COLOR, prompt_font)
    for number, line in enumerate(told):
        place = (_MARGIN_PX, _MARGIN_PX + 30 * len(lines) + 21 * number)
        draw.text(place, line, MUTED_COLOR, font_for(15, line))
    for number, (tracked, pixels) in enumerate(track.with_pixels(frames, chosen)):
        row, column = divmod(number, columns)
        left = _MARGIN_PX + column * (cell_width + _GAP_PX)
        upper = top + row * (cell_height + _CAPTION_PX)
        picture = frame_picture(frames, pixels, _LONGER_SIDE_PX)
        if tracked.found:
            draw_mask(picture, tracked.mask, MASK_COLOR, _CONTOUR_PX)
        sheet.paste(picture, (left, upper))
        said = f"{tracked.score:.2f}" if tracked.found else "nothing"
        draw.text((left + cell_width, upper + cell_height + 2), said, TEXT_COLOR, small_font, "ra")
        room_px = cell_width - small_font.getlength(said) - _GAP_PX
        name = wrapped(frames.name_of(tracked.index), small_font, int(room_px))[0]
        draw.text((left, upper + cell_height + 2), name, MUTED_COLOR, font_for(15, name))
    if note:
        draw.text((_MARGIN_PX, height - _MARGIN_PX - 18), note, MUTED_COLOR, font_for(15, note))
    return sheet


def write_contact_sheet(path: Path, frames: Frames, track: Track, note: str = "") -> None:
    """Write the contact sheet as PNG; arguments and errors as `contact_sheet` has them."""
    contact_sheet(frames, track, note).save(path, format="PNG")


def frame_picture(
    frames: Frames, pixels: NDArray[np.uint8], longer_side_px: int
) -> PIL.Image.Image:
    """Return a frame (H, W) or (H, W, 3) as RGB, in true proportions, scaled to a longer side."""
    picture = PIL.Image.fromarray(pixels).convert("RGB")
    return picture.resize(_size(frames, longer_side_px), PIL.Image.Resampling.BICUBIC)


def _size(frames: Frames, longer_side_px: int) -> tuple[int, int]:
    """Return (width, height) of a drawn frame."""
    row_mm, column_mm = frames.spacing_mm or (1.0, 1.0)
    height, width = frames.size_hw[0] * row_mm, frames.size_hw[1] * column_mm
    factor = longer_side_px / max(height, width)
    return max(1, round(width * factor)), max(1, round(height * factor))
