"""Deformable cross-attention of a few queries, computed from the sampled pixels alone.

Exact rewrites of `DeformableAttention` over a whole memory, and of `MemoryRead` before it. A query
samples at most heads * levels * points * 4 pixels. Everything between those pixels and the output
is linear, so pixels are gathered, summed by weight and only then projected; and of the memory read
only the rows of sampled stride-8 pixels are computed. Which pixels a layer samples depends on the
layer before, so each layer gathers its own.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.tpp.deformable_layer import DeformableAttention, Shapes, level_sizes
from training.networks.tpp.profile import LEVELS


@dataclass(frozen=True)
class SampledMemory:
    """A memory that is read where it is sampled; a `training.networks.tpp.decoder.Read`."""

    memory: Tensor
    """(B, S, C) from the encoder, the levels one after the other, without padding."""
    shapes: Shapes
    """(h, w) of every level."""
    keys: Tensor | None = None
    """(B, C, h_8, w_8) of the memory read. None: the memory is read as the encoder left it."""
    values: Tensor | None = None
    """(B, C, h_8, w_8), likewise."""

    def __call__(
        self, attention: DeformableAttention, queries: Tensor, references: Tensor
    ) -> Tensor:
        """Read: queries (B, N, C), references (B, N, 2 or 4) -> (B, N, C)."""
        references = references[:, :, None].expand(-1, -1, LEVELS, -1)
        locations, weights = attention.sampling(queries, references, self.shapes)
        rows, shares = sampled_pixels(locations, weights, self.shapes)
        pixels = self._gather(rows)  # (B, N, M, L, 4 P, C)
        if self.keys is None:
            mixed = _summed(pixels.flatten(-3, -2), shares.flatten(-2))
        else:
            coarser = pixels[..., 1:, :, :].flatten(-3, -2), shares[..., 1:, :].flatten(-2)
            mixed = self._read(pixels[..., 0, :, :], shares[..., 0, :]) + _summed(*coarser)
        return attention.output_proj(_project(attention.value_proj, mixed, shares.sum((-2, -1))))

    def _gather(self, rows: Tensor) -> Tensor:
        """Pixels (..., C) of the memory at rows (B, ...)."""
        items, pixels, _ = self.memory.shape
        first = torch.arange(items, device=rows.device) * pixels
        flat = rows + first.view(-1, *[1] * (rows.ndim - 1))
        return self.memory.flatten(0, 1)[flat]

    def _read(self, pixels: Tensor, shares: Tensor) -> Tensor:
        """The memory read of pixels (B, N, M, R, C), summed by shares (B, N, M, R)."""
        assert self.keys is not None
        assert self.values is not None
        keys, values = self.keys.flatten(2)[:, None], self.values.flatten(2)[:, None]
        scores = pixels.flatten(2, 3) @ keys * pixels.shape[-1] ** -0.5  # (B, N, M * R, S_8)
        found = scores.softmax(dim=-1).unflatten(2, pixels.shape[2:4])
        return _summed(found, shares) @ values.transpose(-1, -2)


def sampled_pixels(locations: Tensor, weights: Tensor, shapes: Shapes) -> tuple[Tensor, Tensor]:
    """Bilinear samples written out as pixels and their shares.

    Args:
        locations: (B, N, M, L, P, 2), maps from 0 to 1.
        weights: (B, N, M, L, P).
        shapes: (h, w) of every level.

    Returns:
        rows (B, N, M, L, 4 P) int64 into the memory's pixels, and their shares, of the same shape.
        Pixels outside a map have no share and some valid row.
    """
    # as floats: float32 holds whole numbers exactly up to 2 ** 24
    sizes = level_sizes(shapes, locations)[:, None]
    last, columns, pixels = sizes - 1, sizes[..., 0], sizes.prod(dim=-1)
    first = pixels.cumsum(dim=0) - pixels
    places = locations * sizes - 0.5
    rows, shares = [], []
    for corner in ((0, 0), (1, 0), (0, 1), (1, 1)):
        pixel = places.floor() + places.new_tensor(corner)
        inside = ((pixel >= 0) & (pixel <= last)).all(dim=-1)
        share = (1 - (places - pixel).abs()).prod(dim=-1)
        shares.append(weights * share * inside)
        pixel = pixel.clamp(min=0).minimum(last)
        rows.append((first + pixel[..., 1] * columns + pixel[..., 0]).long())
    return torch.cat(rows, dim=-1), torch.cat(shares, dim=-1)


def _summed(pixels: Tensor, shares: Tensor) -> Tensor:
    """Pixels (..., R, C) summed by shares (..., R): (..., C)."""
    return (shares[..., None, :] @ pixels)[..., 0, :]


def _project(value_proj: nn.Linear, mixed: Tensor, shares: Tensor) -> Tensor:
    """The value projection of sums of pixels (B, N, M, C), of total shares (B, N, M).

    Each head has its own rows of the projection; its bias counts as often as pixels do.
    """
    heads = mixed.shape[2]
    weight = value_proj.weight.unflatten(0, (heads, -1))  # (M, D, C)
    bias = value_proj.bias.unflatten(0, (heads, -1))
    projected = _summed(weight.transpose(-1, -2), mixed)
    return (projected + shares[..., None] * bias).flatten(2)


def convolve_pixels(convolution: nn.Conv2d, pixels: Tensor) -> Tensor:
    """The part of a memory convolution that needs no mask: pixels (B, C, h, w) -> the same."""
    return F.conv2d(pixels, convolution.weight[:, 1:], convolution.bias, padding=1)


def convolve_mask(convolution: nn.Conv2d, mask_logits: Tensor) -> Tensor:
    """The part of a memory convolution over the mask: (B, h, w) -> (B, C, h, w)."""
    return F.conv2d(mask_logits[:, None], convolution.weight[:, :1], padding=1)
