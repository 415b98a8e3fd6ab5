"""Axial slices of a synthetic abdomen in order. No patient's data, of no clinical worth.

The bodies are those of `training.data.phantoms`; one window holds for the whole stack.
"""

import numpy as np

from training.data.lesion import LESION
from training.data.phantom_views import PHANTOM_TARGETS, PhantomViewConfig, masks_of
from training.data.phantoms import REMOVABLE, Z_RANGE_MM, draw_anatomy, render_slice, window
from training.data.sequences.sequence import Frame, Scene


class AbdomenStack(Scene):
    """A stack of slices through one organ or the lesion, which is drawn as well.

    Args:
        seed: Same seed, same body and stack.
        size_px: Side of the square picture.
        length: Slices.
        through: Name of what the stack runs through; None draws it.
        config: Ranges; those of the picture's size are not used.

    Raises:
        ValueError: if nothing has that name.
    """

    modality = "CT"
    names = tuple(target.name for target in PHANTOM_TARGETS)
    has_sides = True

    def __init__(
        self,
        seed: int,
        size_px: int = 128,
        length: int = 16,
        through: str | None = None,
        config: PhantomViewConfig | None = None,
    ) -> None:
        ranges = PhantomViewConfig() if config is None else config
        rng = np.random.default_rng((seed, 3))  # the body takes streams 0 to 2
        aim = int(rng.integers(len(self.names)))
        if through is not None:
            if through not in self.names:
                raise ValueError(f"through: expected one of {self.names}, got {through!r}")
            aim = self.names.index(through)
        label = PHANTOM_TARGETS[aim].id
        self.length = length
        self._size_px = size_px
        # An organ that is asked for is not among those removed.
        self._anatomy = draw_anatomy(
            seed,
            missing=None if label == LESION.id else _removed(rng, self.names[aim]),
            lesion=True if label == LESION.id else None,
        )
        self._spacing_mm = rng.uniform(*ranges.field_of_view_mm) / size_px
        self.pixel_spacing_mm = (self._spacing_mm, self._spacing_mm)
        self.slice_spacing_mm = float(rng.uniform(3.0, 6.0))
        self._middle_mm = tuple(rng.uniform(-ranges.shift_mm, ranges.shift_mm, 2))
        self._level_hu, self._width_hu = (
            rng.uniform(*ranges.level_hu),
            rng.uniform(*ranges.width_hu),
        )

        target = [
            solid
            for solid in self._anatomy.solids
            if (solid.lesion if label == LESION.id else solid.label == label and not solid.lesion)
        ]
        # Vessels run far beyond the part of the body that is drawn.
        low = min((s.centres_mm - 0.7 * s.radii_mm)[:, 2].min() for s in target)
        high = max((s.centres_mm + 0.7 * s.radii_mm)[:, 2].max() for s in target)
        height = rng.uniform(*np.clip([low, high], *Z_RANGE_MM))
        direction = rng.choice([-1.0, 1.0])
        self._step_mm = direction * self.slice_spacing_mm
        self._first_mm = height - self._step_mm * (length - 1) * rng.uniform(0.35, 0.65)

    def frame(self, index: int) -> Frame:
        """Cut one slice; masks (14, H, W), a lesion inside its organ's."""
        cut = render_slice(
            self._anatomy,
            self._first_mm + self._step_mm * index,
            size_px=(self._size_px, self._size_px),
            spacing_mm=self._spacing_mm,
            middle_mm=self._middle_mm,
        )
        return Frame(window(cut.hu, self._level_hu, self._width_hu), masks_of(cut).numpy())


def _removed(rng: np.random.Generator, kept: str) -> list[str]:
    """Organs that are missing: two bodies of five lack one, but not the one that is kept."""
    lost = str(rng.choice([name for name in REMOVABLE if name != kept]))
    return [lost] if rng.random() < 0.4 else []
