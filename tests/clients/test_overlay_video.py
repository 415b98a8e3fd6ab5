import numpy as np
import PIL.Image
import pytest
import saymask
from saymask import Track, TrackedFrame, read_frames
from saymask.drawing import MASK_COLOR
from saymask.overlay_video import write_overlay_video


@pytest.fixture
def sequence(tmp_path):
    folder = tmp_path / "f"
    folder.mkdir()
    for number in range(5):
        pixels = np.full((48, 65), 20 * number, np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"f{number}.png")
    frames = read_frames(folder)
    mask = np.zeros((48, 65), bool)
    mask[12:36, 20:40] = True
    box = saymask.box_from_mask(mask)
    return frames, Track("q", (TrackedFrame(n, mask & (n != 3), 0.5, box) for n in range(1, 5)))


@pytest.mark.parametrize(("ending", "tolerance"), [("gif", 12), ("mp4", 12)])
def test_tracked_frames_are_shown_with_their_masks_at_the_rate_asked_for(
    sequence, tmp_path, ending, tolerance
):
    frames, track = sequence
    write_overlay_video(tmp_path / f"o.{ending}", frames, track, frames_per_second=30)
    video = read_frames(tmp_path / f"o.{ending}")
    assert video.frames_per_second == pytest.approx(30, rel=0.15 if ending == "gif" else 1e-6)
    pictures = list(video)
    assert len(pictures) == 4
    scale = 512 / 65
    for number, picture in enumerate(pictures, 1):
        assert picture.shape[1] == 512
        assert abs(picture.shape[0] - 48 * scale) <= 2
        assert np.abs(picture[-20, -20].astype(int) - 20 * number).max() <= tolerance
        inside = picture[int(24 * scale), int(30 * scale)].astype(int)
        expected = np.array([20 * number] * 3)
        if number != 3:
            expected = expected * 0.66 + np.array(MASK_COLOR) * 0.34
        assert np.abs(inside - expected).max() <= 2 * tolerance


def test_delays_of_a_gif_do_not_drift(sequence, tmp_path):
    frames, track = sequence
    write_overlay_video(tmp_path / "o.gif", frames, track, frames_per_second=30)
    animation = PIL.Image.open(tmp_path / "o.gif")
    delays_ms = []
    for index in range(animation.n_frames):
        animation.seek(index)
        delays_ms.append(animation.info["duration"])
    assert delays_ms == [30, 40, 30, 30]  # begins at 0, 33.3, 66.7, 100 and ends at 133.3
    assert animation.info["loop"] == 0


def test_a_sequence_without_a_rate_runs_at_ten_frames_a_second(sequence, tmp_path):
    write_overlay_video(tmp_path / "o.mp4", *sequence)
    assert read_frames(tmp_path / "o.mp4").frames_per_second == pytest.approx(10)
    write_overlay_video(tmp_path / "p.mp4", read_frames(tmp_path / "o.mp4"), _track_of_video())
    assert read_frames(tmp_path / "p.mp4").frames_per_second == pytest.approx(10)


def _track_of_video():
    return Track("q", [TrackedFrame(0, np.ones((378, 512), bool), 0.5)])


def test_other_names_and_rates_are_refused(sequence, tmp_path):
    with pytest.raises(saymask.InvalidArgument, match=r"ends in \.mp4 or \.gif"):
        write_overlay_video(tmp_path / "o.avi", *sequence)
    with pytest.raises(saymask.InvalidArgument, match=r"expected 0\.1 to 240, got 1000"):
        write_overlay_video(tmp_path / "o.gif", *sequence, frames_per_second=1000)
    with pytest.raises(saymask.InvalidArgument, match="cannot be written"):
        write_overlay_video(tmp_path / "no" / "o.mp4", *sequence)
