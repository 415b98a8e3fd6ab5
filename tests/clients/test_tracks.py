import numpy as np
import PIL.Image
import pytest
import saymask
from saymask import Track, TrackedFrame, read_frames


def random_masks(count, size_hw=(5, 11)):
    return np.random.default_rng(0).random((count, *size_hw)) < 0.4


def test_frames_are_kept_as_they_came_and_given_by_index():
    masks, box = random_masks(4), np.array([1, 2, 3.5, 4], np.float32)
    track = Track("q")
    for index in (3, 0, 9):
        track.add(TrackedFrame(index, masks[index % 4], index / 10, box if index else None))
    assert (len(track), track.indices, track.size_hw) == (3, (0, 3, 9), (5, 11))
    for tracked, index in zip(track, (0, 3, 9), strict=True):
        np.testing.assert_array_equal(tracked.mask, masks[index % 4])
        assert (tracked.index, tracked.score) == (index, index / 10)
        assert tracked.box_xyxy is (box if index else None)
    with pytest.raises(KeyError):
        track[1]


def test_masks_of_a_long_video_take_little_memory():
    mask = np.zeros((1080, 1920), bool)
    mask[300:700, 500:900] = True
    track = Track("q", [TrackedFrame(0, mask, 1.0)])
    assert len(track._frames[0][0]) < mask.size / 100


def test_masks_of_another_size_or_kind_and_indices_that_are_taken_are_refused():
    mask = random_masks(1)[0]
    track = Track("q", [TrackedFrame(0, mask, 1.0)])
    for wrong in (mask.T, mask[None], mask.astype(np.uint8)):
        with pytest.raises(saymask.InvalidArgument, match=r"mask of frame 1: expected \(5, 11\)"):
            track.add(TrackedFrame(1, wrong, 1.0))
    for index in (0, -1):
        with pytest.raises(saymask.InvalidArgument, match=f"frame {index}: expected an index"):
            track.add(TrackedFrame(index, mask, 1.0))


def test_frames_come_with_their_pixels_and_only_with_their_own_sequence(tmp_path):
    for number in range(6):
        PIL.Image.new("L", (11, 5), number).save(tmp_path / f"{number}.png")
    frames, mask = read_frames(tmp_path), random_masks(1)[0]
    track = Track("q", (TrackedFrame(index, mask, 1.0) for index in (4, 1, 3)))
    pairs = [(tracked.index, int(pixels[0, 0])) for tracked, pixels in track.with_pixels(frames)]
    assert pairs == [(1, 1), (3, 3), (4, 4)]
    assert [tracked.index for tracked, _ in track.with_pixels(frames, [4, 1])] == [1, 4]
    track.check_belongs_to(frames)
    with pytest.raises(saymask.InvalidArgument, match="nothing was tracked"):
        Track("q").check_belongs_to(frames)
    with pytest.raises(saymask.InvalidArgument, match=r"masks of \(11, 5\) pixels do not belong"):
        Track("q", [TrackedFrame(0, mask.T, 1.0)]).check_belongs_to(frames)
    with pytest.raises(saymask.InvalidArgument, match=r"frame 6: .* has 6 frames"):
        Track("q", [TrackedFrame(6, mask, 1.0)]).check_belongs_to(frames)
