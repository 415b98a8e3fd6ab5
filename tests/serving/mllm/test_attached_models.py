"""The backend's Triton side in the real server, attached to an engine that the test plays."""

import asyncio
import queue
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from serving.errors import Unavailable
from serving.launcher import launch
from serving.mllm.loop_thread import LoopThread
from serving.mllm.messages import Completion, TextIncrement
from serving.mllm.relay import RelayServer
from serving.mllm.runtime_folder import VARIABLE
from serving.model_config import ROOT

pytestmark = pytest.mark.server


class PlayedEngine:
    """Answers by the first token id."""

    FAIL, REFUSE, ENDLESS = 7, 8, 9

    def __init__(self):
        self.requests = []
        self.live = 0

    async def generate(self, request):
        self.requests.append(request)
        self.live += 1
        try:
            code = int(request.token_ids[0])
            if code == self.FAIL:
                raise ValueError("token_ids[0]: got 7")
            if code == self.REFUSE:
                raise Unavailable("3 requests are in flight")
            yield TextIncrement("Größe ")
            while code == self.ENDLESS:
                await asyncio.sleep(0.01)
            yield TextIncrement("3 ")
            yield Completion(
                text="µm",
                hidden_states=np.arange(6, dtype=np.float32).reshape(2, 3),
                cached_tokens=5,
                computed_tokens=2,
            )
        finally:
            self.live -= 1


@pytest.fixture(scope="module")
def engine():
    return PlayedEngine()


@pytest.fixture(scope="module")
def url(engine, tmp_path_factory):
    repository = tmp_path_factory.mktemp("repository")
    stream = (ROOT / "model_repository" / "mllm_stream" / "config.pbtxt").read_text()
    stream = stream.replace('string_value: "mllm"', 'string_value: "played"')
    stream = stream.replace('key: "calls"', 'key: "unused"')
    whole = stream.replace("decoupled: true", "decoupled: false").replace("mllm_stream", "mllm")
    for name, config in (("mllm_stream", stream), ("mllm", whole)):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(config)
    loop = LoopThread("played-engine")
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, folder)
        relay = RelayServer(engine, Path(folder) / "played.sock")
        loop.run(relay.open())
        with launch(["mllm", "mllm_stream"], repositories=[repository]) as server:
            yield server.grpc_url
        loop.run(relay.close())
        loop.stop()


@pytest.fixture
def client(url):
    with grpc.InferenceServerClient(url) as client:
        yield client


def token_ids(*values):
    tensor = grpc.InferInput("token_ids", (len(values),), "INT32")
    tensor.set_data_from_numpy(np.array(values, np.int32))
    return [tensor]


def generation(first_id):
    """Inputs that ask for text: only such requests are worth cancelling."""
    tensor = grpc.InferInput("max_tokens", (1,), "INT32")
    tensor.set_data_from_numpy(np.array([9], np.int32))
    return [*token_ids(first_id), tensor]


def stream(client, inputs):
    responses = queue.Queue()
    client.start_stream(lambda result, error: responses.put((result, error)))
    client.async_stream_infer("mllm_stream", inputs, enable_empty_final_response=True)
    results = []
    while True:
        result, error = responses.get(timeout=60)
        if error:
            raise error
        results.append(result)
        if result.get_response().parameters["triton_final_response"].bool_param:
            return results


def wait_until_idle(engine):
    deadline = time.monotonic() + 10
    while engine.live:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_response_carries_everything(client):
    result = client.infer("mllm", token_ids(1, 2))
    assert result.as_numpy("text")[0].decode() == "Größe 3 µm"
    assert result.as_numpy("hidden_states").tolist() == [[[0, 1, 2], [3, 4, 5]]]
    assert result.as_numpy("cached_tokens").tolist() == [5]
    assert result.as_numpy("computed_tokens").tolist() == [2]


def test_a_stream_carries_an_increment_each_and_the_rest_at_the_end(client):
    results = stream(client, token_ids(1, 2))
    assert [result.as_numpy("text")[0].decode() for result in results] == ["Größe ", "3 ", "µm"]
    assert results[0].as_numpy("hidden_states") is None
    assert results[-1].as_numpy("hidden_states").shape == (1, 2, 3)
    assert results[-1].as_numpy("cached_tokens").tolist() == [5]


def test_all_inputs_reach_the_engine(client, engine):
    values = {
        "embeddings": (np.ones((3, 4), np.float32), "FP32"),
        "embedding_lengths": (np.array([1, 2], np.int32), "INT32"),
        "hidden_positions": (np.array([-1, 0], np.int32), "INT32"),
        "adapter": (np.array(["lunge-größe".encode()], object), "BYTES"),
        "max_tokens": (np.array([17], np.int32), "INT32"),
        "temperature": (np.array([0.5], np.float32), "FP32"),
    }
    inputs = token_ids(1, -1, -1)
    for name, (array, datatype) in values.items():
        tensor = grpc.InferInput(name, array.shape, datatype)
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    client.infer("mllm", inputs)
    request = engine.requests[-1]
    assert request.token_ids.tolist() == [1, -1, -1]
    for name in ("embeddings", "embedding_lengths", "hidden_positions"):
        np.testing.assert_array_equal(getattr(request, name), values[name][0])
    assert (request.adapter, request.max_tokens, request.temperature) == ("lunge-größe", 17, 0.5)


@pytest.mark.parametrize(
    ("code", "status", "text"),
    [
        (PlayedEngine.FAIL, "INVALID_ARGUMENT", "token_ids[0]: got 7"),
        (PlayedEngine.REFUSE, "UNAVAILABLE", "3 requests are in flight"),
    ],
)
def test_errors_keep_their_code_and_text(client, code, status, text):
    with pytest.raises(InferenceServerException) as caught:
        client.infer("mllm", token_ids(code))
    assert caught.value.status() == f"StatusCode.{status}"
    assert caught.value.message() == f"{status}: {text}"
    with pytest.raises(InferenceServerException) as caught:
        stream(client, token_ids(code))
    assert text in caught.value.message()


def test_cancelling_ends_the_request_in_the_engine(client, engine):
    answers = queue.Queue()
    call = client.async_infer(
        "mllm", generation(engine.ENDLESS), lambda result, error: answers.put(error)
    )
    while not engine.live:
        time.sleep(0.01)
    call.cancel()
    assert answers.get(timeout=10).status() == "StatusCode.CANCELLED"
    wait_until_idle(engine)


def test_cancelling_at_any_moment_leaves_the_model_able_to_answer(client, engine):
    """Also before the engine has heard of the request, and when it is about to end."""
    for delay_s in np.linspace(0, 0.02, 25):
        answers = queue.Queue()
        call = client.async_infer(
            "mllm", generation(1), lambda result, error, put=answers.put: put((result, error))
        )
        time.sleep(delay_s)
        call.cancel()
        result, error = answers.get(timeout=10)
        assert result is not None or error.status() == "StatusCode.CANCELLED"
    wait_until_idle(engine)
    assert client.infer("mllm", token_ids(1)).as_numpy("text")[0].decode() == "Größe 3 µm"


def test_a_prompt_alone_is_computed_to_its_end(client, engine):
    ended = len(engine.requests)
    call = client.async_infer("mllm", token_ids(1), lambda result, error: None)
    call.cancel()
    wait_until_idle(engine)
    assert len(engine.requests) - ended <= 1
    assert client.infer("mllm", token_ids(1)).as_numpy("text")[0].decode() == "Größe 3 µm"


def test_ending_a_stream_ends_its_request(client, engine):
    responses = queue.Queue()
    client.start_stream(lambda result, error: responses.put((result, error)))
    client.async_stream_infer("mllm_stream", generation(engine.ENDLESS))
    assert responses.get(timeout=10)[0].as_numpy("text")[0].decode() == "Größe "
    assert engine.live
    client.stop_stream(cancel_requests=True)
    wait_until_idle(engine)
