"""Builds the ONNX Runtime session of a model from its `config.pbtxt`, and checks one by the other.

Reads the settings that NVIDIA's C++ backend `onnxruntime` documents, under its names and with its
meaning (https://github.com/triton-inference-server/onnxruntime_backend), so that one configuration
serves with either. Knows nothing of requests; the backend `onnxruntime` runs the session.
"""

from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort

from serving.model_config import ModelConfig, TensorSpec

DOCUMENTED_PARAMETERS = frozenset(
    {
        "intra_op_thread_count",
        "inter_op_thread_count",
        "execution_mode",
        "enable_mem_arena",
        "enable_mem_pattern",
        "memory.enable_memory_arena_shrinkage",
        "session.use_device_allocator_for_initializers",
        "cudnn_conv_algo_search",
        "gpu_mem_limit",
        "arena_extend_strategy",
        "do_copy_in_default_stream",
    }
)
"""Parameters the C++ backend reads."""

# The numbers are the C++ backend's: 2 switches optimization off.
_LEVELS = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    0: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}

_CUDA_CHOICES = {
    "cudnn_conv_algo_search": {"0": "EXHAUSTIVE", "1": "HEURISTIC", "2": "DEFAULT"},
    "arena_extend_strategy": {"0": "kNextPowerOfTwo", "1": "kSameAsRequested"},
}

_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(bfloat16)": "TYPE_BF16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}


def build_session(
    path: Path, config: ModelConfig, device_id: int | None = None
) -> ort.InferenceSession:
    """Load an ONNX file with the settings of its model's configuration.

    Args:
        path: The ONNX file.
        config: The model's configuration.
        device_id: CUDA device to run on; None runs on the CPU.

    Raises:
        FileNotFoundError: No such file; the text has the command that writes it.
        ValueError: A setting the C++ backend does not know, or a graph unlike the configuration.
        RuntimeError: CUDA was asked for and is not to be had.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"model {config.name!r} lacks {path}: build it with python -m export --profile demo"
        )
    session = ort.InferenceSession(
        str(path), session_options(config), providers=_providers(config, device_id)
    )
    # ONNX Runtime falls back to the CPU when the provider's libraries do not load, and only logs.
    if device_id is not None and "CUDAExecutionProvider" not in session.get_providers():
        raise RuntimeError(
            f"model {config.name!r} wants KIND_GPU, but CUDAExecutionProvider did not start; "
            "see ONNX Runtime's message above, or set KIND_CPU"
        )
    check_graph(config, session.get_inputs(), session.get_outputs())
    return session


def session_options(config: ModelConfig) -> ort.SessionOptions:
    """ONNX Runtime's options for a configuration.

    Raises:
        ValueError: An unknown parameter or a value out of range.
    """
    unknown = set(config.parameters) - DOCUMENTED_PARAMETERS
    if unknown:
        raise ValueError(
            f"model {config.name!r} has parameters that backend onnxruntime does not know: "
            f"{', '.join(sorted(unknown))}; it knows {', '.join(sorted(DOCUMENTED_PARAMETERS))}"
        )
    options = ort.SessionOptions()
    level = config.proto.optimization.graph.level
    if level not in _LEVELS:
        raise ValueError(f"optimization graph level is {level}, expected -1, 0, 1 or 2")
    options.graph_optimization_level = _LEVELS[level]
    options.intra_op_num_threads = _count(config, "intra_op_thread_count", 0)
    options.inter_op_num_threads = _count(config, "inter_op_thread_count", 0)
    # Threads that spin after a run take the cores from the models beside this one: vLLM's step took
    # twice as long.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if _count(config, "execution_mode", 0, most=1):
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    options.enable_cpu_mem_arena = bool(_count(config, "enable_mem_arena", 1, most=1))
    options.enable_mem_pattern = bool(_count(config, "enable_mem_pattern", 1, most=1))
    key = "session.use_device_allocator_for_initializers"
    if key in config.parameters:
        options.add_session_config_entry(key, config.parameters[key])
    return options


def run_options(config: ModelConfig) -> ort.RunOptions:
    """Options of each run: `memory.enable_memory_arena_shrinkage` is one of these."""
    options = ort.RunOptions()
    key = "memory.enable_memory_arena_shrinkage"
    if key in config.parameters:
        options.add_run_config_entry(key, config.parameters[key])
    return options


def check_graph(
    config: ModelConfig, inputs: Sequence[ort.NodeArg], outputs: Sequence[ort.NodeArg]
) -> None:
    """Compare a graph's tensors with the configuration's.

    The configuration must name every input; it may leave outputs out.

    Raises:
        ValueError: Lists every difference of name, type and dimensions.
    """
    faults = []
    graph_inputs = {node.name: node for node in inputs}
    graph_outputs = {node.name: node for node in outputs}
    for name in graph_inputs.keys() - set(config.input_names):
        faults.append(f"the graph's input {name!r} is not in config.pbtxt")
    for what, specs, nodes in (
        ("input", config.inputs, graph_inputs),
        ("output", config.outputs, graph_outputs),
    ):
        for spec in specs:
            if spec.name in nodes:
                faults += _differences(what, spec, nodes[spec.name], config.max_batch_size > 0)
            else:
                faults.append(f"{what} {spec.name!r} is not in the graph, it has {sorted(nodes)}")
    if faults:
        raise ValueError(
            f"model {config.name!r}: graph and config.pbtxt differ: {'; '.join(faults)}"
        )


def _differences(what: str, spec: TensorSpec, node: ort.NodeArg, batched: bool) -> list[str]:
    found = []
    if _TYPES.get(node.type) != spec.data_type:
        found.append(f"{what} {spec.name!r} is {node.type}, config.pbtxt says {spec.data_type}")
    # Dynamic dimensions of a graph are names or None.
    shape = [size if isinstance(size, int) and size >= 0 else -1 for size in node.shape]
    dims = [-1, *spec.dims] if batched else list(spec.dims)
    same = len(shape) == len(dims) and all(
        -1 in (have, want) or have == want for have, want in zip(shape, dims, strict=True)
    )
    if not same:
        found.append(f"{what} {spec.name!r} has shape {shape}, config.pbtxt says {dims}")
    elif batched and shape[0] != -1:
        found.append(
            f"{what} {spec.name!r} has a fixed batch axis of {shape[0]}: export it dynamic, or set "
            "max_batch_size 0 and write the axis into dims"
        )
    return found


def _providers(config: ModelConfig, device_id: int | None) -> list:
    if device_id is None:
        return ["CPUExecutionProvider"]
    available = ort.get_available_providers()
    if "CUDAExecutionProvider" not in available:
        raise RuntimeError(
            f"model {config.name!r} wants KIND_GPU, this onnxruntime has {', '.join(available)}: "
            "install onnxruntime-gpu, or set KIND_CPU"
        )
    settings: dict[str, str] = {"device_id": str(device_id)}
    for key in ("gpu_mem_limit", "do_copy_in_default_stream", *_CUDA_CHOICES):
        if key in config.parameters:
            value = config.parameters[key]
            settings[key] = _CUDA_CHOICES.get(key, {}).get(value, value)
    for accelerator in config.proto.optimization.execution_accelerators.gpu_execution_accelerator:
        if accelerator.name != "cuda":
            raise ValueError(
                f"accelerator {accelerator.name!r} of model {config.name!r} needs the C++ backend"
            )
        settings.update(accelerator.parameters)
    return [("CUDAExecutionProvider", settings), "CPUExecutionProvider"]


def _count(config: ModelConfig, key: str, default: int, most: int = 1024) -> int:
    text = config.parameters.get(key, str(default))
    if not text.isdecimal() or int(text) > most:
        raise ValueError(f"parameter {key} is {text!r}, expected a number from 0 to {most}")
    return int(text)
