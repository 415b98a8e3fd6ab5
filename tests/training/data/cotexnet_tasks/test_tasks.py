import numpy as np
import pytest

from training.data.cotexnet_tasks.mask_attributes import attributes_of
from training.data.cotexnet_tasks.tasks import MIN_AREA_SHARE, TASKS, TaskSampler
from training.networks.cotexnet.prompts import real_text


@pytest.fixture(scope="module")
def sampler():
    return TaskSampler(held_out=False, size_px=64)


@pytest.mark.parametrize("task", TASKS)
def test_every_class_is_in_the_picture_and_described(sampler, task):
    rng = np.random.default_rng(1)
    for _ in range(3):
        sample = sampler.draw(task, rng)
        assert sample.image.shape == (64, 64, 3)
        assert sample.image.dtype == np.uint8
        assert sample.masks.shape == (len(TASKS[task].classes), 64, 64)
        assert sample.masks.mean(axis=(1, 2)).min() >= MIN_AREA_SHARE
        assert sample.masks.sum(axis=0).max() == 1
        assert sample.attributes == tuple(attributes_of(sample.image, m) for m in sample.masks)
        assert sample.text == " ".join(
            real_text(attributes, keyword)
            for attributes, keyword in zip(sample.attributes, TASKS[task].keywords, strict=True)
        )


def test_the_same_generator_gives_the_same_sample(sampler):
    one, other = (sampler.draw("polyp", np.random.default_rng(2)) for _ in range(2))
    assert np.array_equal(one.image, other.image)
    assert one.text == other.text


def test_one_task_has_three_classes_and_the_others_one():
    assert [len(task.classes) for task in TASKS.values()] == [1, 1, 1, 1, 1, 3]
    assert all(len(task.keywords) == len(task.classes) for task in TASKS.values())


def test_texts_vary_and_name_what_they_are_about(sampler):
    rng = np.random.default_rng(3)
    texts = {sampler.draw("polyp", rng).text for _ in range(8)}
    assert len(texts) > 3
    assert all(" polyp area, located in the " in text for text in texts)


@pytest.mark.parametrize("held_out", [False, True])
def test_scenes_are_those_of_the_split(held_out, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "training.data.cotexnet_tasks.tasks.SceneSampler",
        lambda **given: asked.append(given["held_out"]),
    )
    TaskSampler(held_out=held_out)
    assert asked == [held_out]


def test_an_unknown_task_is_refused(sampler):
    with pytest.raises(LookupError, match=r"expected one of.*polyp"):
        sampler.draw("breast", np.random.default_rng(0))
