"""Slices of a labelled MNI template in order: axial, coronal or sagittal, tilted and deformed.

Real T1 averages with the structures of an atlas (`training.data.templates`). One deformation, one
bias field and one contrast hold for the whole stack, so neighbouring slices belong together.

A picture shows, before its rotation, the front (axial) or the top (coronal, sagittal) in row 0 and
the patient's right (axial, coronal) or the front (sagittal) in column 0.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.data.sequences.sequence import Frame, Scene
from training.data.slices import SliceConfig
from training.data.structures import STRUCTURES
from training.data.templates import GRID_SHAPE, GRID_START_MM, Template

Floats = NDArray[np.float64]

Plane = Literal["axial", "coronal", "sagittal"]

_DIRECTIONS: dict[Plane, tuple[tuple[int, ...], ...]] = {
    "axial": ((0, -1, 0), (-1, 0, 0), (0, 0, 1)),
    "coronal": ((0, 0, -1), (-1, 0, 0), (0, 1, 0)),
    "sagittal": ((0, 0, -1), (0, -1, 0), (1, 0, 0)),
}
"""Directions of rows, columns and slices, RAS."""

_BRAIN_MIDDLE_MM = np.array([0.0, -18.0, 8.0])
_NODES = (5, 5, 5)
"""Control points of the smooth fields, over the template's grid."""


class BrainStack(Scene):
    """A stack of slices through one structure, which is drawn as well.

    Args:
        template: The labelled volume.
        seed: Same seed, same stack.
        size_px: Side of the square picture.
        length: Slices.
        through: Name of the structure; None draws it.
        plane: How it is cut; None draws it.
        config: Ranges; those of size and of the picture's sides are not used.

    Raises:
        ValueError: if no structure has that name.
    """

    modality = "MRI"
    names = tuple(structure.name for structure in STRUCTURES)

    def __init__(
        self,
        template: Template,
        seed: int,
        size_px: int = 128,
        length: int = 16,
        through: str | None = None,
        plane: Plane | None = None,
        config: SliceConfig | None = None,
    ) -> None:
        if through is not None and through not in self.names:
            raise ValueError(f"through: expected one of {self.names}, got {through!r}")
        ranges = SliceConfig() if config is None else config
        rng = np.random.default_rng((seed, 0))
        self.length = length
        self._template = template
        self._seed = seed
        self.plane = plane or get_args(Plane)[rng.integers(len(_DIRECTIONS))]
        rows, columns, slices = np.array(_DIRECTIONS[self.plane], dtype=float)

        pixel_mm = rng.uniform(*ranges.field_of_view_mm) / size_px
        stretch = np.exp(rng.uniform(-ranges.anisotropy, ranges.anisotropy) / 2)
        self.pixel_spacing_mm = (pixel_mm * stretch, pixel_mm / stretch)
        self.slice_spacing_mm = float(rng.uniform(2.0, 4.0))

        turn = _rotation(slices, rng.uniform(-1, 1) * np.deg2rad(ranges.in_plane_rotation_deg))
        for axis in (rows, columns):
            turn = turn @ _rotation(axis, rng.uniform(-1, 1) * np.deg2rad(ranges.tilt_deg))
        self._step = turn @ slices * self.slice_spacing_mm * rng.choice([-1.0, 1.0])
        middle = (np.arange(size_px) - (size_px - 1) / 2) * pixel_mm
        down, across = np.meshgrid(middle * stretch, middle / stretch, indexing="ij")
        mirror = rng.choice([-1.0, 1.0])
        flat = down[..., None] * (turn @ rows) + mirror * across[..., None] * (turn @ columns)

        axis_index = int(np.abs(slices).argmax())
        centre = _BRAIN_MIDDLE_MM + (1 - np.abs(slices)) * rng.uniform(
            -ranges.shift_mm, ranges.shift_mm, 3
        )
        centre[axis_index] = self._position_through(through, rng, axis_index)
        self._first_plane = flat + centre - self._step * (length - 1) * rng.uniform(0.35, 0.65)

        self._bend = rng.uniform(-1, 1, (3, *_NODES)) * ranges.elastic_mm
        self._bias = rng.uniform(-0.2, 0.2, _NODES)
        self._gamma = np.exp(rng.uniform(-0.4, 0.4))
        self._gain = rng.uniform(0.75, 1.15)
        self._noise = rng.uniform(0, 0.04)

    def frame(self, index: int) -> Frame:
        """Cut one slice; masks (16, H, W) in the order of `STRUCTURES`, which overlap."""
        voxels = self._first_plane + self._step * index - GRID_START_MM
        nodes = np.moveaxis(voxels / (np.array(GRID_SHAPE) - 1) * (np.array(_NODES) - 1), -1, 0)
        bend = [
            ndimage.map_coordinates(part, nodes, order=2, mode="nearest") for part in self._bend
        ]
        voxels = np.moveaxis(voxels, -1, 0) + np.stack(bend)

        signal = ndimage.map_coordinates(self._template.intensity, voxels, order=1)
        bias = ndimage.map_coordinates(self._bias, nodes, order=2, mode="nearest")
        signal = signal.clip(0, 1) ** self._gamma * (1 + bias) * self._gain
        rng = np.random.default_rng((self._seed, 1, index))
        signal = signal + self._noise * rng.standard_normal(signal.shape)
        image = (signal.clip(0, 1) * 255).round().astype(np.uint8)

        nearest = np.rint(voxels).astype(int)
        last = np.array(GRID_SHAPE)[:, None, None] - 1
        inside = ((nearest >= 0) & (nearest <= last)).all(axis=0)
        x, y, z = nearest.clip(0, last)
        bits = np.where(inside, self._template.structure_bits[x, y, z], 0)
        masks = (bits >> np.arange(len(self.names))[:, None, None]) & 1 == 1
        return Frame(image, masks)

    def _position_through(self, name: str | None, rng: np.random.Generator, axis: int) -> float:
        """World coordinate of a plane across `axis` that cuts the structure."""
        drawn = int(rng.integers(len(self.names)))
        bit = 1 << (drawn if name is None else self.names.index(name))
        others = tuple(i for i in range(3) if i != axis)
        area = (self._template.structure_bits & bit > 0).sum(axis=others)
        # Planes with at least a third of its largest section, as `SliceSampler` has it.
        return float(rng.choice(np.flatnonzero(area > area.max() / 3))) + GRID_START_MM[axis]


def _rotation(axis: Floats, angle: float) -> Floats:
    """Rotation matrix about a unit axis (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
