"""TensorRT's view of `deformable_attention.cu`: shapes, launch and arguments of one node.

A plugin with an ahead-of-time implementation: TensorRT stores the compiled kernel in the engine,
which then runs without Python and without a library of ours.
"""

from functools import cache
from pathlib import Path

from export.plugins.ptx import compile_ptx

NAMESPACE = "saymask"

OPERATOR = "MultiscaleDeformableAttnPlugin_TRT"
"""The name and the inputs of TensorRT's own plugin, so that one graph serves both."""

SOURCE = Path(__file__).with_suffix(".cu")

BLOCK = 256
"""Threads of a block."""


@cache
def register() -> None:
    """Make the plugin known to the TensorRT of this process.

    Raises:
        LookupError, ValueError: if the kernel cannot be compiled, see `compile_ptx`.
    """
    # Graphs with this node are written on machines that have no TensorRT.
    import tensorrt as trt
    import tensorrt.plugin as trtp

    kernels = {
        trt.float32: "deformable_attention_float32",
        trt.float16: "deformable_attention_float16",
    }
    ptx = compile_ptx(SOURCE)

    @trtp.register(f"{NAMESPACE}::{OPERATOR}")
    def describe(
        value: trtp.TensorDesc,
        spatial_shapes: trtp.TensorDesc,
        level_start_index: trtp.TensorDesc,
        sampling_locations: trtp.TensorDesc,
        attention_weights: trtp.TensorDesc,
    ) -> trtp.TensorDesc:
        output = value.like()  # (N, S, M, D)
        output.shape_expr[1] = attention_weights.shape_expr[1]  # (N, Q, M, L, P)
        return output

    @trtp.aot_impl(f"{NAMESPACE}::{OPERATOR}")
    def launch(
        value: trtp.TensorDesc,
        spatial_shapes: trtp.TensorDesc,
        level_start_index: trtp.TensorDesc,
        sampling_locations: trtp.TensorDesc,
        attention_weights: trtp.TensorDesc,
        outputs: tuple[trtp.TensorDesc],
        tactic: int,
    ) -> tuple[str | bytes, str | bytes, trtp.KernelLaunchParams, trtp.SymIntExprs]:
        if value.dtype not in kernels:
            raise ValueError(f"{OPERATOR}: expected value in {[*kernels]}, got {value.dtype}")
        items, tokens, heads, channels = value.shape_expr
        _, queries, _, levels, points = attention_weights.shape_expr
        quads = channels // 4
        threads = items * queries * heads * quads
        numbers = trtp.SymIntExprs(7)
        for index, number in enumerate((threads, tokens, queries, heads, quads, levels, points)):
            numbers[index] = trtp.SymInt32(number)
        shape = trtp.KernelLaunchParams(grid_x=trtp.cdiv(threads, BLOCK), block_x=BLOCK)
        return kernels[value.dtype], ptx, shape, numbers
