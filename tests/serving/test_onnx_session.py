"""Sessions from configurations, and the configurations against what the C++ backend documents."""

import numpy as np
import onnxruntime as ort
import pytest

from serving import model_config
from serving.model_config import ModelConfig, parse
from serving.onnx_session import build_session, check_graph, session_options

ONNX_MODELS = [
    config for config in model_config.read_all().values() if config.backend == "onnxruntime"
]

# What https://github.com/triton-inference-server/onnxruntime_backend's README names, and no more.
DOCUMENTED = {
    *("intra_op_thread_count", "inter_op_thread_count", "execution_mode"),
    *("enable_mem_arena", "enable_mem_pattern", "memory.enable_memory_arena_shrinkage"),
    *("session.use_device_allocator_for_initializers", "cudnn_conv_algo_search"),
    *("gpu_mem_limit", "arena_extend_strategy", "do_copy_in_default_stream"),
}


def faults(config: ModelConfig) -> list[str]:
    """What NVIDIA's C++ backend would ignore or refuse."""
    found = [f"parameter {key}" for key in set(config.parameters) - DOCUMENTED]
    found += [
        f"number {key}"
        for key in ("intra_op_thread_count", "inter_op_thread_count")
        if not config.parameters.get(key, "0").isdecimal()
    ]
    if config.parameters.get("execution_mode", "0") not in ("0", "1"):
        found.append("execution_mode")
    if config.proto.optimization.graph.level not in (-1, 0, 1, 2):
        found.append("optimization graph level")
    accelerators = config.proto.optimization.execution_accelerators
    found += [f"accelerator {a.name}" for a in accelerators.gpu_execution_accelerator
              if a.name not in ("tensorrt", "cuda")]  # fmt: skip
    found += [f"accelerator {a.name}" for a in accelerators.cpu_execution_accelerator
              if a.name != "openvino"]  # fmt: skip
    if config.proto.platform not in ("", "onnxruntime_onnx"):
        found.append(f"platform {config.proto.platform}")
    if config.decoupled:
        found.append("decoupled")
    found += ["instance group without count" for g in config.proto.instance_group if not g.count]
    return found


@pytest.mark.parametrize("config", ONNX_MODELS, ids=lambda config: config.name)
def test_a_configuration_holds_nothing_the_cpp_backend_does_not_know(config):
    assert faults(config) == []
    session_options(config)


@pytest.mark.parametrize(
    "text",
    [
        'parameters { key: "calls" value { string_value: "b" } }',
        'parameters { key: "execution_mode" value { string_value: "parallel" } }',
        "optimization { graph { level: 3 } }",
    ],
)
def test_what_the_cpp_backend_does_not_know_is_refused_here_too(text):
    config = parse(f'name: "a" backend: "onnxruntime" {text}')
    assert faults(config)
    with pytest.raises(ValueError, match=r"calls|execution_mode|level"):
        session_options(config)


@pytest.mark.parametrize(
    ("level", "expected"),
    [(-1, "ORT_ENABLE_BASIC"), (0, "ORT_ENABLE_ALL"), (1, "ORT_ENABLE_EXTENDED"),
     (2, "ORT_DISABLE_ALL")],
)  # fmt: skip
def test_optimization_levels_have_the_cpp_backends_meaning(level, expected):
    options = session_options(parse(f"optimization {{ graph {{ level: {level} }} }}"))
    assert options.graph_optimization_level.name == expected


def test_thread_settings_reach_the_session():
    options = session_options(
        parse(
            'parameters { key: "intra_op_thread_count" value { string_value: "3" } }'
            'parameters { key: "inter_op_thread_count" value { string_value: "2" } }'
            'parameters { key: "execution_mode" value { string_value: "1" } }'
        )
    )
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 2)
    assert options.execution_mode == ort.ExecutionMode.ORT_PARALLEL


def test_a_missing_file_is_told_with_the_command_that_builds_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model.onnx.*python -m export --profile demo"):
        build_session(tmp_path / "model.onnx", parse('name: "a"'))


@pytest.mark.skipif(
    "CUDAExecutionProvider" in ort.get_available_providers(), reason="this ONNX Runtime has CUDA"
)
def test_a_gpu_instance_without_cuda_is_refused(repository):
    config = model_config.read("transposing", [repository])
    with pytest.raises(RuntimeError, match="wants KIND_GPU, this onnxruntime has"):
        build_session(config.version_folder / "model.onnx", config, device_id=0)


@pytest.mark.gpu
@pytest.mark.skipif(
    "CUDAExecutionProvider" not in ort.get_available_providers(), reason="needs onnxruntime-gpu"
)
def test_a_gpu_instance_runs_on_cuda(repository):
    config = model_config.read("transposing", [repository])
    session = build_session(config.version_folder / "model.onnx", config, device_id=0)
    [transposed] = session.run(None, {"x": np.eye(2, 3, dtype=np.float32)})
    assert transposed.shape == (3, 2)


class Node:
    def __init__(self, name: str, kind: str, shape: list) -> None:
        self.name, self.type, self.shape = name, kind, shape


def checked(dims: str, shape: list, batch: int = 0, kind: str = "tensor(float)") -> None:
    config = parse(
        f'name: "a" max_batch_size: {batch} input {{ name: "x" data_type: TYPE_FP32 dims: {dims} }}'
    )
    check_graph(config, [Node("x", kind, shape)], [])


@pytest.mark.parametrize(
    ("dims", "shape", "batch"),
    [
        ("[ -1, 3 ]", ["H", 3], 0),
        ("[ -1 ]", [None], 0),
        ("[ 3 ]", ["T"], 0),
        ("[ -1 ]", [3], 0),
        ("[ 3 ]", ["B", 3], 8),
    ],
)
def test_sizes_agree_where_both_state_one(dims, shape, batch):
    checked(dims, shape, batch)


@pytest.mark.parametrize(
    ("dims", "shape", "batch", "reason"),
    [
        ("[ 4 ]", [3], 0, r"has shape \[3\], config.pbtxt says \[4\]"),
        ("[ -1, -1 ]", [3], 0, "has shape"),
        ("[ 3 ]", [3], 8, r"config.pbtxt says \[-1, 3\]"),
        ("[ 3 ]", [1, 3], 8, "fixed batch axis of 1"),
    ],
)
def test_sizes_that_disagree_are_told(dims, shape, batch, reason):
    with pytest.raises(ValueError, match=reason):
        checked(dims, shape, batch)


def test_every_difference_of_names_is_told_at_once():
    config = parse(
        'name: "a" input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }'
        'output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }'
    )
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        check_graph(
            config, [Node("image", "tensor(float)", [1])], [Node("z", "tensor(float)", [1])]
        )
    for part in ("input 'image' is not in config.pbtxt", "input 'x' is not", "output 'y' is not"):
        assert part in str(caught.value)


def test_a_graph_may_have_outputs_the_configuration_leaves_out():
    config = parse('name: "a" input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }')
    check_graph(config, [Node("x", "tensor(float)", [1])], [Node("z", "tensor(float)", [1])])
