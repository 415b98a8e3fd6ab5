"""Synthetic CT of the upper abdomen: labelled anatomy from solid shapes, no patient's data.

A phantom is a set of ellipsoids and tubes in millimetres, each with its label and its mean
attenuation, varied per seed: sizes, positions, a smooth bend of the whole, fat, enhancement.
Organs can be missing, and one can hold a round lesion. Every slice is a function of (anatomy, z),
so single slices and whole volumes of the same seed agree. Plausible for a demonstration, of no
clinical worth.

Frame: x to the patient's left, y to the back, z to the head; the origin lies in the middle of the
body at the height of the kidneys' upper poles. A slice is displayed radiologically: columns along
+x, rows along +y.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage

from training.data.organs import ORGANS

Floats = NDArray[np.float64]

LABELS = {organ.name: organ.id for organ in ORGANS}
"""Label by name."""

REMOVABLE = ("right kidney", "spleen", "gallbladder", "left kidney", "left adrenal gland")
"""Organs that people live without, most often removed by surgery."""

Z_RANGE_MM = (-75.0, 110.0)
"""Lowest and highest slice that shows the abdomen."""

LESION_SITES = ("liver", "spleen", "right kidney", "left kidney", "pancreas")
"""Organs that can hold a lesion."""

LESION_SHARE = 0.5
"""Share of bodies with a lesion."""

MUSCLE_MM = 14.0
"""Thickness of the abdominal wall's muscle."""

REACH_MM = 14.0
"""No point is bent further than this."""

AIR_HU, FAT_HU, MUSCLE_HU, BONE_HU, LUNG_HU, GAS_HU = -1000.0, -105.0, 55.0, 420.0, -830.0, -900.0


@dataclass(frozen=True)
class Solid:
    """One shape: points whose `level` is below 1."""

    label: int
    """1 to 13, or 0: not an organ that can be asked for."""
    hu: float
    """Mean attenuation, HU."""
    centres_mm: Floats
    """(K, 3): centre of an ellipsoid (K = 1) or the line of a tube."""
    radii_mm: Floats
    """(K, 3): half axes of an ellipsoid; a tube is round and takes the first of each."""
    in_wall: bool
    """Whether it may reach beyond the abdominal cavity, as bones and muscles do."""
    lesion: bool = False
    """A lesion: shows only inside the organ of its label, and stays part of that organ."""

    def level(self, points_mm: Floats) -> Floats:
        """(..., 3) -> (...): 0 in the middle, 1 on the surface."""
        if len(self.centres_mm) == 1:
            return np.linalg.norm((points_mm - self.centres_mm[0]) / self.radii_mm[0], axis=-1)
        segments = zip(
            self.centres_mm[:-1],
            self.centres_mm[1:],
            self.radii_mm[:-1, 0],
            self.radii_mm[1:, 0],
            strict=True,
        )
        return np.min([_segment_level(points_mm, *segment) for segment in segments], axis=0)


@dataclass(frozen=True)
class Anatomy:
    """A body; drawn by `draw_anatomy`."""

    solids: tuple[Solid, ...]
    """In the order they are painted: a later one covers an earlier one."""
    body_radii_mm: tuple[float, float]
    """Half width and half depth of the body."""
    wall_mm: float
    """Thickness of the subcutaneous fat."""
    bend: Floats
    """(3, 4, 4, 4) nodes of the smooth displacement, mm."""
    missing: frozenset[str]
    """Names of the organs that were left out."""
    seed: int


@dataclass(frozen=True)
class PhantomSlice:
    """One axial slice, rows from front to back, columns from the patient's right to left."""

    hu: NDArray[np.float32]
    """(H, W) HU, with noise."""
    labels: NDArray[np.uint8]
    """(H, W): 0 or an organ's label; a lesion has its organ's."""
    lesions: NDArray[np.bool_]
    """(H, W): inside a lesion."""
    spacing_mm: float
    z_mm: float


def draw_anatomy(
    seed: int, missing: Sequence[str] | None = None, lesion: bool | None = None
) -> Anatomy:
    """Draw a body.

    Args:
        seed: Same seed, same body.
        missing: Organs to leave out; None draws them: two bodies of five lack one of `REMOVABLE`.
        lesion: Whether one organ of `LESION_SITES` holds a lesion; None draws it.

    Raises:
        ValueError: if an organ has no such name.
    """
    rng = np.random.default_rng((seed, 0))
    lost = str(rng.choice(REMOVABLE)) if rng.random() < 0.4 else None
    if missing is None:
        missing = [lost] if lost else []
    unknown = sorted(set(missing) - set(LABELS))
    if unknown:
        raise ValueError(f"missing: unknown organ {', '.join(unknown)}; known: {', '.join(LABELS)}")

    size = rng.uniform(0.93, 1.07)
    solids = [
        *(solid for shape in _background(rng) for solid in _drawn([shape], 0, rng, size, 1.5, 0.0)),
        *(
            solid
            for name, shapes in _organs(rng).items()
            for solid in _drawn_organ(name, shapes, rng, size)
            if name not in missing
        ),
    ]
    # A generator of its own: a body is the same with and without its lesion.
    lesion_rng = np.random.default_rng((seed, 2))
    if (lesion_rng.random() < LESION_SHARE) if lesion is None else lesion:
        solids.append(_drawn_lesion(solids, lesion_rng))
    return Anatomy(
        solids=tuple(solids),
        body_radii_mm=(size * rng.uniform(155, 180), size * rng.uniform(108, 128)),
        wall_mm=float(rng.uniform(8, 24)),
        bend=rng.uniform(-1, 1, (3, 4, 4, 4)) * np.array([7.0, 6.0, 8.0])[:, None, None, None],
        missing=frozenset(missing),
        seed=seed,
    )


def render_slice(
    anatomy: Anatomy,
    z_mm: float,
    *,
    size_px: tuple[int, int] = (224, 288),
    spacing_mm: float = 1.4,
    middle_mm: tuple[float, float] = (0.0, 0.0),
) -> PhantomSlice:
    """Cut the body at one height.

    Args:
        anatomy: The body.
        z_mm: Height, usually within `Z_RANGE_MM`.
        size_px: Rows and columns.
        spacing_mm: Side of a pixel.
        middle_mm: (y, x) of the picture's middle in the body.
    """
    rows, columns = (
        middle + (np.arange(count) - (count - 1) / 2) * spacing_mm
        for count, middle in zip(size_px, middle_mm, strict=True)
    )
    points = _bent(anatomy.bend, rows, columns, z_mm)

    hu = np.full(size_px, AIR_HU)
    labels = np.zeros(size_px, np.uint8)
    lesions = np.zeros(size_px, np.bool_)
    radii = np.array(anatomy.body_radii_mm)
    hu[_oval(points, radii) < 1] = FAT_HU
    hu[_oval(points, radii - anatomy.wall_mm) < 1] = MUSCLE_HU
    cavity = _oval(points, radii - anatomy.wall_mm - MUSCLE_MM) < 1
    hu[cavity] = FAT_HU
    for solid in anatomy.solids:
        low = (solid.centres_mm - solid.radii_mm).min(axis=0) - REACH_MM
        high = (solid.centres_mm + solid.radii_mm).max(axis=0) + REACH_MM
        if not low[2] < z_mm < high[2]:
            continue
        near = (
            slice(*np.searchsorted(rows, (low[1], high[1]))),
            slice(*np.searchsorted(columns, (low[0], high[0]))),
        )
        inside = (solid.level(points[near]) < 1) & (cavity[near] | solid.in_wall)
        if solid.lesion:
            inside &= labels[near] == solid.label
            lesions[near] |= inside
        hu[near][inside] = solid.hu
        labels[near][inside] = solid.label

    rng = np.random.default_rng((anatomy.seed, 1, round(z_mm * 10) + 10_000))
    texture = ndimage.gaussian_filter(rng.standard_normal(size_px), 3 / spacing_mm)
    noise = ndimage.gaussian_filter(rng.standard_normal(size_px), 0.6)
    hu = ndimage.gaussian_filter(hu, 0.7 / spacing_mm)  # partial volume and reconstruction kernel
    hu += 5 * texture / texture.std() + 11 * noise / noise.std()
    return PhantomSlice(hu.clip(-1024, 3071).astype(np.float32), labels, lesions, spacing_mm, z_mm)


def window(hu: NDArray[np.float32], level: float = 40.0, width: float = 400.0) -> NDArray[np.uint8]:
    """Soft-tissue window: HU -> uint8, below 0 and above 255 cut off."""
    scaled = (hu - (level - width / 2)) / width
    return (scaled.clip(0, 1) * 255).round().astype(np.uint8)


@dataclass(frozen=True)
class _Shape:
    hu: float
    centres: Sequence[tuple[float, float, float]]
    radii: list[float] | tuple[float, float, float]
    """Of an ellipsoid its half axes, of a tube one per point."""
    in_wall: bool = False


def _organs(rng: np.random.Generator) -> dict[str, list[_Shape]]:
    """Mean shapes by organ, in the order of painting; portal venous phase."""
    vessel = rng.uniform(130, 190)
    kidney = rng.uniform(150, 200)
    stomach = rng.uniform(5, 45)
    return {
        "liver": [
            _Shape(105, [(-82, -2, 52)], (72, 82, 88)),
            _Shape(105, [(-8, -52, 62)], (72, 38, 46)),
        ],
        "spleen": [_Shape(118, [(112, 38, 58)], (27, 46, 50))],
        "stomach": [
            _Shape(
                stomach,
                [(72, 0, 92), (76, -34, 58), (42, -58, 28), (-4, -52, 16), (-22, -40, 18)],
                [36, 34, 25, 18, 13],
            ),
            _Shape(GAS_HU, [(70, -58, 58)], (16, 8, 22)),
        ],
        "duodenum": [
            _Shape(
                48,
                [(-26, -32, 16), (-50, -12, 8), (-52, 6, -26), (-26, 20, -50), (16, 16, -52)],
                [12, 12.5, 12.5, 12, 11],
            )
        ],
        "pancreas": [
            _Shape(
                88,
                [(-32, -4, -12), (-10, -14, 4), (30, -8, 14), (82, 22, 34)],
                [15, 12, 13, 11],
            )
        ],
        "gallbladder": [_Shape(12, [(-56, -62, 6)], (17, 27, 24))],
        "inferior vena cava": [
            _Shape(vessel - 25, [(-24, 36, -90), (-24, 32, 30), (-20, 22, 130)], [12.5, 12.5, 12.5])
        ],
        "aorta": [
            _Shape(vessel, [(6, 42, -90), (9, 40, 30), (12, 44, 130)], [10.5, 11, 12]),
        ],
        "right kidney": [
            _Shape(kidney, [(-68, 58, -18)], (28, 27, 52)),
            _Shape(FAT_HU, [(-44, 46, -18)], (11, 9, 14)),
        ],
        "left kidney": [
            _Shape(kidney, [(70, 58, -6)], (28, 27, 52)),
            _Shape(FAT_HU, [(46, 46, -6)], (11, 9, 14)),
        ],
        "right adrenal gland": [
            _Shape(72, [(-30, 44, 62), (-34, 52, 46), (-44, 60, 34)], [5, 6, 5]),
            _Shape(72, [(-34, 52, 46), (-28, 62, 34)], [5.5, 4.5]),
        ],
        "left adrenal gland": [
            _Shape(72, [(36, 38, 56), (38, 48, 44), (48, 56, 34)], [5, 6, 5]),
            _Shape(72, [(38, 48, 44), (30, 58, 34)], [5.5, 4.5]),
        ],
        "esophagus": [
            _Shape(42, [(4, 24, 140), (10, 18, 112), (34, 8, 94)], [10, 10, 10]),
        ],
    }


def _background(rng: np.random.Generator) -> list[_Shape]:
    """What is seen and cannot be asked for: lungs, spine, ribs, muscles, bowel."""
    wall = [
        _Shape(MUSCLE_HU, [(-48, 76, -40), (-40, 72, 40)], [22, 8]),
        _Shape(MUSCLE_HU, [(48, 76, -40), (40, 72, 40)], [22, 8]),
        _Shape(MUSCLE_HU, [(-34, 104, -90), (-34, 104, 130)], [24, 24]),
        _Shape(MUSCLE_HU, [(34, 104, -90), (34, 104, 130)], [24, 24]),
        _Shape(BONE_HU - 220, [(0, 74, -90), (0, 74, 130)], [23, 23]),
        _Shape(BONE_HU, [(0, 116, -90), (0, 116, 130)], [7, 7]),
        _Shape(25, [(0, 99, -90), (0, 99, 130)], [8, 8]),
    ]
    for side in (-1, 1):
        for z in np.arange(-30, 130, 26.0):
            line = [(side * 40, 104, z + 26), (side * 112, 72, z), (side * 140, 0, z - 22)]
            wall.append(_Shape(BONE_HU, line, [5.5, 5.5, 5]))
    bowel = []
    for _ in range(9):
        x, y, z = rng.uniform((-95, -85, -80), (105, -20, -15))
        hu = GAS_HU if rng.random() < 0.25 else float(rng.uniform(10, 60))
        bowel.append(_Shape(hu, [(x, y, z)], (14, 13, 14)))
    return [
        _Shape(LUNG_HU, [(-82, 30, 128)], (66, 82, 58)),
        _Shape(LUNG_HU, [(84, 30, 128)], (64, 82, 66)),
        *(replace(shape, in_wall=True) for shape in wall),
        *bowel,
    ]


def _drawn_organ(
    name: str, shapes: list[_Shape], rng: np.random.Generator, size: float
) -> list[Solid]:
    narrow = "adrenal" in name or name in ("aorta", "inferior vena cava", "esophagus")
    shift_mm, growth = (2.0, 0.06) if narrow else (5.0, 0.10)
    return _drawn(shapes, LABELS[name], rng, size, shift_mm, growth)


def _drawn(
    shapes: list[_Shape],
    label: int,
    rng: np.random.Generator,
    size: float,
    shift_mm: float,
    growth: float,
) -> list[Solid]:
    """One body's version of a mean shape; its parts move, grow and enhance together."""
    middle = np.array(shapes[0].centres).mean(axis=0)
    shift = rng.normal(0, shift_mm, 3)
    scale = size * float(np.exp(rng.normal(0, growth)))
    hu = rng.normal(0, 6)
    return [
        Solid(
            # Fat is what lies in a kidney's hilum, and gas what fills a part of the stomach.
            0 if shape.hu == FAT_HU else label,
            shape.hu if shape.hu in (FAT_HU, GAS_HU, LUNG_HU) else shape.hu + hu,
            middle * size + shift + (np.array(shape.centres) - middle) * scale,
            _radii(shape) * scale,
            shape.in_wall,
        )
        for shape in shapes
    ]


def _drawn_lesion(solids: Sequence[Solid], rng: np.random.Generator) -> Solid:
    """A cyst or a poorly enhancing nodule in one of the organs that are there."""
    sites = [
        solid
        for solid in solids
        if solid.label in {LABELS[name] for name in LESION_SITES} and solid.hu > 0
    ]
    site = sites[rng.integers(len(sites))]
    half_axes = site.radii_mm.mean(axis=0)
    # Off the middle, but inside: a point of the inner half of the ellipsoid, or near the tube.
    direction = rng.normal(0, 1, 3)
    direction *= rng.uniform(0.1, 0.5) / np.linalg.norm(direction)
    at = site.centres_mm[rng.integers(len(site.centres_mm))] + direction * half_axes
    radius = float((half_axes.min() * rng.uniform(0.28, 0.5)).clip(7.0, 18.0))
    hu = float(rng.choice([6.0, 38.0]) + rng.normal(0, 4))
    return Solid(site.label, hu, at[None], np.full((1, 3), radius), in_wall=False, lesion=True)


def _radii(shape: _Shape) -> Floats:
    if len(shape.centres) == 1:
        return np.array(shape.radii)[None]
    return np.repeat(np.array(shape.radii)[:, None], 3, axis=1)


def _segment_level(
    points: Floats, start: Floats, end: Floats, start_radius: float, end_radius: float
) -> Floats:
    """Distance from a segment in units of its radius, which changes linearly along it."""
    along = end - start
    share = (((points - start) @ along) / (along @ along)).clip(0, 1)
    distance = np.linalg.norm(points - start - share[..., None] * along, axis=-1)
    return distance / (start_radius + share * (end_radius - start_radius))


def _oval(points: Floats, radii: Floats) -> Floats:
    """Level of the body's outline, a superellipse flatter than an ellipse at the back."""
    x, y = np.abs(points[..., 0]) / radii[0], np.abs(points[..., 1]) / radii[1]
    return (x**2.4 + y**2.4) ** (1 / 2.4)


def _bent(bend: Floats, rows: Floats, columns: Floats, z_mm: float) -> Floats:
    """(H, W, 3): where each pixel lies in the body before it was bent."""
    # The field is smooth: it is computed on a coarse grid.
    coarse = np.meshgrid(
        np.linspace(columns[0], columns[-1], 24), np.linspace(rows[0], rows[-1], 24)
    )
    span = np.array([[-180.0, 180.0], [-130.0, 130.0], [-100.0, 130.0]])
    at = np.stack([*coarse, np.full_like(coarse[0], z_mm)])
    nodes = 3 * (at - span[:, :1, None]) / (span[:, 1] - span[:, 0])[:, None, None]
    field = np.stack([ndimage.map_coordinates(d, nodes, order=2, mode="nearest") for d in bend])
    size = (len(rows), len(columns))
    fine = F.interpolate(torch.from_numpy(field)[None], size, mode="bilinear", align_corners=True)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    return np.stack([x, y, np.full_like(x, z_mm)], axis=-1) + fine[0].permute(1, 2, 0).numpy()
