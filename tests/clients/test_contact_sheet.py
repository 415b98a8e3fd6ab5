import numpy as np
import PIL.Image
import pytest
from saymask import Track, TrackedFrame, read_frames
from saymask.contact_sheet import contact_sheet, write_contact_sheet
from saymask.drawing import MASK_COLOR


def sequence(folder, count, size_hw=(44, 44)):
    for number in range(count):
        PIL.Image.fromarray(np.full(size_hw, number, np.uint8)).save(folder / f"f{number}.png")
    frames = read_frames(folder)
    mask = np.zeros(size_hw, bool)
    mask[11:33, 11:33] = True
    return frames, Track("q", (TrackedFrame(n, mask & (n != 2), 0.5) for n in range(count)))


def cells(sheet):
    """The drawn frames of 220 x 220 pixels, where six of them stand in a row."""
    top = sheet.shape[0] - 18 - (220 + 26) * round((sheet.shape[0] - 77) / 246)
    for y in range(top, sheet.shape[0] - 246, 246):
        for x in range(18, sheet.shape[1] - 220, 228):
            yield sheet[y : y + 220, x : x + 220]


def test_24_frames_are_spread_evenly_from_the_first_to_the_last(tmp_path):
    frames, track = sequence(tmp_path, 70)
    sheet = np.asarray(contact_sheet(frames, track)).astype(int)
    shown = [cell[200, 10] for cell in cells(sheet)]
    expected = np.rint(np.linspace(0, 69, 24))
    np.testing.assert_array_equal(shown, np.repeat(expected[:, None], 3, 1))


def test_the_mask_is_outlined_where_it_lies_and_only_where_something_was_found(tmp_path):
    frames, track = sequence(tmp_path, 6)
    drawn = list(cells(np.asarray(contact_sheet(frames, track))))
    assert len(drawn) == 6
    for number, cell in enumerate(drawn):
        outlined = np.argwhere((np.abs(cell.astype(int) - MASK_COLOR) < 40).all(-1))
        if number == 2:
            assert outlined.size == 0
            continue
        np.testing.assert_allclose(outlined.min(0), 55, atol=2)
        np.testing.assert_allclose(outlined.max(0), 164, atol=2)
        assert cell[110, 110, 1] > cell[110, 110, 0] + 30  # tinted inside
        np.testing.assert_array_equal(cell[20, 20], [number] * 3)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 300), (300, 2)])
@pytest.mark.parametrize("prompt", ["word " * 80, "w" * 300, "左肾在哪里"])
def test_any_size_and_prompt_can_be_drawn(tmp_path, size_hw, prompt):
    frames, track = sequence(tmp_path, 2, size_hw)
    track.prompt = prompt
    write_contact_sheet(tmp_path / "sheet.out", frames, track, "a note")
    sheet = PIL.Image.open(tmp_path / "sheet.out")
    assert sheet.format == "PNG"
    assert sheet.width >= 460
    plain = contact_sheet(frames, track)
    assert sheet.height == plain.height + 22
