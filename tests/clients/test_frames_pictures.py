import numpy as np
import PIL.Image
import pytest
import saymask
from saymask import read_frames


def grey(value, size_hw=(6, 8)):
    return np.full(size_hw, value, np.uint8)


def save(folder, **pictures):
    folder.mkdir(exist_ok=True)
    for name, pixels in pictures.items():
        PIL.Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def test_frames_follow_in_natural_order_and_other_files_are_left_alone(tmp_path):
    names = ["a2b10", "a2b9", "a10b1", "A1", "a02b3"]
    folder = save(tmp_path / "f", **{name: grey(number) for number, name in enumerate(names)})
    (folder / "notes.txt").write_text("x")
    (folder / ".hidden.png").write_text("x")
    (folder / "masks").mkdir()
    frames = read_frames(folder)
    assert frames.names == ("A1", "a02b3", "a2b9", "a2b10", "a10b1")
    assert [int(pixels[0, 0]) for pixels in frames] == [3, 4, 1, 0, 2]
    assert (frames.kind, frames.count, frames.size_hw) == ("pictures", 5, (6, 8))


def test_frames_are_grey_if_all_are_and_else_all_have_colour(tmp_path):
    folder = save(tmp_path / "f", a=grey(7), b=grey(9))
    assert {pixels.shape for pixels in read_frames(folder)} == {(6, 8)}
    color = np.random.default_rng(0).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    save(folder, c=color)
    first, *_, last = read_frames(folder)
    np.testing.assert_array_equal(first, np.full((6, 8, 3), 7))
    np.testing.assert_array_equal(last, color)


def test_jpegs_are_turned_as_their_exif_says_also_for_the_size(tmp_path):
    picture = PIL.Image.fromarray(grey(9, (8, 6)))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "b.jpg", exif=exif)
    save(tmp_path, a=grey(9))
    assert {pixels.shape for pixels in read_frames(tmp_path)} == {(6, 8)}


def test_values_of_16_bits_have_one_window_for_all_frames(tmp_path):
    ramp = np.arange(48, dtype=np.uint16).reshape(6, 8) * 100
    folder = save(tmp_path / "f", a=ramp, b=ramp + 5000)
    frames = read_frames(folder)
    low, high = np.percentile([ramp, ramp + 5000], (0.5, 99.5))
    for pixels, values in zip(frames, (ramp, ramp + 5000), strict=True):
        expected = np.clip((values - low) * 255 / (high - low), 0, 255)
        np.testing.assert_allclose(pixels, expected, atol=0.51)
    assert "percentiles" in frames.intensity
    dark, _ = read_frames(folder, window=(0, 4700))
    np.testing.assert_allclose(dark, ramp * (255 / 4700), atol=0.51)


def test_folders_that_are_no_one_sequence_are_refused_with_what_is_in_them(tmp_path):
    folder = save(tmp_path / "f", a=grey(1), b=grey(1), c=grey(1, (9, 8)))
    with pytest.raises(saymask.InvalidArgument, match=r"6 x 8: a\.png and 1 more; 9 x 8: c\.png"):
        read_frames(folder)
    save(folder, c=grey(1).astype(np.uint16))
    with pytest.raises(saymask.InvalidArgument, match="1 of 3 pictures have more than 8 bits"):
        read_frames(folder)
    PIL.Image.fromarray(grey(1)).save(folder / "a.jpg")
    save(folder, c=grey(2))
    with pytest.raises(saymask.InvalidArgument, match=r"a\.jpg and a\.png would have masks"):
        read_frames(folder)
    with pytest.raises(saymask.InvalidArgument, match="single picture; name the folder"):
        read_frames(folder / "a.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(saymask.InvalidArgument, match="holds no DICOM file and no picture"):
        read_frames(tmp_path / "empty")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(saymask.InvalidArgument, match="not a sequence this client reads"):
        read_frames(tmp_path / "a.txt")


def test_broken_pictures_and_options_without_meaning_are_refused(tmp_path):
    folder = save(tmp_path / "f", a=grey(1), b=grey(2))
    for option in ({"window": (0, 9)}, {"plane": "axial"}, {"slice_index": 1}, {"series": "1"}):
        with pytest.raises(saymask.InvalidArgument, match="leave"):
            read_frames(folder, **option)
    noise = np.random.default_rng(0).integers(0, 255, (60, 80)).astype(np.uint8)
    save(folder, a=noise, b=noise)
    whole = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(whole[: len(whole) // 2])
    frames = iter(read_frames(folder))
    np.testing.assert_array_equal(next(frames), noise)
    with pytest.raises(saymask.InvalidArgument, match=r"b\.png"):
        next(frames)
    (folder / "b.png").write_bytes(b"no picture")
    with pytest.raises(saymask.InvalidArgument, match=r"b\.png: not an image"):
        read_frames(folder)


def test_a_frame_that_changed_its_size_since_is_refused(tmp_path):
    folder = save(tmp_path / "f", a=grey(1), b=grey(2))
    frames = read_frames(folder)
    save(folder, b=grey(2, (9, 8)))
    with pytest.raises(saymask.InvalidArgument, match="b has 9 x 8 pixels, the first one 6 x 8"):
        list(frames)
