"""What both pipelines answer, through every door that is documented."""

import json
import time
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc as triton

from serving.llava_prompt import LlavaTokenizer, explanation_prompt
from serving.model_config import MODEL_REPOSITORY
from tests.integration.probe import (
    CACHED,
    metric,
    picture,
    question,
    request,
    settled,
    tensor,
    wait_until,
    wait_until_idle,
)

pytestmark = pytest.mark.server

SIZES = [(40, 40, 1), (40, 40, 3), (120, 90, 1), (31, 77, 3), (5, 400, 1), (1, 1, 1), (1, 1, 3)]


@pytest.mark.parametrize("size", SIZES)
def test_any_picture_gets_a_mask_on_its_own_grid(client, size):
    answer = client.segment(picture(*size), "where is the thalamus")
    assert answer.mask.shape == size[:2]
    assert answer.box_xyxy.shape == (4,)
    assert np.isfinite(answer.box_xyxy).all()
    assert 0 <= answer.score <= 1
    assert (answer.score > 0.5) == answer.found


@pytest.mark.parametrize("size", [(120, 90, 1), (31, 77, 3), (9, 1, 1)])
def test_the_tensors_are_those_of_the_protocol(raw, size):
    answer = raw.infer(request("medisee", question(picture(*size))))
    height, width = size[:2]
    assert answer["masks"].shape == (1, height, -(-width // 8))
    assert answer["boxes_xyxy"].shape == (1, 4)
    assert answer["scores"].shape == (1,)
    padding = np.unpackbits(answer["masks"], axis=-1)[..., width:]
    assert not padding.any()


def test_a_grey_picture_is_answered_as_its_three_equal_channels(client):
    grey = picture(60, 44)
    one = client.segment(grey, "the liver")
    three = client.segment(np.repeat(grey, 3, axis=2), "the liver")
    # The encoders see the same pixels; only the order of sums in a batch may differ.
    assert (one.mask != three.mask).mean() < 1e-3
    np.testing.assert_allclose(one.box_xyxy, three.box_xyxy, atol=1e-3)


@pytest.mark.parametrize(
    "prompt", ["🧠?", "wo liegt das Großhirn", "脳はどこ", "a", "e\u0301", "x " * 400]
)
def test_questions_in_any_script_are_answered(client, prompt):
    assert client.segment(picture(24, 30), prompt).mask.shape == (24, 30)


def test_the_question_matters_to_the_language_model(raw):
    states = [
        raw.infer(
            request(
                "mllm",
                [
                    tensor("token_ids", np.int32([1, 40 + index, 50])),
                    tensor("hidden_positions", np.int32([-1])),
                    tensor("adapter", "medisee"),
                ],
            )
        )["hidden_states"]
        for index in range(2)
    ]
    assert np.abs(states[0] - states[1]).max() > 1e-3


def test_a_second_question_about_a_picture_computes_no_image_again(client, server, raw):
    image = picture(80, 100, seed=77)
    client.segment(image, "where is the thalamus")
    encoders = ("medsam_image_encoder", "llava_image_encoder")
    cached, encoded = settled(server, CACHED), [raw.inferences(name) for name in encoders]
    client.segment(image, "which part keeps the body in balance?")
    assert [raw.inferences(name) for name in encoders] == encoded
    # Whole blocks of 32 positions: begin and instruction tokens, then the 100 rows of the picture.
    wait_until(lambda: metric(server, CACHED) >= cached + 96, 5, "cached prompt tokens")
    assert settled(server, CACHED) == cached + 96


def test_another_picture_shares_nothing(client, server, raw):
    cached, encoded = settled(server, CACHED), raw.inferences("medsam_image_encoder")
    client.segment(picture(80, 100, seed=78), "where is the thalamus")
    assert raw.inferences("medsam_image_encoder") == encoded + 1
    assert settled(server, CACHED) == cached


def test_an_explanation_comes_in_pieces_that_join_to_the_whole(client, raw):
    image, prompt = picture(24, 30), "why is the sky blue"
    pieces = list(client.explain(image, prompt))
    assert len(pieces) > 3
    assert all(pieces)
    text = "".join(pieces)
    assert client.segment(image, prompt, explain=True).explanation == text
    # The same prompt, asked of the engine in one piece.
    patches = raw.infer(request("llava_image_tokens", [tensor("image", image)]))["patch_tokens"]
    tokenizer = LlavaTokenizer(MODEL_REPOSITORY / "mllm" / "1" / "base" / "tokenizer.model")
    whole = raw.infer(
        request(
            "mllm",
            [
                tensor("token_ids", np.int32(explanation_prompt(tokenizer, prompt))),
                tensor("embeddings", patches),
                tensor("max_tokens", np.int32([128])),
            ],
        )
    )["text"]
    assert whole.decode() == text


def test_the_pieces_of_an_explanation_come_while_it_is_written(client, server):
    came_s = []
    for piece in client.explain(picture(24, 30), "tell me everything"):
        assert piece
        came_s.append(time.monotonic())
    # A whole text cut up at its end would come within a millisecond.
    assert came_s[-1] - came_s[0] > 0.02
    assert len(came_s) > 3
    wait_until_idle(server)


def test_a_plain_triton_client_is_served(server):
    image = picture(33, 20, 3)
    with triton.InferenceServerClient(server.grpc_url) as plain:
        inputs = [
            triton.InferInput("image", image.shape, "UINT8"),
            triton.InferInput("prompt", [1], "BYTES"),
        ]
        inputs[0].set_data_from_numpy(image)
        inputs[1].set_data_from_numpy(np.array(["the liver"], np.object_))
        answer = plain.infer("medisee", inputs, request_id="of mine")
    assert answer.get_response().id == "of mine"
    assert answer.as_numpy("masks").shape == (1, 33, 3)


def test_http_gives_the_same_answer(server, client):
    image, prompt = picture(24, 30), "where is the thalamus"
    body = {
        "inputs": [
            {
                "name": "image",
                "datatype": "UINT8",
                "shape": image.shape,
                "data": image.ravel().tolist(),
            },
            {"name": "prompt", "datatype": "BYTES", "shape": [1], "data": [prompt]},
        ]
    }
    message = urllib.request.Request(
        f"http://{server.http_url}/v2/models/medisee/infer", json.dumps(body).encode()
    )
    with urllib.request.urlopen(message, timeout=60) as response:
        outputs = {output["name"]: output for output in json.load(response)["outputs"]}
    expected = client.segment(image, prompt)
    assert outputs["masks"]["shape"] == [1, 24, 4]
    packed = np.array(outputs["masks"]["data"], np.uint8).reshape(24, 4)
    mask = np.unpackbits(packed, axis=-1, count=30).astype(bool)
    assert (mask != expected.mask).mean() < 1e-3
    np.testing.assert_allclose(outputs["boxes_xyxy"]["data"], expected.box_xyxy, atol=1e-3)
    assert outputs["scores"]["data"][0] == pytest.approx(expected.score, abs=1e-3)


def test_the_mask_pipeline_is_a_pure_ensemble_and_not_decoupled(server):
    with triton.InferenceServerClient(server.grpc_url) as plain:
        served = plain.get_model_config("medisee").config
        explaining = plain.get_model_config("medisee_explain").config
    assert served.platform == "ensemble"
    assert not served.backend
    assert not served.model_transaction_policy.decoupled
    assert explaining.model_transaction_policy.decoupled


def test_the_client_sees_both_pipelines_and_their_tensors(client):
    assert client.health().can_segment
    models = {model.name: model for model in client.models()}
    assert {"medisee", "medisee_explain", "mllm", "checked_request"} <= set(models)
    assert [t.name for t in models["medisee"].inputs] == ["image", "prompt"]
    assert {t.name for t in models["medisee"].outputs} == {"masks", "boxes_xyxy", "scores"}
