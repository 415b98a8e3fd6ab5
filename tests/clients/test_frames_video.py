from fractions import Fraction

import av
import numpy as np
import PIL.Image
import pytest
import saymask
from saymask import read_frames


def ramp(number, height=48, width=64):
    """A smooth picture, which lossy codecs keep, brighter with its number."""
    rows, columns = np.indices((height, width))
    return np.stack([rows * 2 + number * 8, columns * 2, 0 * rows + 60], -1).astype(np.uint8)


def write_video(path, count=12, rate=Fraction(30000, 1001), codec="libx264"):
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.bit_rate = 4_000_000
        for number in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(ramp(number), "rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("name", "codec"), [("v.mp4", "libx264"), ("v.avi", "mpeg4")])
def test_a_videos_frames_come_in_order_at_their_rate(tmp_path, name, codec):
    frames = read_frames(write_video(tmp_path / name, codec=codec))
    pictures = list(frames)
    assert len(pictures) == frames.count == 12
    for number, pixels in enumerate(pictures):
        assert np.abs(pixels.astype(int) - ramp(number)).mean() < 4
    assert (frames.kind, frames.size_hw) == ("video", (48, 64))
    assert frames.frames_per_second == pytest.approx(30000 / 1001)
    assert frames.name_of(8) == "frame00009"
    np.testing.assert_array_equal(next(frames.read_from(9)), pictures[9])
    np.testing.assert_array_equal(list(frames.read_backwards_from(9)), pictures[9::-1])
    with pytest.raises(saymask.InvalidArgument, match=r"frame 12: v\.\w+ ends before it"):
        next(frames.read_from(12))


def test_a_video_is_what_another_reader_shows(tmp_path):
    cv2 = pytest.importorskip("cv2")
    path = write_video(tmp_path / "v.mp4")
    capture = cv2.VideoCapture(str(path))
    for pixels in read_frames(path):
        truth = capture.read()[1][:, :, ::-1].astype(int)
        assert np.abs(pixels - truth).max() <= 3


def test_a_video_that_was_filmed_upright_is_turned(tmp_path):
    path = write_video(tmp_path / "v.mp4")
    lying = next(iter(read_frames(path)))
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # ISO/IEC 14496-12, 8.3.2: the track's matrix
    a_quarter_clockwise = [0, 1 << 16, 0, -(1 << 16) % 2**32, 0, 0, 0, 0, 1 << 30]
    content[at : at + 36] = b"".join(number.to_bytes(4) for number in a_quarter_clockwise)
    path.write_bytes(content)
    frames = read_frames(path)
    assert frames.size_hw == (64, 48)
    np.testing.assert_array_equal(next(iter(frames)), np.rot90(lying, -1))


def test_frames_of_a_gif_are_whole_pictures_at_their_mean_rate(tmp_path):
    pictures = [np.zeros((20, 30, 3), np.uint8) for _ in range(3)]
    for number, pixels in enumerate(pictures):
        pixels[: 5 * (number + 1), :10] = (255, 0, 0)  # later frames store only what changes
    first, *rest = (PIL.Image.fromarray(pixels) for pixels in pictures)
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest, duration=[30, 30, 40])
    frames = read_frames(tmp_path / "a.gif")
    np.testing.assert_array_equal(list(frames), pictures)
    np.testing.assert_array_equal(list(frames.read_from(2)), pictures[2:])
    np.testing.assert_array_equal(list(frames.read_backwards_from(1)), pictures[1::-1])
    assert (frames.count, frames.frames_per_second) == (3, pytest.approx(30))


def test_files_that_are_no_video_are_refused(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video" * 99)
    (tmp_path / "a.gif").write_bytes(b"no animation")
    (tmp_path / "empty.avi").write_bytes(b"")
    whole = write_video(tmp_path / "b.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(whole[: len(whole) // 2])
    for name in ("a.mp4", "a.gif", "b.mp4", "empty.avi"):
        with pytest.raises(saymask.InvalidArgument, match=rf"{name}: not a"):
            read_frames(tmp_path / name)
    with av.open(tmp_path / "sound.mp4", "w") as container:
        stream = container.add_stream("aac", 44100)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.rate = 44100
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    with pytest.raises(saymask.InvalidArgument, match="no video in it"):
        read_frames(tmp_path / "sound.mp4")
    with pytest.raises(saymask.InvalidArgument, match="leave the window out"):
        read_frames(tmp_path / "a.mp4", window=(0, 9))


def test_without_pyav_the_error_says_what_to_install(tmp_path, monkeypatch):
    path = write_video(tmp_path / "v.mp4")
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(saymask.MissingExtra, match=r"pip install 'av"):
        read_frames(path)
