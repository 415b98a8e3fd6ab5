"""The real server, the real engine, a small random base; Hugging Face and PEFT as the oracle."""

import queue
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc
from sentencepiece import SentencePieceProcessor
from tritonclient.utils import InferenceServerException

from serving.launcher import launch
from serving.model_config import ROOT
from tests.processes import below, engine_and_worker, engine_held
from tests.serving.mllm.tiny_mllm import (
    END_PROMPT,
    HIDDEN,
    OWN_TABLE,
    SHARED_TABLE,
    VOCABULARY,
    Oracle,
    write_model_folder,
)

pytestmark = pytest.mark.server

ADAPTERS = ("", OWN_TABLE, SHARED_TABLE)
BLOCK = 32
"""Positions per block in the small engine: the prefix cache works in whole blocks."""

TYPES = {
    "token_ids": ("INT32", np.int32),
    "embeddings": ("FP32", np.float32),
    "embedding_lengths": ("INT32", np.int32),
    "hidden_positions": ("INT32", np.int32),
    "adapter": ("BYTES", np.object_),
    "max_tokens": ("INT32", np.int32),
    "temperature": ("FP32", np.float32),
}


def tensors(**values):
    inputs = []
    for name, value in values.items():
        datatype, dtype = TYPES[name]
        if name in ("adapter", "max_tokens", "temperature"):
            value = [value.encode() if isinstance(value, str) else value]
        array = np.asarray(value, dtype)
        tensor = grpc.InferInput(name, array.shape, datatype)
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return inputs


class Client:
    def __init__(self, server):
        self.server = server
        self.grpc = grpc.InferenceServerClient(server.grpc_url)

    def ask(self, **values):
        result = self.grpc.infer("mllm", tensors(**values))
        answer = {
            name: result.as_numpy(name)
            for name in ("hidden_states", "text", "cached_tokens", "computed_tokens")
        }
        return answer | {"text": answer["text"][0].decode()}

    def start(self, **values):
        """A request in flight; returns its cancellable call and its future answer."""
        answer = queue.Queue()
        call = self.grpc.async_infer(
            "mllm", tensors(**values), lambda result, error: answer.put((result, error))
        )
        return call, answer

    def stream(self, **values):
        """Responses of `mllm_stream`: texts, and the last one's outputs."""
        responses = queue.Queue()
        client = grpc.InferenceServerClient(self.server.grpc_url)
        client.start_stream(lambda result, error: responses.put((result, error)))
        client.async_stream_infer(
            "mllm_stream", tensors(**values), enable_empty_final_response=True
        )
        results = []
        try:
            while True:
                result, error = responses.get(timeout=180)
                if error:
                    raise error
                results.append(result)
                if result.get_response().parameters["triton_final_response"].bool_param:
                    return results
        finally:
            client.stop_stream()
            client.close()

    def metric(self, name):
        with urllib.request.urlopen(self.server.metrics_url) as response:
            for line in response.read().decode().splitlines():
                if line.rsplit(" ", 1)[0] == name:
                    return float(line.rsplit(" ", 1)[1])
        return None

    def wait_for_metric(self, name, value, timeout_s=30):
        deadline = time.monotonic() + timeout_s
        while self.metric(name) != value:
            assert time.monotonic() < deadline, f"{name} is {self.metric(name)}, not {value}"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def version_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository") / "mllm" / "1"
    write_model_folder(folder)
    return folder


@pytest.fixture(scope="module")
def oracle(version_folder):
    return Oracle(version_folder)


@pytest.fixture(scope="module")
def processor(version_folder):
    return SentencePieceProcessor(str(version_folder / "base" / "tokenizer.model"))


@pytest.fixture(scope="module")
def server(version_folder):
    repository = version_folder.parents[1]
    (repository / "mllm_stream" / "1").mkdir(parents=True)
    for name in ("mllm", "mllm_stream"):
        config = ROOT / "model_repository" / name / "config.pbtxt"
        (repository / name / "config.pbtxt").write_bytes(config.read_bytes())
    with launch(["mllm_stream"], repositories=[repository], timeout_s=600) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    return Client(server)


class Scene:
    """One prompt: ids, two embedding segments in the middle, and its oracle's embeddings."""

    def __init__(self, seed, length, oracle):
        rng = np.random.default_rng(seed)
        rows = length // 2
        lengths = [rows // 3, rows - rows // 3]
        segments = [rng.normal(0, 0.06, (n, HIDDEN)).astype(np.float32) for n in lengths]
        ids = rng.integers(3, VOCABULARY, length - rows).tolist()
        self.length = length
        self.token_ids = [1, *ids[:2], -1, *ids[2:-5], -1, *ids[-4:]]
        assert len(self.token_ids) - 2 + rows == length - 1 + 1
        self.inputs = {
            "token_ids": self.token_ids,
            "embeddings": np.concatenate(segments),
            "embedding_lengths": lengths,
        }
        self.embed = lambda adapter: oracle.embed(self.token_ids, segments, adapter)
        self.hidden_states = lambda adapter: oracle.hidden_states(self.embed(adapter), adapter)


def relative_error(got, expected):
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)


WORST = {"hidden": 0.0}


@pytest.mark.parametrize("length", [40, 96, 600])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_hidden_states_equal_hugging_face_fresh_and_from_the_cache(client, oracle, adapter, length):
    scene = Scene(length, length, oracle)
    expected = scene.hidden_states(adapter)
    choices = ([-1], [length - 5, length - 9], [0, -1, 7, length // 2, 33])
    for index, positions in enumerate(choices):
        answer = client.ask(**scene.inputs, adapter=adapter, hidden_positions=positions)
        error = relative_error(answer["hidden_states"][0], expected[positions])
        WORST["hidden"] = max(WORST["hidden"], error)
        assert answer["hidden_states"].shape == (1, len(positions), HIDDEN)
        assert error < 1e-5
        # One block at least is computed, since something must be.
        cached = 0 if index == 0 else (length - 1) // BLOCK * BLOCK
        assert answer["cached_tokens"].tolist() == [cached]
        assert answer["computed_tokens"].tolist() == [length - cached]
        assert answer["text"] == ""


def test_a_shared_image_is_computed_once_per_adapter(client, oracle):
    rng = np.random.default_rng(77)
    image = rng.normal(0, 0.06, (128, HIDDEN)).astype(np.float32)
    for adapter in ADAPTERS:
        answers = [
            client.ask(token_ids=[-1, *question], embeddings=image, adapter=adapter)
            for question in ([5, 6, 7], [9, 10, 11, 12], [13])
        ]
        cached = [int(answer["cached_tokens"][0]) for answer in answers]
        assert cached == [0, 128, 128]


def test_rows_asked_for_twice_and_out_of_order_come_as_asked(client, oracle):
    scene = Scene(5, 50, oracle)
    expected = scene.hidden_states("")
    positions = [49, 3, 49, -50, 20]
    answer = client.ask(**scene.inputs, hidden_positions=positions)
    assert relative_error(answer["hidden_states"][0], expected[positions]) < 1e-5


def test_no_positions_give_no_rows(client):
    assert client.ask(token_ids=[1, 5])["hidden_states"].shape == (1, 0, HIDDEN)


@pytest.mark.parametrize("adapter", ["", SHARED_TABLE])
def test_greedy_text_equals_hugging_face(client, oracle, processor, adapter):
    scene = Scene(11, 60, oracle)
    expected = oracle.greedy(scene.embed(adapter), 40, adapter)
    expected = processor.decode(expected[: expected.index(2)] if 2 in expected else expected)
    answer = client.ask(**scene.inputs, adapter=adapter, max_tokens=40, hidden_positions=[-1])
    assert answer["text"] == expected
    rows = scene.hidden_states(adapter)[[-1]]
    assert relative_error(answer["hidden_states"][0], rows) < 1e-5


def test_a_text_ends_at_the_end_token(client, oracle, processor):
    token_ids = oracle.greedy(oracle.embed(END_PROMPT, [], ""), 60)
    assert 0 < token_ids.index(2) < 10
    expected = processor.decode(token_ids[: token_ids.index(2)])
    assert client.ask(token_ids=END_PROMPT, max_tokens=60)["text"] == expected


def test_temperature_changes_the_text(client):
    texts = {
        client.ask(token_ids=[1, 9, 9], max_tokens=12, temperature=1.5)["text"] for _ in range(4)
    }
    assert len(texts) > 1


def test_increments_concatenate_to_the_whole_text(client, oracle):
    scene = Scene(12, 60, oracle)
    whole = client.ask(**scene.inputs, max_tokens=60, hidden_positions=[-1, 0])
    results = client.stream(**scene.inputs, max_tokens=60, hidden_positions=[-1, 0])
    texts = [result.as_numpy("text")[0].decode() for result in results]
    assert len(texts) > 20
    assert "".join(texts) == whole["text"]
    assert all(texts[:-1])
    np.testing.assert_allclose(
        results[-1].as_numpy("hidden_states"), whole["hidden_states"], atol=1e-5
    )
    assert results[0].as_numpy("hidden_states") is None
    assert results[-1].as_numpy("cached_tokens").tolist() == [32]
    assert results[-1].as_numpy("computed_tokens").tolist() == [28]


def test_sixteen_requests_at_once_equal_their_serial_answers(client, oracle):
    scenes = [Scene(300 + index, 50 + 13 * index, oracle) for index in range(16)]
    requests = [
        {
            **scene.inputs,
            "adapter": ADAPTERS[index % 3],
            "hidden_positions": [-1, index],
            # An adapter with a table of its own gives no text.
            "max_tokens": 0 if ADAPTERS[index % 3] == OWN_TABLE else index,
        }
        for index, scene in enumerate(scenes)
    ]
    with ThreadPoolExecutor(16) as threads:
        together = list(threads.map(lambda request: client.ask(**request), requests))
    for index, (request, answer) in enumerate(zip(requests, together, strict=True)):
        expected = scenes[index].hidden_states(request["adapter"])[[-1, index]]
        assert relative_error(answer["hidden_states"][0], expected) < 1e-5
        alone = client.ask(**request)
        assert answer["text"] == alone["text"]
        np.testing.assert_allclose(answer["hidden_states"], alone["hidden_states"], atol=1e-5)


def row(value, width=HIDDEN):
    return np.full((1, width), value, np.float32)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"token_ids": []}, "the prompt is empty"),
        ({"token_ids": [VOCABULARY]}, rf"got {VOCABULARY}, expected \[0, {VOCABULARY}\)"),
        ({"token_ids": [-7]}, "got -7"),
        ({"token_ids": [5] * 1022}, "1022 positions and 1 more.*at most 1022"),
        ({"token_ids": [5] * 1000, "max_tokens": 23}, "together 1023"),
        ({"token_ids": [5], "max_tokens": -1}, "max_tokens: got -1"),
        ({"token_ids": [5], "temperature": -1.0}, "temperature: got -1.0"),
        ({"token_ids": [5], "adapter": "lung"}, f"known: {OWN_TABLE}, {SHARED_TABLE}"),
        ({"token_ids": [5], "adapter": OWN_TABLE, "max_tokens": 2}, "its own embedding table"),
        ({"token_ids": [5], "hidden_positions": [1]}, r"got 1, expected \[-1, 1\)"),
        ({"token_ids": [5], "hidden_positions": [-2]}, r"got -2, expected \[-1, 1\)"),
        ({"token_ids": [-1]}, "embeddings: missing"),
        ({"token_ids": [-1], "embeddings": row(1, 64)}, r"expected \(R, 256\), got \(1, 64\)"),
        ({"token_ids": [-1, -1], "embeddings": row(1)}, "embedding_lengths: missing"),
        (
            {"token_ids": [-1], "embeddings": row(1), "embedding_lengths": [2]},
            r"got 1 rows, but embedding_lengths \[2\] sum to 2",
        ),
        ({"token_ids": [-1], "embeddings": row(np.nan)}, r"got nan.*256 of 256"),
        ({"token_ids": [-1], "embeddings": row(np.inf)}, "got inf"),
    ],
)
@pytest.mark.parametrize("model", ["mllm", "mllm_stream"])
def test_a_bad_request_is_invalid_and_the_engine_lives_on(client, model, values, text):
    with pytest.raises(InferenceServerException, match=text) as caught:
        client.ask(**values) if model == "mllm" else client.stream(**values)
    if model == "mllm":  # a stream's error has no code of its own
        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert client.ask(token_ids=[1, 5])["computed_tokens"].tolist() == [2]


def test_beyond_the_limit_requests_are_refused_at_once(client):
    client.wait_for_metric("saymask_mllm_in_flight", 0)
    with engine_held():
        started = [client.start(token_ids=[1, 5, i + 3], max_tokens=4) for i in range(40)]
        deadline = time.monotonic() + 30
        while sum(answer.qsize() for _, answer in started) < 40 - 24:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    answers = [answer.get(timeout=180) for _, answer in started]
    refused = [error for _, error in answers if error]
    assert len(refused) == 40 - 24
    assert {error.status() for error in refused} == {"StatusCode.UNAVAILABLE"}
    assert "24 requests are in flight" in refused[0].message()
    assert client.ask(token_ids=[1, 5])["computed_tokens"].tolist() == [2]


@pytest.mark.parametrize("model", ["mllm", "mllm_stream"])
def test_cancelling_reaches_the_engine_and_computing_stops(client, model):
    client.wait_for_metric("saymask_mllm_in_flight", 0)
    _, worker = engine_and_worker()
    cancelled = 'saymask_mllm_requests_total{outcome="cancelled"}'
    before = client.metric(cancelled) or 0
    long = {"token_ids": [1, 5, 9], "max_tokens": 1000}
    if model == "mllm":
        call, answer = client.start(**long)
        cancel = call.cancel
    else:
        answer = queue.Queue()
        streaming = grpc.InferenceServerClient(client.server.grpc_url)
        streaming.start_stream(lambda result, error: answer.put((result, error)))
        streaming.async_stream_infer("mllm_stream", tensors(**long))
        cancel = lambda: streaming.stop_stream(cancel_requests=True)  # noqa: E731
    client.wait_for_metric("saymask_mllm_in_flight", 1)
    assert worker.cpu_percent(0.5) > 30  # it computes
    cancel()
    client.wait_for_metric("saymask_mllm_in_flight", 0, timeout_s=10)
    client.wait_for_metric(cancelled, before + 1, timeout_s=10)
    # It does not any more, once the worker has left its busy wait for further steps; the thousand
    # tokens would have taken longer.
    deadline = time.monotonic() + 6
    while worker.cpu_percent(0.5) > 10:
        assert time.monotonic() < deadline
    assert client.ask(token_ids=[1, 5])["computed_tokens"].tolist() == [2]


def test_prompt_tokens_are_counted_by_source(client, oracle):
    names = [
        f'saymask_mllm_prompt_tokens_total{{source="{source}"}}'
        for source in ("cached", "computed")
    ]
    time.sleep(1.5)
    before = [client.metric(name) for name in names]
    scene = Scene(900, 100, oracle)
    for _ in range(2):
        client.ask(**scene.inputs)
    client.wait_for_metric(names[0], before[0] + 96)
    client.wait_for_metric(names[1], before[1] + 100 + 4)


def test_a_killed_engine_fails_its_requests_and_comes_back(client, oracle):
    client.wait_for_metric("saymask_mllm_in_flight", 0)
    _, running = client.start(token_ids=[1, 5], max_tokens=1000)
    streamed = queue.Queue()

    def stream():
        try:
            client.stream(token_ids=[1, 5, 6], max_tokens=1000)
        except InferenceServerException as error:
            streamed.put(error)

    threading.Thread(target=stream).start()
    client.wait_for_metric("saymask_mllm_in_flight", 2)
    engine_and_worker()[0].kill()
    error = running.get(timeout=30)[1]
    assert error.status() == "StatusCode.UNAVAILABLE"
    assert "the engine died while it worked on this request" in error.message()
    assert "the engine died" in streamed.get(timeout=30).message()

    refusals = []
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            client.ask(token_ids=[1, 5])
            break
        except InferenceServerException as error:
            refusals.append(error)
            time.sleep(0.5)
    assert refusals
    assert {error.status() for error in refusals} == {"StatusCode.UNAVAILABLE"}
    assert "is being restarted" in refusals[-1].message()
    client.wait_for_metric("saymask_mllm_engine_restarts_total", 1)
    client.wait_for_metric("saymask_mllm_in_flight", 0)
    scene = Scene(40, 40, oracle)
    for adapter in ADAPTERS:
        answer = client.ask(**scene.inputs, adapter=adapter, hidden_positions=[-1])
        assert relative_error(answer["hidden_states"][0], scene.hidden_states(adapter)[[-1]]) < 1e-5
    assert len(client.stream(token_ids=[1, 5], max_tokens=8)) > 1


def test_the_server_leaves_nothing_behind(client):
    (triton,) = [process for process in below() if process.name() == "tritonserver"]
    folder = Path(triton.environ()["TMPDIR"])
    assert (folder / "runtime" / "mllm.sock").is_socket()
    shared = {
        line.split()[-1]
        for process in below()
        for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines()
        if "/dev/shm/" in line and not line.endswith("(deleted)")
    }
    assert shared
    client.server.stop()
    assert not below()
    assert not folder.exists()
    assert not [path for path in shared if Path(path).exists()]
