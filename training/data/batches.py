"""Views as network inputs: the SAM frame and the CLIP frame of each, normalised and stacked.

Each frame comes in the two kinds that are served: MediSee and MediRound pad the SAM frame and crop
the CLIP frame, Organ-Seg stretches the first (MedSAM's recipe) and pads to a square before the
second.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from serving.preprocessing import CLIP_MEAN, CLIP_STD, SAM_MEAN, SAM_STD
from training.data.slices import Slice


@dataclass(frozen=True)
class ViewBatch:
    """B views, padded to one square size S."""

    views: Sequence[Slice]
    sam_pixels: Tensor
    """(B, 3, S, S) float32: normalised, then zero-padded at the right and bottom; or stretched."""
    clip_pixels: Tensor
    """(B, 3, S, S) float32: shorter side scaled to S, centre crop, normalised; or all of it."""
    masks: Tensor
    """(B, K, S, S) bool in the SAM frame."""
    clip_masks: Tensor
    """(B, K, S / 4, S / 4) float32: share of each cell of 4 x 4 pixels, in the CLIP frame."""


def collate(
    views: Sequence[Slice], image_size: int, whole: Sequence[bool] | None = None
) -> ViewBatch:
    """Stack views whose longer side is `image_size` already.

    Args:
        views: B views with masks of the same K targets.
        image_size: Side S of both frames.
        whole: For each view, whether it gets Organ-Seg's frames; None: no view does.
    """
    sam, clip, masks, clip_masks = [], [], [], []
    for view, of_organseg in zip(views, whole or [False] * len(views), strict=True):
        rgb = view.image.float().expand(3, -1, -1)
        pad = (0, image_size - rgb.shape[2], 0, image_size - rgb.shape[1])
        if of_organseg:
            sam.append(_stretched(rgb, image_size))
            masks.append(F.interpolate(view.masks[None].float(), image_size)[0] > 0.5)
            around = (pad[1] // 2, pad[1] - pad[1] // 2, pad[3] // 2, pad[3] - pad[3] // 2)
            clip.append(F.pad(_normalise(rgb / 255, CLIP_MEAN, CLIP_STD), around))
            shares = F.pad(view.masks.float(), around)
        else:
            sam.append(F.pad(_normalise(rgb, SAM_MEAN, SAM_STD), pad))
            masks.append(F.pad(view.masks, pad))
            clip.append(_normalise(_clip_frame(rgb, image_size) / 255, CLIP_MEAN, CLIP_STD))
            shares = _clip_frame(view.masks.float() * 255, image_size) / 255
        clip_masks.append(F.avg_pool2d(shares, 4))
    return ViewBatch(
        views,
        sam_pixels=torch.stack(sam),
        clip_pixels=torch.stack(clip),
        masks=torch.stack(masks),
        clip_masks=torch.stack(clip_masks),
    )


def boxes_cxcywh(masks: Tensor) -> Tensor:
    """Tight boxes of masks, relative to the masks' own width and height.

    Args:
        masks: (N, H, W) bool, none empty.

    Returns:
        (N, 4) float32 (cx, cy, w, h) in [0, 1]; the far edge includes its pixel.
    """
    height, width = masks.shape[-2:]
    rows, columns = masks.any(dim=2), masks.any(dim=1)
    top, left = rows.float().argmax(dim=1), columns.float().argmax(dim=1)
    bottom = height - rows.flip(1).float().argmax(dim=1)
    right = width - columns.flip(1).float().argmax(dim=1)
    return torch.stack(
        [
            (left + right) / (2 * width),
            (top + bottom) / (2 * height),
            (right - left) / width,
            (bottom - top) / height,
        ],
        dim=1,
    )


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(..., 4) boxes (cx, cy, w, h) -> (x0, y0, x1, y1)."""
    center, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([center - size / 2, center + size / 2], dim=-1)


def _stretched(rgb: Tensor, size: int) -> Tensor:
    """MedSAM's frame: (3, H, W) in [0, 255] -> (3, S, S) from 0 to 1, aspect ratio not kept."""
    pixels = F.interpolate(rgb[None], (size, size), mode="bicubic", antialias=True)[0]
    pixels = pixels.round().clamp(0, 255)
    low, high = pixels.amin(), pixels.amax()
    return (pixels - low) / (high - low).clamp(min=1e-8)


def _normalise(rgb: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    return (rgb - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def _clip_frame(rgb: Tensor, size: int) -> Tensor:
    height, width = rgb.shape[1:]
    if min(height, width) != size:
        # Cut off, not rounded, as `serving.preprocessing.clip_frame` does.
        shorter = min(height, width)
        shape = (int(size * height / shorter), int(size * width / shorter))
        rgb = F.interpolate(rgb[None], shape, mode="bicubic", antialias=True)[0]
        rgb = rgb.round().clamp(0, 255)
        height, width = shape
    top, left = (height - size) // 2, (width - size) // 2
    return rgb[:, top : top + size, left : left + size]
