import numpy as np
import pytest

from training.data.sequences.sequence import ImageSequence


def test_frames_masks_and_names_must_belong_together():
    frames, masks = np.zeros((2, 4, 5), np.uint8), np.zeros((2, 1, 4, 5), bool)
    ImageSequence(frames, masks, ("liver",), "CT")
    with pytest.raises(ValueError, match=r"frames: expected .* got \(2, 4, 5\) float64"):
        ImageSequence(frames.astype(float), masks, ("liver",), "CT")
    with pytest.raises(ValueError, match=r"masks: expected \(2, 2, 4, 5\) bool for 2 names"):
        ImageSequence(frames, masks, ("liver", "spleen"), "CT")
    with pytest.raises(ValueError, match="masks"):
        ImageSequence(frames, masks[:1], ("liver",), "CT")
