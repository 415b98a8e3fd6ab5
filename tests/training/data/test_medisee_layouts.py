import json
import random
from collections import Counter
from functools import partial
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from training.data.medisee_layouts import (
    box_of_mask,
    check_classes,
    draw_class_sample,
    draw_reasoning_sample,
    read_evaluation,
    read_image,
    read_mask,
    read_pair,
    read_pools,
    read_training_index,
)
from training.data.mixing import mix

INDEX = {
    "images/ct_1.png": {
        "masks/ct_1_lung.png": "Lung",
        "masks/ct_1_heart.png": "heart",
        "masks/ct_1_liver.png": "liver",
        "masks/ct_1_spleen.png": "spleen",
    },
    "images/mr_2.png": {"masks/mr_2_heart.png": "heart"},
}
CLASSES = ("Lung", "heart", "liver", "spleen")
CASE = {
    "image": "images/ct_1.png",
    "mask": "masks/ct_1_lung.png",
    "class_text": "lung",
    "long": "Which organ takes in air and gives oxygen to the blood?",
    "short": "Which organ breathes?",
    "bbox": [0.25, 0.2, 0.5, 0.6],
}


def pool_entry(number, name):
    return {
        "long": f"Long {name} {number}?",
        "short": f"Short {name} {number}?",
        "long_explanation": f"Because long {name} {number}.",
        "short_explanation": f"Because short {name} {number}.",
    }


def write_pools(folder, change=lambda number, pool: None):
    for number in range(1, 11):
        pool = {name: pool_entry(number, name) for name in CLASSES}
        change(number, pool)
        (folder / f"prompt_all_explanation_{number}.json").write_text(json.dumps(pool))


@pytest.fixture
def index_path(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(INDEX))
    return path


@pytest.fixture
def images(index_path, tmp_path):
    return read_training_index(index_path, tmp_path)


@pytest.fixture
def pools(tmp_path):
    write_pools(tmp_path)
    return read_pools(tmp_path)


def write_lines(path, *entries):
    path.write_text("\n".join(e if isinstance(e, str) else json.dumps(e) for e in entries))
    return path


def test_paths_of_the_index_lie_under_the_root_folder(images, tmp_path):
    root = tmp_path / "SAMed2Dv1"
    assert [i.image for i in images] == [root / "images/ct_1.png", root / "images/mr_2.png"]
    assert images[0].masks[0] == (root / "masks/ct_1_lung.png", "Lung")
    assert len(images[0].masks) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images/a.png": ', "expected JSON"),
        ("[1, 2]", "got a list"),
        ("7", "got a int"),
        ("{}", "got an empty one"),
        ('{"images/a.png": {}}', "at least one mask"),
        ('{"images/a.png": "masks/a.png"}', "expected {mask_path: class}"),
        ('{"images/a.png": {"masks/a.png": 3}}', "expected {mask_path: class}"),
        ('{"/images/a.png": {"masks/a.png": "lung"}}', "relative to SAMed2Dv1/"),
        ('{"images/a.png": {"../a.png": "lung"}}', "without '..'"),
    ],
)
def test_a_broken_index_is_refused_with_its_path(tmp_path, content, message):
    path = tmp_path / "train.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        read_training_index(path, tmp_path)
    assert str(path) in str(error.value)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train\.json: no such file"):
        read_training_index(tmp_path / "train.json", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"prompt_all_explanation_1\.json"):
        read_pools(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"val\.jsonl"):
        read_evaluation(tmp_path / "val.jsonl", tmp_path)
    with pytest.raises(FileNotFoundError, match="relative to SAMed2Dv1/"):
        read_mask(tmp_path / "SAMed2Dv1/masks/none.png")


def test_ten_pools_are_read_in_order(pools):
    assert len(pools) == 10
    assert pools[9]["heart"].short == "Short heart 10?"
    assert pools[0]["Lung"].long_explanation == "Because long Lung 1."


def test_a_pool_that_misses_a_class_is_named(tmp_path):
    write_pools(tmp_path, lambda number, pool: pool.pop("liver") if number == 4 else None)
    with pytest.raises(ValueError, match=r"explanation_4\.json: misses classes .*: liver"):
        read_pools(tmp_path)


def test_a_pool_entry_without_a_field_is_named(tmp_path):
    write_pools(tmp_path, lambda n, pool: pool["heart"].update(short="") if n == 2 else None)
    with pytest.raises(ValueError, match=r"_2\.json: class 'heart': .*missing or empty: short"):
        read_pools(tmp_path)


def test_classes_without_questions_are_found_before_training(images, pools):
    check_classes(images, pools)
    poorer = [{k: v for k, v in pool.items() if k != "spleen"} for pool in pools]
    with pytest.raises(ValueError, match="no question for the classes spleen"):
        check_classes(images, poorer)
    with pytest.raises(KeyError, match="run check_classes"):
        draw_reasoning_sample(images[:1], poorer, random.Random(0), max_masks=4)


def test_evaluation_lines_are_read(tmp_path):
    path = write_lines(tmp_path / "val.jsonl", CASE, "", {**CASE, "class_text": "left lung"})
    cases = read_evaluation(path, tmp_path)
    assert [c.class_text for c in cases] == ["lung", "left lung"]
    assert cases[0].box_xyxy == (0.25, 0.2, 0.5, 0.6)
    assert cases[0].mask == tmp_path / "SAMed2Dv1/masks/ct_1_lung.png"


@pytest.mark.parametrize(
    ("bbox", "message"),
    [
        ([0.5, 0.2, 0.25, 0.6], "x_min/W, y_min/H, x_max/W, y_max/H in this order"),
        ([10, 20, 30, 40], r"each in \[0, 1\]"),
        ([0.1, 0.2, 0.3], "four finite numbers"),
        ([0.1, 0.2, 0.3, float("nan")], "four finite numbers"),
        (["0.1", 0.2, 0.3, 0.4], "four finite numbers"),
        ("0.1 0.2 0.3 0.4", "four finite numbers"),
        (None, "four finite numbers"),
    ],
)
def test_a_bad_box_is_refused_with_its_line(tmp_path, bbox, message):
    path = write_lines(tmp_path / "val.jsonl", CASE, {**CASE, "bbox": bbox})
    with pytest.raises(ValueError, match=rf"val\.jsonl:2: bbox: .*{message}"):
        read_evaluation(path, tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "one JSON object per line"),
        ("[]", "expected a JSON object, got list"),
        ({k: v for k, v in CASE.items() if k != "long"}, r"missing \['long'\]"),
        ({**CASE, "mask": 4}, "mask: expected text, got 4"),
    ],
)
def test_a_broken_evaluation_line_is_refused_with_its_number(tmp_path, line, message):
    with pytest.raises(ValueError, match=rf"val\.jsonl:1: .*{message}"):
        read_evaluation(write_lines(tmp_path / "val.jsonl", line), tmp_path)


def test_an_evaluation_file_without_cases_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one case"):
        read_evaluation(write_lines(tmp_path / "val.jsonl", ""), tmp_path)


def test_only_255_is_foreground(tmp_path):
    values = np.array([[0, 255, 254], [1, 255, 0]], np.uint8)
    Image.fromarray(values).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), values == 255)


def test_a_mask_without_255_is_refused_with_the_values_found(tmp_path):
    Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match=r"of value 255, got only \[0, 1\]"):
        read_mask(tmp_path / "m.png")


def test_images_become_rgb_and_sixteen_bits_are_refused(tmp_path):
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    pixels = read_image(tmp_path / "grey.png")
    assert pixels.shape == (2, 3, 3)
    np.testing.assert_array_equal(pixels[..., 2], grey)
    Image.fromarray(grey.astype(np.uint16) * 999).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="expected 8 bits per channel"):
        read_image(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="expected 8 bits per pixel"):
        read_mask(tmp_path / "deep.png")


def test_image_and_mask_must_have_one_size(tmp_path):
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "i.png")
    Image.fromarray(np.full((4, 5), 255, np.uint8)).save(tmp_path / "m.png")
    Image.fromarray(np.full((5, 4), 255, np.uint8)).save(tmp_path / "turned.png")
    pixels, mask = read_pair(tmp_path / "i.png", tmp_path / "m.png")
    assert pixels.shape[:2] == mask.shape == (4, 5)
    with pytest.raises(ValueError, match=r"expected the image's size \(4, 5\), got \(5, 4\)"):
        read_pair(tmp_path / "i.png", tmp_path / "turned.png")


def test_the_box_of_a_mask_is_normalised_with_its_largest_index_inclusive():
    mask = np.zeros((10, 20), bool)
    mask[2:7, 4:11] = True
    assert box_of_mask(mask) == (4 / 20, 2 / 10, 10 / 20, 6 / 10)
    with pytest.raises(ValueError, match="at least one foreground pixel"):
        box_of_mask(np.zeros((3, 3), bool))


def test_class_samples_have_at_most_three_different_masks(images):
    rng = random.Random(0)
    sizes = Counter()
    for _ in range(60):
        sample = draw_class_sample(images, rng)
        masks = [turn.mask for turn in sample.turns]
        assert len(set(masks)) == len(masks)
        sizes[sample.image.name, len(masks)] += 1
        for turn in sample.turns:
            assert turn.class_text.lower() in turn.question
            assert "[SEG] and [BBOX]." in turn.answer
    assert set(sizes) == {("ct_1.png", 3), ("mr_2.png", 1)}
    assert len(draw_class_sample(images[:1], rng, max_masks=4).turns) == 4
    with pytest.raises(ValueError, match="at least 1, got 0"):
        draw_class_sample(images, rng, max_masks=0)


def test_reasoning_samples_pair_a_query_with_its_own_explanation(images, pools):
    rng = random.Random(0)
    seen = set()
    for _ in range(300):
        for turn in draw_reasoning_sample(images, pools, rng).turns:
            length, name, number = turn.question.split("?")[0].split()
            seen.add((length, number))
            assert name == turn.class_text.lower()
            assert turn.answer.lower().endswith(f"because {length} {name} {number}.")
    assert len(seen) == 20  # ten pools, long and short


def test_samples_are_equal_for_equal_seeds(images, pools):
    draws = [draw_reasoning_sample(images, pools, random.Random(5)) for _ in range(2)]
    assert draws[0] == draws[1]


def test_both_published_sources_can_be_mixed(images, pools):
    sources = [
        partial(draw_class_sample, images),
        partial(draw_reasoning_sample, images, pools),
    ]
    samples = list(islice(mix(sources, random.Random(0)), 900))
    explained = sum("Because" in sample.turns[0].answer for sample in samples)
    assert explained == pytest.approx(200, abs=50)  # four standard deviations
