"""A model repository of tiny models, written anew, and the real server over it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton
from onnx import TensorProto, helper, numpy_helper

from serving.launcher import Server, launch

PREAMBLE = """
import time
from serving.errors import Cancelled, Unavailable, Unsupported
from serving.python_model import PythonModel
"""

PIPELINES = {
    "echo": """
class Pipeline:
    def __init__(self, version_folder, suffix: str = "", repeat: int = 1):
        self.text = (version_folder / "text.txt").open().read()
        self.suffix, self.repeat = suffix, repeat

    def __call__(self, prompt: str, note: str | None = None):
        return {"text": f"{prompt}|{note}|{self.text}|{self.suffix * self.repeat}"}
""",
    "failing": """
class Pipeline:
    def __call__(self, prompt: str):
        errors = {
            "value": ValueError("no such organ"),
            "lookup": KeyError("no adapter tpp"),
            "unsupported": Unsupported("no volumes"),
            "full": Unavailable("the queue is full"),
            "cancelled": Cancelled("given up"),
            "crash": ZeroDivisionError("a secret path"),
            "exit": SystemExit("bye"),
        }
        if prompt in errors:
            raise errors[prompt]
        return {"dtype": {"text": __import__("numpy").zeros(1)}, "name": {"mask": "x"}}[prompt]
""",
    "calling": """
class Pipeline:
    def __init__(self, call):
        self.call = call

    def __call__(self, prompt: str):
        if prompt == "undeclared":
            return self.call("slow", {}, ["text"])
        if prompt == "echo":
            answer = self.call("echo", {"prompt": "Lüge", "note": b"n"}, ["text"])
            return {"text": answer["text"]}
        return self.call("failing", {"prompt": prompt}, ["text"])
""",
    "slow": """
class Pipeline:
    def __call__(self, seconds, witness: str, is_cancelled):
        end = time.monotonic() + float(seconds[0])
        while time.monotonic() < end:
            if witness and is_cancelled():
                open(witness, "w").write("told")
                raise Cancelled
            time.sleep(0.01)
        return {"text": "done"}
""",
    "counting": """
class Pipeline:
    def __call__(self, count, fail_at):
        for index in range(int(count[0])):
            if index == int(fail_at[0]):
                raise ValueError(f"failed at {index}")
            yield {"text": str(index)}
""",
}

TEXT_OUTPUT = 'output [{ name: "text" data_type: TYPE_STRING dims: [ 1 ] }]'
PROMPT_INPUT = '{ name: "prompt" data_type: TYPE_STRING dims: [ 1 ] }'
CPU = "instance_group [{ kind: KIND_CPU count: 1 }]"

CONFIGS = {
    "echo": f"""
backend: "python"
input [{PROMPT_INPUT}, {{ name: "note" data_type: TYPE_STRING dims: [ 1 ] optional: true }}]
{TEXT_OUTPUT} {CPU}
parameters {{ key: "suffix" value {{ string_value: "é" }} }}
parameters {{ key: "repeat" value {{ string_value: "2" }} }}
parameters {{ key: "artifacts" value {{ string_value: "text.txt" }} }}
model_warmup [{{ name: "hello" batch_size: 1
  inputs {{ key: "prompt" value {{ data_type: TYPE_STRING dims: [ 1 ] zero_data: true }} }} }}]
""",
    "failing": f'backend: "python" input [{PROMPT_INPUT}] {TEXT_OUTPUT} {CPU}',
    "calling": f"""
backend: "python" input [{PROMPT_INPUT}] {TEXT_OUTPUT} {CPU}
parameters {{ key: "calls" value {{ string_value: "failing, echo" }} }}
""",
    "slow": f"""
backend: "python"
input [{{ name: "seconds" data_type: TYPE_FP32 dims: [ 1 ] }},
       {{ name: "witness" data_type: TYPE_STRING dims: [ 1 ] }}]
{TEXT_OUTPUT} {CPU}
parameters {{ key: "max_in_flight" value {{ string_value: "2" }} }}
""",
    "counting": f"""
backend: "python"
input [{{ name: "count" data_type: TYPE_INT32 dims: [ 1 ] }},
       {{ name: "fail_at" data_type: TYPE_INT32 dims: [ 1 ] }}]
{TEXT_OUTPUT} {CPU}
model_transaction_policy {{ decoupled: true }}
""",
    "chain": f"""
platform: "ensemble" input [{PROMPT_INPUT}] {TEXT_OUTPUT}
ensemble_scheduling {{ step [{{ model_name: "calling" model_version: -1
  input_map {{ key: "prompt" value: "prompt" }} output_map {{ key: "text" value: "text" }} }}] }}
""",
    "doubling": f"""
backend: "onnxruntime" max_batch_size: 8
input [{{ name: "x" data_type: TYPE_FP32 dims: [ -1 ] }}]
output [{{ name: "y" data_type: TYPE_FP32 dims: [ -1 ] }},
        {{ name: "batch" data_type: TYPE_INT64 dims: [ 1 ] }}]
{CPU}
dynamic_batching {{ max_queue_delay_microseconds: 300000 }}
optimization {{ graph {{ level: 1 }} }}
parameters {{ key: "intra_op_thread_count" value {{ string_value: "1" }} }}
model_warmup [{{ name: "zeros" batch_size: 2
  inputs {{ key: "x" value {{ data_type: TYPE_FP32 dims: [ 3 ] zero_data: true }} }} }}]
""",
    "picking": f"""
backend: "onnxruntime" max_batch_size: 8
input [{{ name: "index" data_type: TYPE_INT64 dims: [ 1 ] }}]
output [{{ name: "value" data_type: TYPE_FP32 dims: [ 1 ] }}]
{CPU} dynamic_batching {{ max_queue_delay_microseconds: 300000 }}
""",
    "transposing": f"""
backend: "onnxruntime"
input [{{ name: "x" data_type: TYPE_FP32 dims: [ -1, -1 ] }}]
output [{{ name: "y" data_type: TYPE_FP32 dims: [ -1, -1 ] }}]
{CPU}
""",
}


def float_tensor(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def int_tensor(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.INT64, shape)


def onnx_graphs() -> dict[str, onnx.GraphProto]:
    def constant(name: str, value: np.ndarray) -> onnx.TensorProto:
        return numpy_helper.from_array(value, name)

    doubling = helper.make_graph(
        [
            helper.make_node("Add", ["x", "x"], ["y"]),
            # `batch` tells each request how many rows ran together.
            helper.make_node("Shape", ["x"], ["rows"], start=0, end=1),
            helper.make_node("Concat", ["rows", "one"], ["column"], axis=0),
            helper.make_node("Expand", ["rows", "column"], ["batch"]),
        ],
        "doubling",
        [float_tensor("x", "B", "T")],
        [float_tensor("y", "B", "T"), int_tensor("batch", "B", 1)],
        [constant("one", np.array([1], np.int64))],
    )
    picking = helper.make_graph(
        [helper.make_node("Gather", ["table", "index"], ["value"])],
        "picking",
        [int_tensor("index", "B", 1)],
        [float_tensor("value", "B", 1)],
        [constant("table", np.array([10, 11, 12], np.float32))],
    )
    transposing = helper.make_graph(
        [helper.make_node("Transpose", ["x"], ["y"])],
        "transposing",
        [float_tensor("x", "H", "W")],
        [float_tensor("y", "W", "H")],
    )
    return {graph.name: graph for graph in (doubling, picking, transposing)}


def write_model(repository: Path, name: str, config: str, source: str | None = None) -> Path:
    """Write one model folder; returns its version folder."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(f'name: "{name}"\n{config}', encoding="utf-8")
    if source is not None:
        declaration = "class TritonPythonModel(PythonModel):\n    pipeline = Pipeline\n"
        (version / "model.py").write_text(f"{PREAMBLE}{source}\n\n{declaration}", encoding="utf-8")
    return version


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for name, config in CONFIGS.items():
        write_model(root, name, config, PIPELINES.get(name))
    (root / "echo" / "1" / "text.txt").write_text("größer", encoding="utf-8")
    for name, graph in onnx_graphs().items():
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model)
        onnx.save(model, root / name / "1" / "model.onnx")
    return root


@pytest.fixture(scope="session")
def log_lines() -> list[str]:
    """Every line the server wrote."""
    return []


@pytest.fixture(scope="session")
def server(repository: Path, log_lines: list[str]) -> Iterator[Server]:
    # Verbose, because Triton tells of warm-up only so.
    options = ["--log-verbose=1"]
    with launch(
        repositories=[repository], extra_options=options, on_log=log_lines.append
    ) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc_url) as connected:
        yield connected
