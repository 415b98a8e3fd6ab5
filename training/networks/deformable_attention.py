"""Multi-scale deformable attention (Deformable DETR, Eq. 3): one name, several ways to compute it.

Knows nothing of projections, reference points or softmax: those belong to the layer around it.
The exporter puts another statement of the same sum in place with `computed_by`; which ones there
are stands in `export.deformable_attention`.

Axes: N items, S = sum of h * w over the levels, Q queries, M heads, D channels of one head,
L levels, P points of one level.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor

Statement = Callable[[Tensor, Sequence[tuple[int, int]], Tensor, Tensor], Tensor]
"""Takes and returns what `deformable_attention` does."""


def deformable_attention(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Sum bilinear samples of every level's feature map, by weight.

    A location (x, y) of a level of (h, w) pixels is read at (x * w - 0.5, y * h - 0.5), pixel
    centers being whole numbers; pixels outside the map count as zero.

    Args:
        value: (N, S, M, D), the levels one after the other, each row by row.
        spatial_shapes: (h, w) of each of the L levels.
        sampling_locations: (N, Q, M, L, P, 2), (x, y) with the map from 0 to 1; may lie outside.
        attention_weights: (N, Q, M, L, P); the caller makes them sum to one.

    Returns:
        (N, Q, M * D), heads one after the other.

    Raises:
        ValueError: if the shapes do not belong together.
    """
    tokens = sum(height * width for height, width in spatial_shapes)
    items, found, heads, _ = value.shape
    if found != tokens:
        raise ValueError(
            f"value: levels of {list(spatial_shapes)} have {tokens} pixels together, got {found}"
        )
    points = attention_weights.shape[-1]
    layout = (items, sampling_locations.shape[1], heads, len(spatial_shapes), points)
    if sampling_locations.shape != (*layout, 2) or attention_weights.shape != layout:
        raise ValueError(
            "expected sampling_locations (N, Q, M, L, P, 2) and attention_weights (N, Q, M, L, P) "
            f"with N, M, L = {items}, {heads}, {len(spatial_shapes)}, got "
            f"{tuple(sampling_locations.shape)} and {tuple(attention_weights.shape)}"
        )
    return _statement.get()(value, spatial_shapes, sampling_locations, attention_weights)


@contextmanager
def computed_by(statement: Statement) -> Iterator[None]:
    """Let `deformable_attention` be computed by another statement in this context."""
    token = _statement.set(statement)
    try:
        yield
    finally:
        _statement.reset(token)


def by_definition(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """The definition, pixel by pixel: slow, and what every other statement is held against."""
    items = torch.arange(value.shape[0], device=value.device)[:, None, None, None]
    heads = torch.arange(value.shape[2], device=value.device)[:, None]
    output = value.new_zeros(*sampling_locations.shape[:3], value.shape[3])
    start = 0
    for level, (height, width) in enumerate(spatial_shapes):
        x = sampling_locations[..., level, :, 0] * width - 0.5
        y = sampling_locations[..., level, :, 1] * height - 0.5
        for right, below in ((0, 0), (1, 0), (0, 1), (1, 1)):
            column, row = x.floor() + right, y.floor() + below
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            share = (1 - (x - column).abs()) * (1 - (y - row).abs()) * inside
            pixel = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            corner = value[items, start + pixel.long(), heads]  # (N, Q, M, P, D)
            weight = share * attention_weights[..., level, :]
            output = output + (weight[..., None] * corner).sum(dim=-2)
        start += height * width
    return output.flatten(2)


def by_grid_sample(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """One grid sample a level."""
    heads = value.shape[2]
    maps = value.permute(0, 2, 3, 1).flatten(0, 1)  # (N * M, D, S)
    grids = (2 * sampling_locations - 1).transpose(1, 2).flatten(0, 1)  # (N * M, Q, L, P, 2)
    weights = attention_weights.transpose(1, 2).flatten(0, 1)[:, None]  # (N * M, 1, Q, L, P)
    output = torch.zeros((), dtype=value.dtype, device=value.device)
    start = 0
    for level, (height, width) in enumerate(spatial_shapes):
        end = start + height * width
        samples = F.grid_sample(
            maps[:, :, start:end].unflatten(2, (height, width)),
            grids[:, :, level],
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        )  # (N * M, D, Q, P)
        output = output + (samples * weights[:, :, :, level]).sum(dim=-1)
        start = end
    return output.unflatten(0, (-1, heads)).permute(0, 3, 1, 2).flatten(2)


_statement: ContextVar[Statement] = ContextVar("deformable_attention", default=by_grid_sample)
