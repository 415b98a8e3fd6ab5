from dataclasses import replace

import numpy as np
import pytest

from training.data.prompt_library import prompts_for
from training.data.sequences.clips import (
    PLAIN,
    ClipConfig,
    ClipSampler,
    clip_indices,
    draw_clip,
)
from training.data.sequences.sampler import SceneSampler
from training.data.sequences.sequence import Frame, Scene

MIRRORED = replace(PLAIN, flip_share=1.0)


class Numbered(Scene):
    """Frame i is of brightness i and shows a square, left of the middle, from frame 4 on."""

    modality = "CT"
    names = ("liver",)
    length = 9

    def frame(self, index):
        image, masks = np.full((16, 16), index, np.uint8), np.zeros((1, 16, 16), bool)
        masks[0, 2:8, 1:6] = index >= 4
        return Frame(image, masks)


def test_neighbours_are_one_to_three_frames_away_and_cut_at_the_ends():
    rng = np.random.default_rng(0)
    drawn = np.array([clip_indices(20, rng) for _ in range(3000)])
    centre, before, after = drawn.T
    assert set(centre) == set(range(20))
    inner = (centre >= 3) & (centre <= 16)
    assert set((centre - before)[inner]) == set((after - centre)[inner]) == {1, 2, 3}
    assert (before[centre == 0] == 0).all()
    assert (after[centre == 19] == 19).all()
    assert clip_indices(1, rng) == (0, 0, 0)


def test_frames_come_centre_first_then_before_then_after():
    rng, orders = np.random.default_rng(1), []
    while len(orders) < 20:
        clip = draw_clip(Numbered(), prompts_for, rng, PLAIN)
        if clip is not None:
            orders.append(clip.frames[:, 0, 0, 0])
            assert clip.masks.any(axis=(1, 2)).tolist() == [i >= 4 for i in orders[-1]]
            assert clip.frames.shape == (3, 16, 16, 3)
            assert clip.prompts == prompts_for("liver", "CT")
    assert all(before <= centre <= after for centre, before, after in orders)


def test_there_is_no_clip_where_nothing_is_in_view():
    empty = Numbered()
    empty.length = 4
    assert draw_clip(empty, prompts_for, np.random.default_rng(0), PLAIN) is None


@pytest.mark.parametrize("sided", [False, True])
def test_frames_and_masks_are_mirrored_together_but_not_where_sides_matter(sided):
    scene = Numbered()
    scene.length, scene.has_sides = 30, sided
    plain, mirrored = (
        draw_clip(scene, prompts_for, np.random.default_rng(7), config)
        for config in (PLAIN, MIRRORED)
    )
    step = 1 if sided else -1
    assert np.array_equal(mirrored.masks, plain.masks[:, :, ::step])
    assert np.array_equal(mirrored.frames, plain.frames[:, :, ::step])


def test_clips_of_all_sources_show_what_they_are_asked_for():
    sampler = ClipSampler(SceneSampler(held_out=False, size_px=48, length=8), prompts_for)
    rng = np.random.default_rng(3)
    clips = [sampler.draw(rng) for _ in range(15)]
    assert {clip.modality for clip in clips} == {"MRI", "CT", "ultrasound", "endoscopy"}
    for clip in clips:
        assert clip.frames.shape == (3, 48, 48, 3)
        assert clip.masks.sum(axis=(1, 2)).max() >= ClipConfig().min_area_px
        assert len(clip.prompts) == 3
