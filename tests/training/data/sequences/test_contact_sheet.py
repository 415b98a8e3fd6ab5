import numpy as np
from PIL import Image

from training.data.sequences.contact_sheet import OUTLINES, contact_sheet, main
from training.data.sequences.sampler import SceneSampler


def test_a_sheet_has_two_rows_per_scene_and_marks_only_the_second():
    sampler = SceneSampler(held_out=False, size_px=48, length=6, sources=("cardiac_cine",))
    scene = sampler.draw(np.random.default_rng(0))
    sheet = contact_sheet([scene], [0, 2, 5])
    assert sheet.shape == (96, 144, 3)
    assert np.array_equal(sheet[:48, 96:, 0], scene.frame(5).image)
    changed = (sheet[:48] != sheet[48:]).any(axis=-1)
    masks = np.concatenate(list(scene.render([0, 2, 5]).masks.any(axis=1)), axis=1)
    assert changed.any()
    assert not changed[~masks].any()
    assert {tuple(colour) for colour in sheet[48:][changed]} <= set(OUTLINES)


def test_the_command_writes_a_picture(tmp_path):
    path = tmp_path / "sheet.png"
    assert main(["cardiac_cine", "-o", str(path), "--size-px", "32", "--frames", "2"]) == 0
    with Image.open(path) as image:
        assert image.size == (64, 128)
