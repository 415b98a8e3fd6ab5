"""How multi-scale deformable attention is written into an exported graph: the one place that says.

`training.networks.deformable_attention` defines it and its axes. Shapes of levels become constants
of the graph; N and Q stay free. Every statement is written at opset 18: from 20 on, GridSample's
"bilinear" is called "linear", which TensorRT's importer reads as nearest (`docs/plugins.md`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from export.plugins.deformable_attention import NAMESPACE, OPERATOR
from training.networks.deformable_attention import Statement, by_grid_sample, computed_by


@contextmanager
def deformable_attention_as(name: str) -> Iterator[None]:
    """Compute or export deformable attention in another way inside this context.

    Args:
        name: A key of `IMPLEMENTATIONS`: "torch" as it is trained, "onnx" for ONNX Runtime,
            "tensorrt" as one node for the kernel in `export/plugins/`.

    Raises:
        ValueError: if there is no implementation of that name.
    """
    if name not in IMPLEMENTATIONS:
        raise ValueError(f"deformable attention: expected one of {[*IMPLEMENTATIONS]}, got {name}")
    with computed_by(IMPLEMENTATIONS[name]):
        yield


def for_onnx(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Gather the pixels where few are read, else sample whole maps; the example's Q decides.

    ONNX Runtime's GridSample wants every map channels first, whatever is read of it: gathering is
    5 to 25 times as fast for one query and takes 2 to 4 times as long for a query a pixel.
    """
    queries, levels, points = (sampling_locations.shape[axis] for axis in (1, 3, 4))
    few = int(queries) * int(levels) * int(points) * 4 < int(value.shape[1])
    statement = by_gather if few else by_grid_sample
    return statement(value, spatial_shapes, sampling_locations, attention_weights)


def by_gather(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """One Gather of the four neighbours of every location of every level, and one product."""
    tokens, heads, channels = value.shape[1:]
    sizes = value.new_tensor([[[width, height]] for height, width in spatial_shapes])  # (L, 1, 2)
    areas = sizes.prod(dim=-1)
    starts = areas.cumsum(dim=0) - areas  # (L, 1)
    pixels = sampling_locations * sizes - 0.5
    rows, shares = [], []
    for offset in ((0, 0), (1, 0), (0, 1), (1, 1)):
        corners = pixels.floor() + value.new_tensor(offset)
        nearest = torch.minimum(corners.clamp(min=0), sizes - 1)
        share = (1 - (pixels - corners).abs()) * (nearest == corners).to(value.dtype)
        shares.append(share[..., 0] * share[..., 1] * attention_weights)
        rows.append(starts + nearest[..., 1] * sizes[..., 0] + nearest[..., 0])
    token = torch.cat(rows, dim=-1).flatten(3).long()  # (N, Q, M, L * P * 4)
    weights = torch.cat(shares, dim=-1).flatten(3)[..., None, :]
    item = torch.arange(value.shape[0], device=value.device)[:, None, None, None]
    head = torch.arange(heads, device=value.device)[:, None]
    corners = value.reshape(-1, channels)[(item * tokens + token) * heads + head]
    return (weights @ corners).flatten(2)


def for_tensorrt(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """One node for the kernel in `export/plugins/`.

    Locations and weights are float32, also beside values in float16.

    Raises:
        ValueError: if D is no multiple of 4.
    """
    if value.shape[3] % 4:
        raise ValueError(
            "value: the CUDA kernel reads 4 channels at a time, expected D to be a multiple of 4, "
            f"got {int(value.shape[3])}; export with deformable_attention_as('onnx')"
        )
    shapes = torch.tensor([[int(side) for side in shape] for shape in spatial_shapes])
    areas = shapes.prod(dim=1)
    output = _TensorRtNode.apply(
        value,
        shapes.int(),
        (areas.cumsum(dim=0) - areas).int(),
        sampling_locations.float(),
        attention_weights.float(),
    )
    return output.flatten(2)


class _TensorRtNode(torch.autograd.Function):
    """The node in a graph, grid samples in torch."""

    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        sampling_locations: Tensor,
        attention_weights: Tensor,
    ) -> Tensor:
        """(N, S, M, D), (L, 2), (L,), (N, Q, M, L, P, 2), (N, Q, M, L, P) -> (N, Q, M, D)."""
        shapes = [(height, width) for height, width in spatial_shapes.tolist()]
        locations, weights = sampling_locations.to(value), attention_weights.to(value)
        return by_grid_sample(value, shapes, locations, weights).unflatten(2, value.shape[2:])

    @staticmethod
    def symbolic(g: Any, *inputs: Any) -> Any:
        """Write the node, with the attributes TensorRT's parser looks a plugin up by."""
        _items, _tokens, heads, channels = inputs[0].type().varyingSizes()
        return g.op(
            f"trt.plugins::{OPERATOR}",
            *inputs,
            plugin_namespace_s=NAMESPACE,
            plugin_version_s="1",
            aot_i=1,
        ).setType(inputs[0].type().with_sizes([None, None, heads, channels]))


IMPLEMENTATIONS: dict[str, Statement] = {
    "torch": by_grid_sample,
    "onnx": for_onnx,
    "tensorrt": for_tensorrt,
}
