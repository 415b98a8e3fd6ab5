import json

import numpy as np
import pytest
from PIL import Image

from training.data.sequences.clips import PLAIN, draw_clip
from training.data.sequences.layout import read_sequences

PROMPTS = ["It pumps blood.", "It is a ring.", "It is dark."]


def write(root, videos, split="train"):
    path = root / "meta_expressions" / split / "meta_expressions_multi.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"videos": videos}), encoding="utf-8")


def entry(frames, obj_id="1"):
    expressions = {str(k): {"exp": text, "obj_id": obj_id} for k, text in enumerate(PROMPTS)}
    return {"frames": frames, "expressions": expressions}


@pytest.fixture
def dataset(tmp_path):
    """Two sequences in both spellings of the files; a mask with a palette, an empty one."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, 20, 24, 3), dtype=np.uint8)
    masks = np.zeros((3, 20, 24), np.uint8)
    masks[0, 4:9, 5:12], masks[1, 2:6, 3:9] = 255, 255
    masks[1, 15:, 15:] = 128  # another object of the source dataset
    for name, suffix in (("heart", ""), ("lung", "_mask")):
        for folder in ("JPEGImages", "Annotations"):
            (tmp_path / "train" / folder / name).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(pictures[i]).save(tmp_path / f"train/JPEGImages/{name}/{i:05}.png")
            mask = Image.fromarray(masks[i])
            if i == 1 and suffix:
                mask = Image.frombytes("P", (24, 20), masks[i].tobytes())
                mask.putpalette([(7 * j) % 256 for j in range(768)])
            mask.save(tmp_path / f"train/Annotations/{name}/{i:05}{suffix}.png")
    frames = ["00002", "00000", "00001"]
    write(tmp_path, {"heart": entry(frames), "lung": entry(frames, obj_id=1)})
    return tmp_path, pictures, masks == 255


@pytest.mark.parametrize("number", [0, 1])
def test_sequences_have_their_frames_masks_and_prompts(dataset, number):
    root, pictures, masks = dataset
    scene = read_sequences(root, modality="MRI")[number]
    assert scene.name == ("heart", "lung")[number]
    sequence = scene.render()
    assert np.array_equal(sequence.frames, pictures)
    assert np.array_equal(sequence.masks[:, 0], masks)
    assert scene.prompts == tuple(PROMPTS)
    assert not sequence.masks[2].any()


def test_clips_are_drawn_from_them_like_from_any_scene(dataset):
    scene = read_sequences(dataset[0], modality="MRI")[0]
    clip = draw_clip(scene, lambda *_: scene.prompts, np.random.default_rng(0), PLAIN)
    assert clip.prompts == tuple(PROMPTS)
    assert clip.masks.any()


def test_a_jpeg_comes_before_a_png(dataset):
    root = dataset[0]
    jpeg = root / "train/JPEGImages/heart/00000.jpg"
    Image.new("RGB", (24, 20), (200, 200, 200)).save(jpeg)
    assert read_sequences(root, modality="MRI")[0].images[0] == jpeg


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        ({}, "at least one sequence"),
        ({"heart": {"expressions": {}}}, "the name of at least one frame"),
        ({"../heart": entry(["00000"])}, "names without folders"),
        ({"heart": entry(["../00000"])}, "names without folders"),
        ({"heart": {"frames": ["00000"]}}, '"expressions" with at least one'),
        ({"heart": {"frames": ["00000"], "expressions": {"0": {"exp": " "}}}}, "with a text"),
        ({"heart": entry(["00000"], obj_id=2)}, "\"obj_id\" 1 in expression '0', got 2"),
    ],
)
def test_what_is_not_of_that_layout_is_named(dataset, videos, message):
    write(dataset[0], videos, split="bad")
    with pytest.raises(ValueError, match=message):
        read_sequences(dataset[0], modality="MRI", meta_split="bad")


def test_missing_files_are_named(dataset):
    root = dataset[0]
    with pytest.raises(FileNotFoundError, match=r"valid.*meta_expressions_multi\.json"):
        read_sequences(root, "valid", modality="MRI")
    (root / "train/Annotations/lung/00001_mask.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"00001\.png: no such file, nor 00001_mask\.png"):
        read_sequences(root, modality="MRI")


def test_pictures_that_do_not_fit_are_named(dataset):
    root = dataset[0]
    Image.new("L", (5, 5)).save(root / "train/Annotations/heart/00000.png")
    Image.fromarray(np.zeros((20, 24), np.uint16)).save(root / "train/JPEGImages/heart/00001.png")
    scene = read_sequences(root, modality="MRI")[0]
    with pytest.raises(ValueError, match=r"frame's size \(20, 24\), got \(5, 5\)"):
        scene.frame(0)
    with pytest.raises(ValueError, match="8 bits per channel"):
        scene.frame(1)
