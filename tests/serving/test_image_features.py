import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from serving.image_features import LlavaImageTokens, MedsamImageEmbedding
from serving.organseg_features import OrgansegImageEmbedding, OrgansegImageTokens
from serving.preprocessing import clip_frame, medsam_frame, sam_frame, square_clip_frame

SIDE = 32
IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


class Encoders:
    """The two encoders' models: outputs that tell which pixels came in, and a record of calls."""

    def __init__(self):
        self.calls = []
        self.fail = False

    def __call__(self, model, inputs, outputs):
        self.calls.append((model, inputs, outputs))
        if self.fail:
            raise ConnectionError("the encoder is away")
        shapes = {
            "image_embedding": (1, 4, 2, 2),
            "patch_tokens": (1, 6, 8),
            "cls_token": (1, 1, 8),
        }
        total = inputs["pixels"].sum()
        return {name: np.full(shapes[name], total, np.float32) for name in outputs}


@pytest.fixture
def encoders():
    return Encoders()


ALL = [MedsamImageEmbedding, LlavaImageTokens, OrgansegImageEmbedding, OrgansegImageTokens]


@pytest.fixture(params=ALL)
def pipeline(request, tmp_path, encoders):
    return build(request.param, tmp_path, encoders)


def build(kind, folder, encoders, cache_mib=1):
    (folder / "preprocessing.json").write_text(json.dumps({"image_size": SIDE}))
    return kind(folder, encoders, cache_mib)


def test_the_sam_encoder_gets_the_sam_frame_and_both_sizes_are_told(tmp_path, encoders):
    answer = build(MedsamImageEmbedding, tmp_path, encoders)(IMAGE)
    pixels, input_size = sam_frame(IMAGE, SIDE)
    ((model, inputs, outputs),) = encoders.calls
    assert (model, outputs) == ("medsam_image_encoder", ["image_embedding"])
    np.testing.assert_array_equal(inputs["pixels"], pixels[None])
    assert answer["image_embedding"].shape == (1, 4, 2, 2)
    assert answer["input_size"].tolist() == [list(input_size)] == [[21, 32]]
    assert answer["original_size"].tolist() == [[20, 30]]
    assert {answer[name].dtype.name for name in ("input_size", "original_size")} == {"int64"}


def test_the_clip_encoder_gets_the_clip_frame_and_the_batch_axis_is_taken_away(tmp_path, encoders):
    answer = build(LlavaImageTokens, tmp_path, encoders)(IMAGE)
    ((model, inputs, outputs),) = encoders.calls
    assert (model, outputs) == ("llava_image_encoder", ["patch_tokens", "cls_token"])
    np.testing.assert_array_equal(inputs["pixels"], clip_frame(IMAGE, SIDE)[None])
    assert answer["patch_tokens"].shape == (6, 8)
    assert answer["cls_token"].shape == (1, 8)


def test_organ_seg_has_the_picture_in_medsams_own_frame(tmp_path, encoders):
    answer = build(OrgansegImageEmbedding, tmp_path, encoders)(IMAGE)
    ((model, inputs, outputs),) = encoders.calls
    assert (model, outputs) == ("medsam_image_encoder", ["image_embedding"])
    np.testing.assert_array_equal(inputs["pixels"], medsam_frame(IMAGE, SIDE)[None])
    assert set(answer) == {"image_embedding", "original_size"}
    assert answer["image_embedding"].shape == (1, 4, 2, 2)
    assert answer["original_size"].tolist() == [[20, 30]]
    assert answer["original_size"].dtype == np.int64


def test_organ_seg_has_the_tokens_of_the_whole_picture(tmp_path, encoders):
    answer = build(OrgansegImageTokens, tmp_path, encoders)(IMAGE)
    ((model, inputs, outputs),) = encoders.calls
    assert (model, outputs) == ("llava_image_encoder", ["patch_tokens"])
    np.testing.assert_array_equal(inputs["pixels"], square_clip_frame(IMAGE, SIDE)[None])
    assert {name: array.shape for name, array in answer.items()} == {"patch_tokens": (6, 8)}


def test_a_second_question_about_a_picture_calls_no_encoder(pipeline, encoders):
    first, second = pipeline(IMAGE), pipeline(IMAGE.copy())
    assert len(encoders.calls) == 1
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array)


def test_another_picture_is_encoded(pipeline, encoders):
    other = IMAGE.copy()
    other[0, 0, 0] ^= 1
    pipeline(IMAGE)
    pipeline(other)
    pipeline(IMAGE.reshape(30, 20, 3))
    assert len(encoders.calls) == 3


def test_a_grey_picture_is_seen_as_its_three_channels(pipeline, encoders):
    grey = IMAGE[..., :1]
    one, three = pipeline(grey), pipeline(np.repeat(grey, 3, axis=2))
    for name, array in one.items():
        np.testing.assert_array_equal(three[name], array)


def test_many_questions_at_once_about_a_new_picture_encode_it_once(pipeline, encoders):
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: pipeline(IMAGE), range(32)))
    assert len(encoders.calls) == 1


def test_an_encoder_that_fails_is_asked_again(pipeline, encoders):
    encoders.fail = True
    with pytest.raises(ConnectionError):
        pipeline(IMAGE)
    encoders.fail = False
    assert pipeline(IMAGE)
    assert len(encoders.calls) == 2


def test_a_bad_picture_never_reaches_the_encoder(pipeline, encoders):
    for bad in (IMAGE[..., :2], IMAGE.astype(np.float32), IMAGE[:0]):
        with pytest.raises(ValueError, match="image: expected"):
            pipeline(bad)
    assert not encoders.calls


def test_without_a_cache_every_question_encodes(tmp_path, encoders):
    pipeline = build(LlavaImageTokens, tmp_path, encoders, cache_mib=0)
    pipeline(IMAGE)
    pipeline(IMAGE)
    assert len(encoders.calls) == 2
