"""The backend `onnxruntime`, through the real server over gRPC."""

import queue

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.server

WIRE = {np.dtype(np.float32): "FP32", np.dtype(np.int64): "INT64"}


def tensor(name: str, array: np.ndarray) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), WIRE[array.dtype])
    made.set_data_from_numpy(array)
    return made


def together(client: triton.InferenceServerClient, model: str, name: str, arrays: list) -> list:
    """Send requests at once; returns their results or errors in order."""
    answers: list[queue.Queue] = [queue.Queue() for _ in arrays]
    for answer, array in zip(answers, arrays, strict=True):
        client.async_infer(
            model,
            [tensor(name, array)],
            lambda result, error, answer=answer: answer.put(error or result),
        )
    return [answer.get(timeout=20) for answer in answers]


def test_requests_that_wait_together_run_as_one_batch_and_get_their_own_rows(client):
    arrays = [np.full((rows, 3), 10 * rows, np.float32) for rows in (1, 2, 3)]
    results = together(client, "doubling", "x", arrays)
    for array, result in zip(arrays, results, strict=True):
        np.testing.assert_array_equal(result.as_numpy("y"), 2 * array)
        np.testing.assert_array_equal(result.as_numpy("batch"), np.full((len(array), 1), 6))


def test_requests_of_unequal_shape_all_get_answers_of_their_shape(client):
    arrays = [np.ones((1, size), np.float32) for size in (2, 5, 2)]
    results = together(client, "doubling", "x", arrays)
    assert [result.as_numpy("y").shape for result in results] == [(1, 2), (1, 5), (1, 2)]


def test_one_requests_bad_value_does_not_fail_the_rest_of_its_batch(client):
    arrays = [np.array([[index]], np.int64) for index in (0, 99, 2)]
    first, second, third = together(client, "picking", "index", arrays)
    assert first.as_numpy("value").item() == 10
    assert third.as_numpy("value").item() == 12
    assert isinstance(second, InferenceServerException)
    assert "99" in second.message()


def test_an_output_not_asked_for_is_not_sent(client):
    asked = [triton.InferRequestedOutput("y")]
    result = client.infer("doubling", [tensor("x", np.ones((1, 2), np.float32))], outputs=asked)
    assert [output.name for output in result.get_response().outputs] == ["y"]


@pytest.mark.parametrize("shape", [(1, 7), (5, 1), (0, 3), (3, 1024 * 1024)])
def test_shapes_are_dynamic_from_none_to_12_megabytes(client, shape):
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    result = client.infer("transposing", [tensor("x", array)])
    np.testing.assert_array_equal(result.as_numpy("y"), array.T)


def test_a_large_batch_outgrows_the_first_shared_memory(client):
    array = np.random.default_rng(0).random((3, 3 * 1024 * 1024), np.float32)
    result = client.infer("doubling", [tensor("x", array)])
    np.testing.assert_array_equal(result.as_numpy("y"), 2 * array)


def test_triton_warms_the_model_up(server, log_lines):
    assert any("warmup sample 'zeros'" in line for line in log_lines)
    # The whole sample ran as a request of two rows, which statistics do not count.
    assert not any("failed to run warmup" in line for line in log_lines)
