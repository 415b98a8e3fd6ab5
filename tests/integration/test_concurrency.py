"""Many requests at once, of every size: the answers are those of one at a time."""

import itertools
import re
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from tests.integration.probe import (
    RefusedInTheStreamError,
    picture,
    question,
    request,
    tensor,
    wait_until_idle,
)

pytestmark = pytest.mark.server

SIZES = [(24, 30, 1), (24, 30, 3), (90, 60, 1), (61, 127, 3), (7, 200, 1), (160, 160, 1), (1, 1, 3)]
PROMPTS = [
    "where is the thalamus",
    "Which part of the brain keeps the body in balance, and why do you think so?",
    "cerebellum",
    "🧠 links?",
]


def test_32_requests_at_once_get_the_answers_they_get_alone(client):
    pairs = list(itertools.islice(itertools.cycle(itertools.product(SIZES, PROMPTS)), 32))
    # Seeds by place: some requests share a picture, most do not.
    cases = [
        (picture(*size, seed=index // 3), prompt) for index, (size, prompt) in enumerate(pairs)
    ]
    together = [client.submit(*case) for case in cases]
    together = [pending.result() for pending in together]
    alone = [client.segment(*case) for case in cases]
    for one, other in zip(alone, together, strict=True):
        assert one.mask.shape == other.mask.shape
        # Batches and prefix-cache hits change the order of float sums, so a logit at the border
        # of the mask, within 1e-5 of 0, may fall on the other side.
        assert (one.mask != other.mask).mean() < 1e-3
        np.testing.assert_allclose(one.box_xyxy, other.box_xyxy, rtol=1e-4, atol=1e-3)
        assert one.score == pytest.approx(other.score, abs=1e-4)


def test_masks_and_explanations_at_once_do_not_mix(client, server):
    image = picture(24, 30)
    prompts = ["what is this", "why is it so bright", "name it", "describe the brain"]
    explained = ["".join(client.explain(image, prompt)) for prompt in prompts]
    alone = [client.segment(image, prompt) for prompt in PROMPTS]
    with ThreadPoolExecutor(len(prompts)) as threads:
        for _ in range(3):
            streams = [
                threads.submit(lambda p=p: "".join(client.explain(image, p))) for p in prompts
            ]
            together = client.segment_many(image, PROMPTS)
            for one, other in zip(alone, together, strict=True):
                assert (one.mask != other.mask).mean() < 1e-3
            assert [stream.result() for stream in streams] == explained
    wait_until_idle(server)


def test_prompts_with_an_adapter_join_the_engine_while_others_generate(raw, server):
    # One step of the engine then holds prompts of an adapter beside tokens of the base.
    def generated(seed):
        ids = np.random.default_rng(seed).integers(3, 1000, 20).astype(np.int32)
        tensors = {"token_ids": ids, "max_tokens": np.int32([150])}
        return raw.infer(request("mllm", [tensor(*item) for item in tensors.items()]))["text"]

    def prompted(seed):
        ids = np.random.default_rng(100 + seed).integers(3, 1000, 30).astype(np.int32)
        tensors = {
            "token_ids": ids,
            "hidden_positions": np.int32([-5, -1]),
            "adapter": "medisee",
        }
        return raw.infer(request("mllm", [tensor(*item) for item in tensors.items()]))

    texts = [generated(seed) for seed in range(4)]
    states = [prompted(seed)["hidden_states"] for seed in range(10)]
    with ThreadPoolExecutor(8) as threads:
        generating = [threads.submit(generated, seed) for seed in range(4)]
        answers = list(threads.map(prompted, range(10)))
        assert [job.result() for job in generating] == texts
    for answer, expected in zip(answers, states, strict=True):
        np.testing.assert_allclose(answer["hidden_states"], expected, rtol=1e-3, atol=1e-3)
    wait_until_idle(server)


def test_hundreds_of_bad_requests_at_once_leave_the_server_answering(raw, server, good_answer):
    bad = [
        question(picture(24, 30)[:0]),
        question(picture(24, 30, 2)),
        question(prompt=" "),
        question(prompt="a\0"),
    ]

    def ask(index):
        model = ("medisee", "medisee", "medisee", "medisee_explain")[index % 4]
        message = request(model, bad[index // 4 % len(bad)])
        try:
            if model == "medisee":
                raw.infer(message, timeout_s=60)
            else:
                list(raw.stream(message, timeout_s=60))
        except grpc.RpcError as error:
            return error.code().name
        except RefusedInTheStreamError as error:
            return re.search(r"[A-Z_]{3,}", str(error)).group()
        return "OK"

    with ThreadPoolExecutor(16) as threads:
        assert set(threads.map(ask, range(800))) == {"INVALID_ARGUMENT"}
    good_answer()
    wait_until_idle(server)
