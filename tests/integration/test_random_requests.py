"""Random shapes, types and bytes: only documented statuses come back, and the server lives."""

import math
import re

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from serving.model_config import ROOT
from tests.integration.probe import bytes_tensor, picture, request, tensor

pytestmark = pytest.mark.server

# INTERNAL is documented as the server's fault, so it is none of the answers wanted here.
REFUSALS = {"INVALID_ARGUMENT", "NOT_FOUND"}

SIZES = st.one_of(
    st.integers(0, 40), st.sampled_from([-1, 1, 3, 4, 2**31 - 1, 2**31, 2**40, 2**62, -(2**63)])
)
TYPES = st.sampled_from(["UINT8", "BYTES", "FP32", "INT64", "BOOL", "FP16", "BF16", "", "uint8"])


@st.composite
def any_tensor(draw, names):
    name = draw(st.sampled_from(names))
    shape = draw(st.lists(SIZES, max_size=5))
    count = abs(math.prod(shape))
    # Triton 24.10 does not see that a product overflows: docs/serving.md, "What runs".
    assume(count < 2**60)
    fitting = st.binary(min_size=count, max_size=count) if count < 5000 else st.binary(max_size=64)
    content = draw(st.one_of(st.binary(max_size=64), fitting))
    return name, draw(TYPES), shape, content


@st.composite
def near_picture(draw):
    """A picture that is right but for its sizes, which may be too."""
    height, width, channels = (draw(st.integers(0, high)) for high in (70, 70, 4))
    return tensor("image", np.full((height, width, channels), draw(st.integers(0, 255)), np.uint8))


near_prompt = st.one_of(
    st.text(max_size=80).map(lambda text: bytes_tensor(text.encode("utf-8", "surrogatepass"))),
    st.binary(max_size=40).map(lambda content: bytes_tensor(content)),
    st.lists(st.binary(max_size=9), max_size=3).map(lambda values: bytes_tensor(*values)),
).map(lambda content: tensor("prompt", content))

requests = st.one_of(
    st.tuples(near_picture(), near_prompt),
    st.tuples(any_tensor(["image"]), near_prompt),
    st.tuples(near_picture(), any_tensor(["prompt"])),
    st.lists(any_tensor(["image", "prompt", "masks", ""]), max_size=4),
)


def status_of(send):
    try:
        send()
    except grpc.RpcError as error:
        return error.code().name if error.details() else "NO TEXT"
    return "OK"


def test_the_refusals_wanted_here_are_documented():
    page = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([A-Z_]+)`", page, re.MULTILINE)) >= REFUSALS


@settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(tensors=requests)
def test_any_request_is_answered_or_refused_as_documented(raw, tensors):
    status = status_of(lambda: raw.infer(request("medisee", tensors), timeout_s=60))
    assert status in REFUSALS | {"OK"}


@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    tensors=st.lists(
        any_tensor(
            ["embeddings", "embedding_lengths", "hidden_positions", "adapter", "max_tokens"]
        ),
        max_size=5,
    )
)
def test_any_request_to_the_language_model_is_answered_or_refused(raw, tensors):
    good = tensor("token_ids", np.int32([1, 5]))
    message = request("mllm", [good, *tensors])
    status = status_of(lambda: raw.infer(message, timeout_s=60))
    assert status in REFUSALS | {"OK"}


def test_afterwards_the_server_answers_as_before(good_answer, client):
    good_answer()
    assert client.segment(picture(50, 41), "the liver").mask.shape == (50, 41)
