"""The pipeline's own logic, over models that answer by rule; the real ones: tests/integration."""

import threading
import time
from contextvars import ContextVar

import numpy as np
import pytest

from serving.errors import Cancelled, Unavailable
from serving.organseg import (
    ABSENT,
    FOUND,
    IRRELEVANT,
    UNCERTAIN,
    OrganSegPipeline,
    answer_of,
    decide,
    is_visible,
)

ORGANS = ["liver", "right kidney", "spleen"]
CODES = ["10200004", "64033007:24028007", "78961009"]
IMAGE = np.zeros((10, 13, 1), np.uint8)
REQUEST = ContextVar("request", default="")
PATIENT_S = 10


class Models:
    """A question names its organ, or none; "absent", "faint", "empty" say what the heads find.

    The hidden state of a question is its number, by which the extractors know it again.
    """

    def __init__(self):
        self.calls, self.requests, self.questions = [], set(), []
        self.lock = threading.Lock()
        self.fail = {}
        self.wait = {}

    def __call__(self, model, inputs, outputs):
        with self.lock:
            self.calls.append(model)
            self.requests.add(REQUEST.get())
        if model in self.wait:
            self.wait[model](inputs)
        if model in self.fail:
            raise self.fail[model]
        answer = getattr(self, model)(**inputs)
        return {name: answer[name] for name in outputs}

    def organseg_image_tokens(self, image):
        return {"patch_tokens": np.ones((4, 8), np.float32)}

    def organseg_prompt(self, prompt):
        with self.lock:
            self.questions.append(prompt)
            number = len(self.questions) - 1
        return {
            "token_ids": np.int32([1, -1, number]),
            "hidden_positions": np.int32([-1]),
            "adapter": np.array([b"organseg"], object),
        }

    def mllm(self, token_ids, hidden_positions, adapter, embeddings):
        assert (hidden_positions.tolist(), adapter.tolist()) == ([-1], [b"organseg"])
        assert embeddings.shape == (4, 8)
        return {"hidden_states": np.full((1, 1, 8), token_ids[-1], np.float32)}

    def organseg_extractors(self, hidden_states):
        assert hidden_states.shape[1:] == (1, 8)
        numbers = hidden_states[:, 0, :1]
        asked = [self.questions[int(number)] for number in numbers[:, 0]]
        return {
            "seg_embedding": np.tile(numbers[:, None], (1, 1, 5)),
            "boxes_cxcywh": np.tile(numbers, (1, 4)),
            "interest": numbers,
            "presence": np.float32([0.0625 if "absent" in text else 0.75 for text in asked]),
        }

    def organseg_context_cache(self, interest):
        rows = []
        for number in interest[:, 0]:
            text = self.questions[int(number)]
            rows.append([0.5 if organ in text else 0.125 for organ in ORGANS])
            rows[-1].append(0.25)  # irrelevant: nearest where no organ is named
        return {
            "similarities": np.float32(rows),
            "labels": np.array([organ.encode() for organ in ORGANS], object),
            "snomed_codes": np.array([code.encode() for code in CODES], object),
            "cache_version": np.array([b"c0ffee"], object),
        }

    def organseg_image_embedding(self, image):
        return {
            "image_embedding": np.zeros((1, 5, 2, 2), np.float32),
            "original_size": np.int64([image.shape[:2]]),
        }

    def organseg_mask_decoder(self, image_embedding, seg_embedding, boxes_cxcywh, original_size):
        height, width = original_size[0]
        asked = [self.questions[int(number)] for number in seg_embedding[:, 0, 0]]
        full = np.uint8(["empty" not in text for text in asked])
        masks = np.zeros((len(asked), height, -(-width // 8)), np.uint8)
        masks[:, 0, 0] = full * (1 + seg_embedding[:, 0, 0])
        return {
            "masks": masks,
            "boxes_xyxy": boxes_cxcywh + 0.5,
            "scores": full * np.float32([0.5625 if "faint" in text else 0.9375 for text in asked]),
        }


@pytest.fixture
def models():
    return Models()


@pytest.fixture
def pipeline(models):
    pipeline = OrganSegPipeline(models, sam_ahead=False)
    yield pipeline
    pipeline.close()


@pytest.fixture
def ahead(models):
    pipeline = OrganSegPipeline(models, sam_ahead=True)
    yield pipeline
    pipeline.close()


@pytest.fixture(autouse=True)
def questions(monkeypatch):
    # One question per line here: how a sentence is split is tested where it is done.
    monkeypatch.setattr("serving.organseg.split_objects", str.splitlines)


def ask(pipeline, *questions, **settings):
    return pipeline(IMAGE, "\n".join(questions), lambda: False, **settings)


def texts(array):
    return [value.decode() for value in array]


def test_every_question_has_its_own_result_in_the_order_of_the_prompt(pipeline, models):
    # The later a question comes, the sooner the language model answers it.
    models.wait["mllm"] = lambda inputs: time.sleep(0.05 * (4 - len(models.questions)))
    asked = ["the spleen", "the liver, absent", "the cat", "the right kidney"]
    answer = ask(pipeline, *asked)
    assert texts(answer["questions"]) == asked
    assert texts(answer["outcomes"]) == [FOUND, ABSENT, IRRELEVANT, FOUND]
    assert texts(answer["labels"]) == ["spleen", "liver", "", "right kidney"]
    assert texts(answer["snomed_codes"]) == ["78961009", "10200004", "", "64033007:24028007"]
    assert texts(answer["answers"]) == [
        "Spleen: outlined.",
        "No liver is visible in this slice.",
        "This question is not about an organ of the abdomen that this system knows.",
        "Right kidney: outlined.",
    ]
    assert answer["presences"].tolist() == [0.75, 0.0625, 0.75, 0.75]
    assert answer["margins"].tolist() == [0.25, 0.25, 0.125, 0.25]
    assert answer["similarities"].shape == (4, 4)
    assert texts(answer["cache_version"]) == ["c0ffee"]


def test_masks_boxes_and_scores_are_of_what_is_found_and_zero_for_the_rest(pipeline, models):
    answer = ask(pipeline, "liver, absent", "spleen", "cat", "liver")
    numbers = [models.questions.index(text) for text in ("spleen", "liver")]
    expected = np.zeros((4, 10, 2), np.uint8)
    expected[[1, 3], 0, 0] = np.add(numbers, 1)
    np.testing.assert_array_equal(answer["masks"], expected)
    np.testing.assert_array_equal(answer["scores"], np.float32([0, 0.9375, 0, 0.9375]))
    np.testing.assert_array_equal(answer["boxes_xyxy"][[0, 2]], np.zeros((2, 4)))
    np.testing.assert_array_equal(answer["boxes_xyxy"][[1, 3], 0], np.add(numbers, 0.5))
    assert answer["masks"].dtype == np.uint8
    assert {answer[name].dtype.name for name in ("scores", "boxes_xyxy", "margins")} == {"float32"}


def test_heads_and_decoder_run_once_for_all_questions(pipeline, models):
    ask(pipeline, "liver", "spleen", "cat")
    for model in ("organseg_image_tokens", "organseg_extractors", "organseg_context_cache"):
        assert models.calls.count(model) == 1
    assert models.calls.count("mllm") == models.calls.count("organseg_prompt") == 3
    assert models.calls[-2:] == ["organseg_image_embedding", "organseg_mask_decoder"]


def test_questions_are_with_the_language_model_at_the_same_time(pipeline, models):
    together = threading.Barrier(4)
    models.wait["mllm"] = lambda inputs: together.wait(PATIENT_S)
    ask(pipeline, "liver", "spleen", "cat", "right kidney")


@pytest.mark.parametrize("refused", [["cat"], ["liver, absent"], ["cat", "spleen, absent", "dog"]])
def test_where_nothing_is_found_the_picture_is_neither_embedded_nor_decoded(
    pipeline, models, refused
):
    answer = ask(pipeline, *refused)
    assert not {"organseg_image_embedding", "organseg_mask_decoder"} & set(models.calls)
    assert answer["masks"].shape == (len(refused), 10, 2)
    assert not answer["masks"].any()


@pytest.mark.parametrize("outline", ["empty", "faint"])
def test_an_outline_without_a_pixel_or_a_faint_one_counts_as_absent(pipeline, outline):
    answer = ask(pipeline, f"liver, {outline}", "spleen")
    assert texts(answer["outcomes"]) == [ABSENT, FOUND]
    assert texts(answer["answers"])[0] == "No liver is visible in this slice."
    for name in ("masks", "boxes_xyxy", "scores"):
        assert not answer[name][0].any()
        assert answer[name][1].any()


@pytest.mark.parametrize(
    ("presence", "score", "visible"),
    [
        *((0.5, 0.88, False), (0.5, 0.89, True), (0.88, 0.5, False), (0.89, 0.5, True)),
        *((0.2, 0.96, False), (0.2, 0.97, True), (1.0, 0.0, False), (0.0, 1.0, False)),
        *((1.0, 1.0, True), (0.99, 0.51, True)),
    ],
)
def test_presence_and_outline_are_two_witnesses(presence, score, visible):
    # e^2 = 7.39: the odds of both, multiplied, must reach it.
    assert is_visible(presence, score) is visible


def test_ahead_the_picture_is_embedded_while_the_question_is_read(ahead, models):
    begun = threading.Event()
    models.wait["organseg_image_embedding"] = lambda inputs: begun.set()
    models.wait["mllm"] = lambda inputs: begun.wait(PATIENT_S) or pytest.fail("not begun")
    assert texts(ask(ahead, "liver")["outcomes"]) == [FOUND]
    assert models.calls.count("organseg_image_embedding") == 1


def test_ahead_a_refusal_waits_for_no_embedding(ahead, models):
    release = threading.Event()
    models.wait["organseg_image_embedding"] = lambda inputs: release.wait(PATIENT_S)
    start = time.monotonic()
    assert texts(ask(ahead, "cat")["outcomes"]) == [IRRELEVANT]
    assert time.monotonic() - start < PATIENT_S / 2
    release.set()


def test_ahead_an_embedding_that_fails_matters_to_findings_only(ahead, models):
    models.fail["organseg_image_embedding"] = Unavailable("away")
    assert texts(ask(ahead, "cat")["outcomes"]) == [IRRELEVANT]
    with pytest.raises(Unavailable, match="away"):
        ask(ahead, "liver")


@pytest.mark.parametrize("error", [ValueError("too long"), Unavailable("full"), Cancelled("gone")])
@pytest.mark.parametrize(
    "model", ["organseg_image_tokens", "organseg_prompt", "mllm", "organseg_mask_decoder"]
)
def test_an_error_of_a_model_keeps_its_kind(pipeline, models, model, error):
    models.fail[model] = error
    with pytest.raises(type(error), match=str(error)):
        ask(pipeline, "liver", "spleen")


def test_every_call_knows_which_request_it_works_for(ahead, models):
    token = REQUEST.set("of mine")
    try:
        ask(ahead, "liver", "spleen", "cat")
    finally:
        REQUEST.reset(token)
    assert models.requests == {"of mine"}


def test_a_client_that_has_given_up_gets_no_outline(pipeline, models):
    with pytest.raises(Cancelled):
        pipeline(IMAGE, "liver", lambda: True)
    assert "organseg_mask_decoder" not in models.calls


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"image": np.zeros((4, 5, 2), np.uint8)}, "expected 1 .grey. or 3"),
        ({"prompt": " "}, "expected a question, got blank text"),
        ({"least_margin": np.float32([-0.1])}, "from 0 .off. to 2"),
        ({"least_margin": np.float32([2.1])}, "from 0 .off. to 2"),
        ({"least_margin": np.float32([np.nan])}, "got .nan."),
    ],
)
def test_a_bad_request_is_refused_before_anything_is_computed(pipeline, models, arguments, text):
    good = {"image": IMAGE, "prompt": "liver", "is_cancelled": lambda: False}
    with pytest.raises(ValueError, match=text):
        pipeline(**good | arguments)
    assert not models.calls


def test_a_least_margin_makes_close_calls_uncertain(pipeline):
    answer = ask(pipeline, "liver", "liver spleen", "cat", least_margin=np.float32([0.2]))
    assert texts(answer["outcomes"]) == [FOUND, UNCERTAIN, IRRELEVANT]
    assert not answer["masks"][1].any()
    assert texts(answer["labels"])[1] in ORGANS
    assert "Unsure between" in texts(answer["answers"])[1]
    off = ask(pipeline, "liver spleen", least_margin=np.float32([0]))
    assert texts(off["outcomes"]) == [FOUND]


@pytest.mark.parametrize(
    ("similarities", "presence", "least_margin", "outcome"),
    [
        ([0.9, 0.1, 0.2], 0.1, 0.0, FOUND),
        ([0.9, 0.1, 0.2], 0.0999, 0.0, ABSENT),
        ([0.1, 0.9, 0.2], 0.9, 0.7, FOUND),
        ([0.1, 0.9, 0.2], 0.9, 0.71, UNCERTAIN),
        ([0.1, 0.9, 0.2], 0.1, 0.71, UNCERTAIN),
        ([0.1, 0.2, 0.9], 0.9, 0.0, IRRELEVANT),
        ([0.1, 0.2, 0.9], 0.9, 1.0, IRRELEVANT),
        ([-0.5, -0.9, -0.6], 0.9, 0.0, FOUND),
        ([0.5, 0.1, 0.5], 0.9, 0.0, IRRELEVANT),
    ],
)
def test_the_rule_of_every_outcome(similarities, presence, least_margin, outcome):
    similarities = np.float64(similarities)
    decision = decide(similarities, presence, least_margin)
    assert decision.outcome == outcome
    first, second = sorted(similarities, reverse=True)[:2]
    assert decision.margin == pytest.approx(first - second)
    assert similarities[decision.best] == first


def test_an_uncertain_answer_says_between_what():
    labels = ["liver", "spleen"]
    between = decide(np.float64([0.5, 0.4, 0.1]), 0.9, 0.2)
    assert answer_of(between, labels) == "Unsure between liver and spleen; nothing is outlined."
    whether = decide(np.float64([0.5, 0.1, 0.4]), 0.9, 0.2)
    assert answer_of(whether, labels).startswith("Unsure whether this question is about the liver")
