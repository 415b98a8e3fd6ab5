"""Every request that cannot be served gets its documented error, and the next one is served."""

import json
import re
import urllib.request

import grpc
import numpy as np
import pytest
import saymask
from tritonclient.grpc import service_pb2

from serving.model_config import ROOT
from tests.integration.probe import (
    RefusedInTheStreamError,
    bytes_tensor,
    picture,
    question,
    request,
    tensor,
)

pytestmark = pytest.mark.server

INVALID = "INVALID_ARGUMENT"
NAN = np.full((24, 30, 1), np.nan, np.float32)


def refusal(send):
    """Name of the status and the text."""
    with pytest.raises(grpc.RpcError) as caught:
        send()
    return caught.value.code().name, caught.value.details()


BAD_PICTURES = {
    "no rows": (picture(24, 30)[:0, :10], "at least one pixel, got 0 x 10"),
    "no columns": (picture(24, 30)[:, :0], "at least one pixel, got 24 x 0"),
    "four channels": (picture(24, 30, 4), r"1 \(grey\) or 3 \(RGB\) channels, got 4"),
    "two channels": (picture(24, 30, 2), "got 2"),
    "no channel": (picture(24, 30)[..., :0], "got 0"),
    "FP32": (NAN, "data-type 'UINT8'|UINT8"),
    "INT32": (picture(24, 30).astype(np.int32), "UINT8"),
    "BOOL": (picture(24, 30) > 9, "UINT8"),
    "BYTES": (tensor("image", "a picture", shape=[1, 1, 1]), "UINT8"),
    "two axes": (picture(24, 30)[..., 0], r"shape \[24,30\]|\[-1,-1,-1\]"),
    "four axes": (picture(24, 30)[None], r"\[-1,-1,-1\]"),
    "fewer bytes than the shape": (
        tensor("image", picture(24, 30), shape=[24, 31, 1]),
        "byte size|unexpected",
    ),
    "more bytes than the shape": (
        tensor("image", picture(24, 30), shape=[23, 30, 1]),
        "byte size|unexpected",
    ),
    "a negative size": (
        tensor("image", picture(24, 30), shape=[-1, 30, 1]),
        "dimensions should be specified",
    ),
    "sizes whose product overflows": (
        tensor("image", picture(24, 30), shape=[2**32, 2**32, 1]),
        "byte size mismatch",
    ),
    "another name": (tensor("picture", picture(24, 30)), "image|picture"),
}

BAD_PROMPTS = {
    "blank": ("  \n", "expected a question, got blank text"),
    "empty": ("", "expected a question, got blank text"),
    "NUL": ("the liver\0", "prompt has a NUL character at 9"),
    "not UTF-8": (tensor("prompt", bytes_tensor(b"caf\xe9 ?")), "prompt is not UTF-8: byte 0xe9"),
    "surrogate": (tensor("prompt", bytes_tensor(b"\xed\xa0\x80")), "prompt is not UTF-8"),
    "20,000 characters": ("wo ist das? " * 1667, "positions .*expected at most 2046"),
    "two strings": (tensor("prompt", bytes_tensor(b"a", b"b"), shape=[2]), r"\[1\]|shape"),
    "two axes": (tensor("prompt", "a", shape=[1, 1]), r"\[1\]|shape"),
    "no string": (tensor("prompt", b"", shape=[0]), r"Expected \[1\], got \[0\]"),
    "a length beyond the data": (tensor("prompt", b"\xff\xff\xff\xff"), "incomplete string"),
    "half a length": (tensor("prompt", b"\x01\x00"), "incomplete string"),
    "bytes behind the string": (
        tensor("prompt", bytes_tensor(b"a") + b"zz"),
        "incomplete string",
    ),
    "UINT8": (tensor("prompt", np.uint8([65])), "BYTES|STRING"),
    "another name": (tensor("question", "a"), "prompt|question"),
}

REFUSED_BY_TRITON = {
    "two strings",
    "two axes",
    "no string",
    "a length beyond the data",
    "half a length",
    "bytes behind the string",
    "UINT8",
    "another name",
}
"""Prompts that Triton refuses by their type, shape or encoding."""

BAD = {f"picture: {name}": ({"image": bad}, text) for name, (bad, text) in BAD_PICTURES.items()}
BAD |= {f"prompt: {name}": ({"prompt": bad}, text) for name, (bad, text) in BAD_PROMPTS.items()}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_input_is_an_invalid_argument_and_the_next_request_is_served(raw, good_answer, name):
    values, text = BAD[name]
    status, details = refusal(lambda: raw.infer(request("medisee", question(**values))))
    assert (status, bool(re.search(text, details))) == (INVALID, True), details
    good_answer()


@pytest.mark.parametrize("name", [name for name in BAD if name.startswith("prompt")])
def test_the_explanation_refuses_the_same(raw, good_answer, name):
    values, text = BAD[name]
    message = request("medisee_explain", question(**values))
    with pytest.raises(RefusedInTheStreamError, match=text) as caught:
        list(raw.stream(message))
    # Triton's own refusals, before the pipeline starts, carry no status: docs/protocol.md.
    own = name.removeprefix("prompt: ") not in REFUSED_BY_TRITON
    assert (f"{INVALID}: " in str(caught.value)) == own
    good_answer()


def without(tensors, name):
    return [item for item in tensors if item[0] != name]


@pytest.mark.parametrize("name", ["image", "prompt"])
def test_a_missing_tensor_is_an_invalid_argument(raw, good_answer, name):
    status, details = refusal(lambda: raw.infer(request("medisee", without(question(), name))))
    assert status == INVALID
    assert name in details
    good_answer()


def test_a_tensor_that_the_pipeline_does_not_know_is_an_invalid_argument(raw, good_answer):
    tensors = [*question(), tensor("points", np.float32([[1, 2]]))]
    assert refusal(lambda: raw.infer(request("medisee", tensors)))[0] == INVALID
    good_answer()


def test_an_output_that_the_pipeline_does_not_have_is_an_invalid_argument(raw, good_answer):
    message = request("medisee", question(), outputs=["masks", "volume"])
    status, details = refusal(lambda: raw.infer(message))
    assert status == INVALID
    assert "volume" in details
    good_answer()


def test_one_output_may_be_asked_for_alone(raw):
    assert set(raw.infer(request("medisee", question(), outputs=["scores"]))) == {"scores"}


@pytest.mark.parametrize(
    ("model", "version"), [("tpp", ""), ("medisee", "7"), ("", ""), ("../medisee", "")]
)
def test_an_unknown_model_or_version_is_not_found(raw, good_answer, model, version):
    message = request(model, question(), version=version)
    status, _ = refusal(lambda: raw.infer(message))
    assert status == "NOT_FOUND"
    good_answer()


def mllm_request(**replaced):
    tensors = {
        "token_ids": np.int32([1, -1, 5]),
        "embeddings": np.zeros((3, 256), np.float32),
        "hidden_positions": np.int32([-1]),
        "adapter": "medisee",
    } | replaced
    return request("mllm", [tensor(name, value) for name, value in tensors.items()])


@pytest.mark.parametrize(
    ("replaced", "text"),
    [
        ({"adapter": "tpp"}, "unknown name 'tpp'; known: mediround, medisee, organseg"),
        ({"adapter": "../base"}, "unknown name"),
        ({"embeddings": np.full((3, 256), np.nan, np.float32)}, "got nan"),
        ({"embeddings": np.full((3, 256), np.inf, np.float32)}, "got inf"),
        ({"embeddings": np.zeros((3, 255), np.float32)}, "255"),
        ({"embeddings": np.zeros((0, 256), np.float32)}, "expected 1 or more"),
        ({"token_ids": np.int32([1, 99999])}, "99999"),
        ({"token_ids": np.int32([-2, -1])}, "-2"),
        ({"hidden_positions": np.int32([5])}, "hidden_positions"),
        ({"max_tokens": np.int32([-1])}, "max_tokens"),
        ({"max_tokens": np.int32([2**31 - 1]), "adapter": ""}, "max_model_len"),
        ({"temperature": np.float32([np.nan])}, "temperature"),
    ],
)
def test_the_language_model_refuses_what_it_cannot_compute(raw, good_answer, replaced, text):
    assert raw.infer(mllm_request())["hidden_states"].shape == (1, 1, 256)
    status, details = refusal(lambda: raw.infer(mllm_request(**replaced)))
    assert (status, text in details) == (INVALID, True), details
    good_answer()


def test_the_client_refuses_bad_pictures_before_they_are_sent(client, raw):
    before = raw.inferences("medsam_image_embedding")
    for bad, text in (
        (np.zeros((0, 10), np.uint8), "empty"),
        (np.zeros((9, 9, 4), np.uint8), "alpha"),
        (np.full((9, 9), np.nan, np.float32), "float32 with NaN"),
        (np.zeros((9, 9), np.int16), "int16"),
        (np.zeros((2, 9, 9, 3), np.uint8), "one image a call"),
    ):
        with pytest.raises(saymask.InvalidArgument, match=text) as caught:
            client.segment(bad, "the liver")
        assert caught.value.code is None
    for prompt in ("", " \n", "\ud800"):
        with pytest.raises(saymask.InvalidArgument, match="prompt"):
            client.segment(picture(9, 9), prompt)
    assert raw.inferences("medsam_image_embedding") == before


@pytest.mark.parametrize("prompt", ["the liver\0", "wo ist das? " * 1667])
def test_what_only_the_server_refuses_reaches_the_caller_as_its_kind(client, good_answer, prompt):
    for ask in (client.segment, lambda *question: list(client.explain(*question))):
        with pytest.raises(saymask.InvalidArgument) as caught:
            ask(picture(24, 30), prompt)
        assert caught.value.code == INVALID
        assert caught.value.request_id
    good_answer()


def http_status(server, path, body):
    message = urllib.request.Request(
        f"http://{server.http_url}{path}", json.dumps(body).encode(), method="POST"
    )
    opener = urllib.request.OpenerDirector()  # one that takes any status for an answer
    opener.add_handler(urllib.request.HTTPHandler())
    with opener.open(message, timeout=60) as response:
        assert ("error" in json.load(response)) == (response.status != 200)
        return response.status


def http_body(prompt="where", shape=(2, 2, 1)):
    return {
        "inputs": [
            {"name": "image", "datatype": "UINT8", "shape": shape, "data": [0, 50, 100, 150]},
            {"name": "prompt", "datatype": "BYTES", "shape": [1], "data": [prompt]},
        ]
    }


def documented():
    """gRPC status -> (HTTP status, class in saymask), from the table of the protocol."""
    text = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    table = text.split("## Errors")[1].split("\n\n")[1]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]]
    found = {}
    for statuses, http, _, kind, _ in rows:
        for status in re.findall(r"`([A-Z_]+)`", statuses):
            found.setdefault(status, (http, re.findall(r"`(\w+)`", kind)[0]))
    return found


def test_the_documented_http_statuses_are_those_of_the_server(server, good_answer):
    table = documented()
    path = "/v2/models/medisee/infer"
    assert http_status(server, path, http_body()) == 200
    for body in (http_body(" "), http_body("a\0"), http_body(shape=(2, 2)), {"inputs": []}):
        assert str(http_status(server, path, body)) in table[INVALID][0]
    unknown = http_status(server, "/v2/models/tpp/infer", http_body())
    assert str(unknown) in table["NOT_FOUND"][0]
    good_answer()


def test_the_documented_classes_are_those_of_the_client():
    for status, (_, kind) in documented().items():
        error = saymask.errors.error_of_status(status, "text", url="here:1")
        restricted = saymask.errors.error_of_status(
            status, "This protocol is restricted", url="here:1"
        )
        assert kind in (type(error).__name__, type(restricted).__name__)


def test_a_closed_protocol_is_refused_as_documented(raw):
    calls = (
        lambda: raw.stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), timeout=10),
        lambda: raw.stub.RepositoryModelUnload(
            service_pb2.RepositoryModelUnloadRequest(model_name="medisee"), timeout=10
        ),
        lambda: raw.stub.SystemSharedMemoryRegister(
            service_pb2.SystemSharedMemoryRegisterRequest(name="x", key="/x", byte_size=8),
            timeout=10,
        ),
    )
    for call in calls:
        status, details = refusal(call)
        assert (status, "protocol is restricted" in details) == ("UNAVAILABLE", True)
