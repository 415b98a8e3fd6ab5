"""The kernel, launched as the plugin asks TensorRT to: thread by thread on a CPU, and on a GPU."""

import ctypes
import io
import shutil
import subprocess
import sys
import types
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from export.deformable_attention import deformable_attention_as
from export.plugins import deformable_attention as plugin
from export.plugins.engine import build_engine
from export.plugins.ptx import compile_ptx
from training.networks.deformable_attention import by_definition, by_grid_sample
from training.networks.deformable_attention import deformable_attention as attention

SHAPES = [(9, 12), (5, 6), (2, 3)]
ENCODER_SHAPES = [(45, 45), (23, 23), (12, 12), (6, 6)]
"""Levels of a frame of 360 x 360."""

DTYPES = [torch.float32, torch.float16]


def example(shapes, items, queries, heads, channels, points, dtype=torch.float32):
    """The five inputs of the node; locations lie up to 0.3 outside the maps."""
    torch.manual_seed(queries)
    areas = torch.tensor(shapes).prod(dim=1)
    layout = (items, queries, heads, len(shapes), points)
    return (
        torch.randn(items, int(areas.sum()), heads, channels).to(dtype),
        torch.tensor(shapes, dtype=torch.int32),
        (areas.cumsum(0) - areas).int(),
        torch.rand(*layout, 2) * 1.6 - 0.3,
        torch.rand(layout).flatten(3).softmax(-1).view(layout),
    )


def expected(inputs):
    value, shapes, _, locations, weights = (tensor.cpu() for tensor in inputs)
    doubles = by_definition(value.double(), shapes.tolist(), locations.double(), weights.double())
    return doubles.unflatten(2, value.shape[2:])


def assert_is_the_definition(found, inputs):
    tolerance = 1e-5 if found.dtype == torch.float32 else 2e-3
    torch.testing.assert_close(
        found.cpu().double(), expected(inputs), rtol=tolerance, atol=tolerance
    )


@dataclass
class Description:
    """TensorRT's description of a tensor, with numbers for symbols."""

    shape_expr: list
    dtype: torch.dtype

    def like(self):
        return replace(self, shape_expr=[*self.shape_expr])


@pytest.fixture
def registered(monkeypatch):
    """The plugin's two functions, as a TensorRT of plain numbers gets them."""
    functions = {}

    def decorator(kind, name):
        return lambda function: functions.setdefault((kind, name), function)

    trtp = types.SimpleNamespace(
        TensorDesc=Description,
        SymInt32=int,
        SymIntExprs=type("SymIntExprs", (list,), {"__init__": lambda s, n: s.extend([0] * n)}),
        KernelLaunchParams=types.SimpleNamespace,
        cdiv=lambda dividend, divisor: -(-dividend // divisor),
        register=partial(decorator, "register"),
        aot_impl=partial(decorator, "aot_impl"),
    )
    trt = types.SimpleNamespace(float32=torch.float32, float16=torch.float16, plugin=trtp)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setitem(sys.modules, "tensorrt.plugin", trtp)
    monkeypatch.setattr(plugin, "compile_ptx", lambda source: b"ptx")
    plugin.register.__wrapped__()
    name = "saymask::MultiscaleDeformableAttnPlugin_TRT"
    return functions["register", name], functions["aot_impl", name]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """The unchanged `.cu` file for this machine's processor."""
    if not shutil.which("g++"):
        pytest.skip("needs g++")
    folder = Path(__file__).parent / "cuda_on_cpu"
    library = tmp_path_factory.mktemp("kernels") / "kernels.so"
    define = f'-DKERNELS="{plugin.SOURCE}"'
    command = ["g++", "-O1", "-std=c++17", "-shared", "-fPIC", f"-I{folder}", define]
    source = folder / "deformable_attention.cpp"
    subprocess.run([*command, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def pointers(tensors):
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def on_cpu(registered, kernels, inputs):
    """Run the kernel as the plugin wants it launched."""
    describe, launch = registered
    descriptions = [Description(list(tensor.shape), tensor.dtype) for tensor in inputs]
    described = describe(*descriptions)
    kernel, ptx, shape, numbers = launch(*descriptions, (described,), 0)
    assert ptx == b"ptx"
    output = torch.full(described.shape_expr, torch.nan, dtype=described.dtype)
    getattr(kernels, f"launch_{kernel}")(
        shape.grid_x,
        shape.block_x,
        pointers(inputs),
        (ctypes.c_int * 7)(*numbers),
        ctypes.c_void_p(output.data_ptr()),
    )
    return output


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("items", "queries", "heads", "channels", "points"),
    [(1, 1, 1, 4, 1), (3, 11, 3, 8, 2), (2, 37, 8, 32, 4)],
)
def test_the_kernel_computes_the_definition(
    registered, kernels, dtype, items, queries, heads, channels, points
):
    inputs = example(SHAPES, items, queries, heads, channels, points, dtype)
    assert_is_the_definition(on_cpu(registered, kernels, inputs), inputs)


def test_nothing_outside_the_maps_is_read(registered, kernels):
    value, shapes, starts, locations, weights = example([(3, 4)], 1, 64, 1, 4, 4)
    guarded = torch.full((3 * value.numel(),), torch.nan)
    middle = guarded[value.numel() : 2 * value.numel()].view_as(value).copy_(value)
    inputs = (middle, shapes, starts, locations, weights)
    assert_is_the_definition(on_cpu(registered, kernels, inputs), inputs)
    for outside in (torch.nan, torch.inf, -torch.inf, 1e30, -1e30):
        locations[0, 0] = outside
        assert on_cpu(registered, kernels, inputs)[0, 0].abs().max() == 0


def test_other_types_are_refused(registered):
    inputs = example(SHAPES, 1, 1, 1, 4, 1, torch.float64)
    descriptions = [Description(list(tensor.shape), tensor.dtype) for tensor in inputs]
    with pytest.raises(ValueError, match=r"expected value in .*float16.*, got torch\.float64"):
        registered[1](*descriptions, (descriptions[0],), 0)


def on_gpu(ptx, inputs):
    """Launch compiled PTX on tensors of the current device, by CUDA's driver."""
    driver = ctypes.CDLL("libcuda.so.1")

    def checked(name, *arguments):
        assert getattr(driver, name)(*arguments) == 0, name

    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    value, weights = inputs[0], inputs[4]
    items, queries, heads, levels, points = weights.shape
    output = value.new_empty(items, queries, heads, value.shape[3])
    name = f"deformable_attention_{str(value.dtype).removeprefix('torch.')}"
    checked("cuModuleLoadData", ctypes.byref(module), ptx)
    checked("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
    quads = value.shape[3] // 4
    threads = items * queries * heads * quads
    numbers = (threads, value.shape[1], queries, heads, quads, levels, points)
    arguments = [
        *(ctypes.c_void_p(tensor.data_ptr()) for tensor in inputs),
        *(ctypes.c_int(number) for number in numbers),
        ctypes.c_void_p(output.data_ptr()),
    ]
    addresses = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))

    def launch():
        grid, block = (-(-threads // plugin.BLOCK), 1, 1), (plugin.BLOCK, 1, 1)
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        checked("cuLaunchKernel", function, *grid, *block, 0, stream, addresses, None)
        return output

    return launch


def milliseconds(run, runs=50):
    """Mean of one run on the device, after five that do not count."""
    for _ in range(5):
        run()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(runs):
        run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / runs


@pytest.mark.gpu
@pytest.mark.skipif(not shutil.which("nvcc"), reason="needs nvcc")
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_kernel_computes_the_definition_on_a_gpu_and_beats_grid_samples(dtype, record_property):
    inputs = [tensor.cuda() for tensor in example(ENCODER_SHAPES, 2, 2734, 8, 32, 4, dtype)]
    launch = on_gpu(compile_ptx(plugin.SOURCE), inputs)
    assert_is_the_definition(launch(), inputs)
    value, _, _, locations, weights = inputs
    fused = milliseconds(launch)
    sampled = milliseconds(
        lambda: by_grid_sample(value, ENCODER_SHAPES, locations.to(dtype), weights.to(dtype))
    )
    record_property("fused_ms", fused)
    record_property("grid_sample_ms", sampled)
    assert fused < sampled


class Attention(nn.Module):
    def forward(self, value, locations, weights):
        return attention(value, ENCODER_SHAPES, locations, weights)


def engine(trt, file, implementation, inputs, stock_plugin=False):
    """Export, build, and return a function that runs the engine on the inputs."""
    named = dict(zip(("value", "locations", "weights"), inputs, strict=True))
    graph = io.BytesIO()
    with deformable_attention_as(implementation):
        torch.onnx.export(
            Attention(),
            tuple(tensor.cpu() for tensor in inputs),
            graph,
            input_names=list(named),
            output_names=["output"],
            opset_version=18,
            dynamo=False,
        )
    file.write_bytes(graph.getvalue())
    runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
    loaded = runtime.deserialize_cuda_engine(build_engine(file, {}, stock_plugin))
    context = loaded.create_execution_context()
    output = torch.empty(tuple(loaded.get_tensor_shape("output")), device="cuda")
    for name, tensor in {**named, "output": output}.items():
        context.set_tensor_address(name, tensor.data_ptr())

    def run():
        assert context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
        return output

    run.keeps = (runtime, loaded)
    return run


@pytest.mark.gpu
@pytest.mark.skipif(not shutil.which("nvcc"), reason="needs nvcc")
def test_engines_with_either_plugin_compute_the_definition_and_beat_grid_samples(
    tmp_path, record_property
):
    trt = pytest.importorskip("tensorrt", reason="needs TensorRT")
    inputs = [tensor.cuda() for tensor in example(ENCODER_SHAPES, 1, 2734, 8, 32, 4)]
    named = [inputs[0], *inputs[3:]]
    runs = {
        "saymask": engine(trt, tmp_path / "saymask.onnx", "tensorrt", named),
        "stock": engine(trt, tmp_path / "stock.onnx", "tensorrt", named, stock_plugin=True),
        "grid_sample": engine(trt, tmp_path / "sampled.onnx", "onnx", named),
    }
    times = {name: milliseconds(run) for name, run in runs.items()}
    for name, time in times.items():
        record_property(f"{name}_ms", time)
    for name in ("saymask", "stock"):
        assert_is_the_definition(runs[name]().unflatten(2, (8, 32)), inputs)
    assert times["saymask"] < times["grid_sample"]
