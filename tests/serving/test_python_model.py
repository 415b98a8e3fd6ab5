"""The base class of Python models, through the real server over gRPC."""

import queue
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.server


def tensor(name: str, array: np.ndarray) -> triton.InferInput:
    kinds = {"O": "BYTES", "f": "FP32", "i": "INT32"}
    made = triton.InferInput(name, list(array.shape), kinds[array.dtype.kind])
    made.set_data_from_numpy(array)
    return made


def text(name: str, *values: str | bytes) -> triton.InferInput:
    encoded = [value.encode() if isinstance(value, str) else value for value in values]
    return tensor(name, np.array(encoded, dtype=object))


def ask(client: triton.InferenceServerClient, model: str, prompt: str | bytes) -> str:
    answer = client.infer(model, [text("prompt", prompt)], client_timeout=20, request_id="r7")
    return answer.as_numpy("text")[0].decode()


def error_of(client: triton.InferenceServerClient, model: str, prompt: str) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        ask(client, model, prompt)
    return caught.value.status(), caught.value.message()


def slow_inputs(seconds: float, witness: Path | None = None) -> list[triton.InferInput]:
    return [
        tensor("seconds", np.array([seconds], np.float32)),
        text("witness", str(witness or "")),
    ]


def test_a_utf8_prompt_a_utf8_file_and_parameters_reach_the_pipeline(client):
    assert (
        ask(client, "echo", "où est le foie? 肝臓 🫀") == "où est le foie? 肝臓 🫀|None|größer|éé"
    )


def test_an_optional_input_that_is_given_replaces_the_default(client):
    inputs = [text("prompt", "a"), text("note", "b")]
    assert client.infer("echo", inputs).as_numpy("text")[0].decode() == "a|b|größer|éé"


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        (b"liver\xff", "prompt is not UTF-8: byte 0xff at 5"),
        (b"a\0b", "prompt has a NUL character"),
    ],
)
def test_bytes_that_are_no_text_are_the_callers_fault(client, prompt, reason):
    with pytest.raises(InferenceServerException, match=reason) as caught:
        ask(client, "echo", prompt)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


KINDS = [
    ("value", "INVALID_ARGUMENT", "no such organ"),
    ("lookup", "NOT_FOUND", "no adapter tpp"),
    ("unsupported", "UNIMPLEMENTED", "no volumes"),
    ("full", "UNAVAILABLE", "the queue is full"),
    ("cancelled", "CANCELLED", "given up"),
]


@pytest.mark.parametrize(("prompt", "status", "message"), KINDS)
def test_an_exception_becomes_the_error_code_of_its_kind(client, prompt, status, message):
    expected = (f"StatusCode.{status}", f"{status}: {message}")
    assert error_of(client, "failing", prompt) == expected


@pytest.mark.parametrize(("prompt", "status", "message"), KINDS)
def test_a_called_models_error_keeps_its_kind_and_names_the_model(client, prompt, status, message):
    expected = (f"StatusCode.{status}", f"{status}: failing: {message}")
    assert error_of(client, "calling", prompt) == expected


@pytest.mark.parametrize(("prompt", "status", "message"), KINDS)
def test_an_error_keeps_its_kind_through_a_call_and_an_ensemble(client, prompt, status, message):
    found, said = error_of(client, "chain", prompt)
    assert found == f"StatusCode.{status}"
    assert message in said


def test_an_unplanned_error_is_internal_and_its_stack_stays_in_the_servers_log(client, log_lines):
    status, message = error_of(client, "failing", "crash")
    assert status == "StatusCode.INTERNAL"
    assert message == "INTERNAL: request r7 failed: ZeroDivisionError: a secret path"
    assert any("in __call__" in line for line in log_lines)


def test_a_pipeline_that_exits_answers_and_the_model_lives_on(client):
    assert error_of(client, "failing", "exit")[0] == "StatusCode.INTERNAL"
    assert error_of(client, "failing", "value")[0] == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [("dtype", "output 'text' is float64, config.pbtxt says TYPE_STRING"), ("name", "['mask']")],
)
def test_outputs_unlike_the_configuration_are_an_internal_error(client, prompt, reason):
    status, message = error_of(client, "failing", prompt)
    assert status == "StatusCode.INTERNAL"
    assert reason in message


def test_a_call_sends_and_returns_text(client):
    assert ask(client, "calling", "echo") == "Lüge|n|größer|éé"


def test_a_call_of_an_undeclared_model_says_where_to_declare_it(client):
    status, message = error_of(client, "calling", "undeclared")
    assert status == "StatusCode.INTERNAL"
    assert "calls 'slow' without declaring it" in message


def test_requests_overlap_and_one_more_than_max_in_flight_is_refused_at_once(client):
    answers: queue.Queue = queue.Queue()
    start = time.monotonic()
    for _ in range(2):
        client.async_infer("slow", slow_inputs(1.0), lambda result, error: answers.put(error))
    time.sleep(0.3)
    with pytest.raises(InferenceServerException, match="working on 2 requests") as caught:
        client.infer("slow", slow_inputs(1.0))
    refused_s = time.monotonic() - start
    assert caught.value.status() == "StatusCode.UNAVAILABLE"
    assert refused_s < 0.9
    assert [answers.get(timeout=10), answers.get(timeout=10)] == [None, None]
    assert time.monotonic() - start < 1.9
    # Both places are free again.
    assert client.infer("slow", slow_inputs(0.0)).as_numpy("text")[0] == b"done"


def test_a_cancelled_request_tells_its_pipeline_and_frees_its_place(client, tmp_path):
    errors: queue.Queue = queue.Queue()
    witness = tmp_path / "witness"
    call = client.async_infer(
        "slow", slow_inputs(20, witness), lambda result, error: errors.put(error)
    )
    time.sleep(0.3)
    call.cancel()
    assert errors.get(timeout=5).status() == "StatusCode.CANCELLED"
    deadline = time.monotonic() + 5
    while not witness.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert witness.read_text() == "told"
    for _ in range(3):
        client.infer("slow", slow_inputs(0.0))


def stream(client: triton.InferenceServerClient, count: int, fail_at: int) -> list[str]:
    """Texts of a decoupled request, then how it ended: `final` or its error."""
    seen: list[str] = []
    ended = threading.Event()

    def take(result: triton.InferResult | None, error: InferenceServerException | None) -> None:
        if error is not None:
            seen.append(f"{error.message()}")
        elif result.as_numpy("text") is not None:
            seen.append(result.as_numpy("text")[0].decode())
        if error is not None or result.get_response().parameters[FINAL].bool_param:
            seen.append("final")
            ended.set()

    client.start_stream(take)
    inputs = [
        tensor("count", np.array([count], np.int32)),
        tensor("fail_at", np.array([fail_at], np.int32)),
    ]
    client.async_stream_infer("counting", inputs, enable_empty_final_response=True)
    assert ended.wait(20), f"no end after {seen}"
    client.stop_stream()
    return seen


FINAL = "triton_final_response"


def test_a_generator_answers_once_for_each_dict_and_then_ends(client):
    assert stream(client, 3, -1) == ["0", "1", "2", "final"]


def test_a_generator_that_gives_nothing_still_ends(client):
    assert stream(client, 0, -1) == ["final"]


def test_a_generator_that_fails_sends_its_error_and_ends(client, server):
    seen = stream(client, 5, 2)
    assert seen[:2] == ["0", "1"]
    assert "failed at 2" in seen[2]
    with urllib.request.urlopen(server.metrics_url) as page:
        lines = page.read().decode().splitlines()
    [pending] = [n for n in lines if n.startswith('nv_inference_pending_request_count{model="coun')]
    assert pending.endswith(" 0")


def test_a_python_model_is_warmed_up_by_triton(server, log_lines):
    assert any("warmup sample 'hello'" in line for line in log_lines)
