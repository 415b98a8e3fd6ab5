"""Random axial views of phantoms, windowed, as small pictures with their masks.

The abdominal counterpart of `training.data.slices`. Left stays left: views are not mirrored, since
organs lie on one side. Knows nothing of questions or networks.
"""

from dataclasses import dataclass

import numpy as np
import torch

from training.data.lesion import LESION
from training.data.organs import ORGANS
from training.data.phantoms import Anatomy, PhantomSlice, draw_anatomy, render_slice, window
from training.data.slices import Slice

PHANTOM_TARGETS = (*ORGANS, LESION)
"""What a view has masks of, in this order."""

_TRIES_PER_BODY = 3
_HELD_OUT_SEEDS = 2**31
"""Bodies of the test split have seeds from here on, those of training lower ones."""


@dataclass(frozen=True)
class PhantomViewConfig:
    """How views are drawn. All ranges are uniform."""

    long_side: int = 160
    """Pixels of the longer side, which is the width."""
    field_of_view_mm: tuple[float, float] = (310.0, 400.0)
    """Width of the picture."""
    side_ratio: tuple[float, float] = (0.70, 0.92)
    """Height relative to width."""
    shift_mm: float = 12.0
    """Largest shift of the body in the picture, each way."""
    level_hu: tuple[float, float] = (20.0, 60.0)
    width_hu: tuple[float, float] = (330.0, 480.0)
    """Window."""
    min_area_px: int = 14
    """An organ counts as present from this area on."""


class PhantomSampler:
    """Draws random views of random bodies.

    Args:
        config: Ranges.
        held_out: Draw the bodies of the test split, which training never sees.
    """

    def __init__(self, config: PhantomViewConfig, *, held_out: bool) -> None:
        self.config = config
        self._first_seed = _HELD_OUT_SEEDS if held_out else 0

    def draw(self, rng: np.random.Generator, target: int | None = None) -> Slice:
        """Draw a body, choose a height, cut and window.

        Args:
            rng: Source of everything random.
            target: Index into `PHANTOM_TARGETS` of what must be present; None: any at all, each
                equally often the reason for the height.

        Returns:
            Masks (14, H, W) in the order of `PHANTOM_TARGETS`; a lesion is part of its organ, too.
        """
        while True:
            aim = int(rng.integers(len(PHANTOM_TARGETS))) if target is None else target
            label = PHANTOM_TARGETS[aim].id
            anatomy = draw_anatomy(
                self._first_seed + int(rng.integers(2**31)),
                lesion=True if label == LESION.id else None,
            )
            for _ in range(_TRIES_PER_BODY):
                z_mm = _height_through(anatomy, label, rng)
                if z_mm is None:
                    break
                view = self._view(anatomy, z_mm, rng)
                if view.present[aim]:
                    return view

    def _view(self, anatomy: Anatomy, z_mm: float, rng: np.random.Generator) -> Slice:
        cfg = self.config
        height = round(cfg.long_side * rng.uniform(*cfg.side_ratio))
        cut = render_slice(
            anatomy,
            z_mm,
            size_px=(height, cfg.long_side),
            spacing_mm=rng.uniform(*cfg.field_of_view_mm) / cfg.long_side,
            middle_mm=(
                rng.uniform(-cfg.shift_mm, cfg.shift_mm),
                rng.uniform(-cfg.shift_mm, cfg.shift_mm),
            ),
        )
        picture = window(cut.hu, rng.uniform(*cfg.level_hu), rng.uniform(*cfg.width_hu))
        masks = masks_of(cut)
        return Slice(torch.from_numpy(picture), masks, masks.sum(dim=(1, 2)) >= cfg.min_area_px)


def masks_of(cut: PhantomSlice) -> torch.Tensor:
    """Masks (14, H, W) bool of a slice, in the order of `PHANTOM_TARGETS`."""
    labels = torch.from_numpy(cut.labels)
    organs = torch.stack([labels == organ.id for organ in ORGANS])
    return torch.cat([organs, torch.from_numpy(cut.lesions)[None]])


def _height_through(anatomy: Anatomy, label: int, rng: np.random.Generator) -> float | None:
    """A height that likely cuts an organ or the lesion; None where the body has it not."""
    solids = [
        solid
        for solid in anatomy.solids
        if (solid.lesion if label == LESION.id else solid.label == label and not solid.lesion)
    ]
    if not solids:
        return None
    solid = solids[rng.integers(len(solids))]
    low = float((solid.centres_mm[:, 2] - 0.85 * solid.radii_mm[:, 2]).min())
    high = float((solid.centres_mm[:, 2] + 0.85 * solid.radii_mm[:, 2]).max())
    # Vessels run far beyond the part of the body that is drawn.
    return float(rng.uniform(max(low, -75.0), min(high, 110.0)))
