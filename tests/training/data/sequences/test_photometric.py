import colorsys

import numpy as np
import pytest

from training.data.sequences.photometric import PhotometricConfig, distort

ALWAYS = PhotometricConfig(share=1.0, brightness=0, contrast=(1, 1), saturation=(1, 1), hue_deg=0)


def distorted(frames, **changes):
    config = PhotometricConfig(**{**vars(ALWAYS), **changes})
    return distort(frames, np.random.default_rng(5), config)


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(60, 190, (3, 8, 8, 3), dtype=np.uint8)


def test_without_ranges_or_share_nothing_changes(frames):
    assert np.array_equal(distorted(frames), frames)
    never = PhotometricConfig(share=0.0)
    assert np.array_equal(distort(frames, np.random.default_rng(0), never), frames)


def test_all_frames_of_a_clip_are_distorted_alike(frames):
    same = np.repeat(frames[:1], 3, axis=0)
    out = distort(same, np.random.default_rng(1), PhotometricConfig(share=1.0))
    assert (out != same).any()
    assert np.array_equal(out[0], out[1])
    assert np.array_equal(out[0], out[2])


def test_brightness_adds_and_contrast_scales_about_the_mean(frames):
    offset = distorted(frames, brightness=0.12).astype(int) - frames
    assert np.ptp(offset) <= 1
    assert abs(offset).max() > 0
    half = distorted(frames, contrast=(0.5, 0.5))
    expected = frames.mean() + 0.5 * (frames.astype(float) - frames.mean())
    assert np.abs(half - expected).max() <= 0.51


def test_saturation_and_hue_leave_grey_and_turn_colours(frames):
    grey = np.repeat(frames[..., :1], 3, axis=-1)
    assert np.abs(distorted(grey, saturation=(0, 2), hue_deg=40).astype(int) - grey).max() <= 1
    none = distorted(frames, saturation=(0, 0)).astype(int)
    assert np.ptp(none, axis=-1).max() == 0
    pixel = np.full((1, 1, 1, 3), (150, 100, 100), np.uint8)
    hue = [
        colorsys.rgb_to_hsv(*(distorted(pixel, hue_deg=deg)[0, 0, 0] / 255))[0] * 360
        for deg in (0, 60)
    ]
    angle = np.random.default_rng(5)
    angle.random(4), angle.uniform(size=3)
    expected = angle.uniform(-60, 60)
    turned = (hue[1] - hue[0] + 180) % 360 - 180
    assert turned == pytest.approx(expected, abs=6)  # HSV's hexagon is not a circle
