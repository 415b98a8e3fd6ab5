"""How the tests here speak with the server: raw messages, metrics, statistics."""

import struct
import time
import urllib.request

import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

DATA_TYPES = {
    "uint8": "UINT8",
    "int8": "INT8",
    "uint16": "UINT16",
    "int32": "INT32",
    "int64": "INT64",
    "float32": "FP32",
    "float64": "FP64",
    "bool": "BOOL",
}


def picture(height, width, channels=1, seed=0):
    """A picture with shapes in it, so that its mask is not the same everywhere."""
    rng = np.random.default_rng((seed, height, width, channels))
    rows, columns = np.mgrid[:height, :width] / max(height, width)
    waves = [
        127
        + 100 * np.sin(rng.uniform(2, 9) * rows + rng.uniform(2, 9) * columns + rng.uniform(0, 6))
        for _ in range(channels)
    ]
    return (np.stack(waves, axis=2) + rng.integers(0, 28, (height, width, 1))).astype(np.uint8)


def bytes_tensor(*values):
    """The wire form of a BYTES tensor: each value after its length."""
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def tensor(name, value, datatype=None, shape=None):
    """(name, data type, shape, bytes); any of them may be made wrong."""
    if isinstance(value, np.ndarray):
        datatype, shape = datatype or DATA_TYPES[value.dtype.name], shape or value.shape
        return name, datatype, shape, value.tobytes()
    if isinstance(value, str):
        value = bytes_tensor(value.encode())
    return name, datatype or "BYTES", [1] if shape is None else shape, value


def question(image=None, prompt="where is the thalamus"):
    """The two tensors of a good request, with one of them replaced at will."""
    image = picture(24, 30) if image is None else image
    image = image if isinstance(image, tuple) else tensor("image", image)
    return [image, prompt if isinstance(prompt, tuple) else tensor("prompt", prompt)]


def request(model, tensors, *, version="", request_id="test", outputs=()):
    """A `ModelInferRequest` that nothing has checked."""
    types = service_pb2.ModelInferRequest
    return types(
        model_name=model,
        model_version=version,
        id=request_id,
        inputs=[
            types.InferInputTensor(name=name, datatype=datatype, shape=shape)
            for name, datatype, shape, _ in tensors
        ],
        outputs=[types.InferRequestedOutputTensor(name=name) for name in outputs],
        raw_input_contents=[content for *_, content in tensors],
    )


class RefusedInTheStreamError(Exception):
    """A stream that carried a text in place of an answer."""


class Raw:
    """Sends messages as they are; `grpc.RpcError` tells what the server made of them."""

    def __init__(self, channel):
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

    def infer(self, message, timeout_s=60):
        """Output name -> array; BYTES are lists of bytes."""
        response = self.stub.ModelInfer(message, timeout=timeout_s)
        dtypes = {"FP32": "<f4", "UINT8": "u1", "INT32": "<i4", "INT64": "<i8"}
        found = {}
        for output, content in zip(response.outputs, response.raw_output_contents, strict=True):
            if output.datatype == "BYTES":
                found[output.name] = content[4:]
            else:
                array = np.frombuffer(content, dtypes[output.datatype])
                found[output.name] = array.reshape(output.shape)
        return found

    def stream(self, message, timeout_s=60):
        """Texts of `medisee_explain`, as they come; raises `RefusedInTheStreamError` for such."""
        refusal = None
        for answer in self.stub.ModelStreamInfer(iter([message]), timeout=timeout_s):
            refusal = refusal or answer.error_message
            for content in answer.infer_response.raw_output_contents:
                yield content[4:].decode("utf-8", errors="replace")
        if refusal:
            raise RefusedInTheStreamError(refusal)

    def inferences(self, model):
        """How many requests a model has answered."""
        statistics = self.stub.ModelStatistics(service_pb2.ModelStatisticsRequest(name=model))
        return statistics.model_stats[0].inference_count


def metric(server, name):
    """Value of one line of the metrics, 0 where there is none yet."""
    with urllib.request.urlopen(server.metrics_url, timeout=10) as response:
        lines = response.read().decode().splitlines()
    values = [line.rsplit(" ", 1)[1] for line in lines if line.rsplit(" ", 1)[0] == name]
    return float(values[0]) if values else 0.0


IN_FLIGHT = "saymask_mllm_in_flight"
CACHED = 'saymask_mllm_prompt_tokens_total{source="cached"}'


def settled(server, name, timeout_s=10, quiet_s=1.6):
    """A metric that no longer changes; the engine writes its own once a second."""
    deadline = time.monotonic() + timeout_s
    value = metric(server, name)
    while True:
        time.sleep(quiet_s)
        before, value = value, metric(server, name)
        if value == before:
            return value
        assert time.monotonic() < deadline, f"{name} does not come to rest: {value}"


def wait_until(condition, timeout_s, what):
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.1)


def wait_until_idle(server, timeout_s=60):
    """Wait until no request is inside the engine."""
    wait_until(lambda: metric(server, IN_FLIGHT) == 0, timeout_s, "an idle engine")
