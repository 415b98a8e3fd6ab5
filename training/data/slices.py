"""Random axial views of a labelled template: rotated, scaled, elastically deformed, re-lit.

A view is cut from the 3-D template along a tilted plane, so the position of a structure in the
picture alone does not tell which structure it is. Knows nothing of questions or networks.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.data.structures import STRUCTURES
from training.data.templates import GRID_SHAPE, GRID_START_MM, Template


@dataclass(frozen=True)
class SliceConfig:
    """How views are drawn. All ranges are uniform and symmetric unless said."""

    long_side: int = 160
    """Pixels of the longer side of the picture."""
    field_of_view_mm: tuple[float, float] = (175.0, 230.0)
    """Length of the longer side, before anisotropic scaling."""
    in_plane_rotation_deg: float = 20.0
    tilt_deg: float = 12.0
    """Rotation about the two in-plane axes."""
    anisotropy: float = 0.10
    """Relative stretch of one in-plane axis against the other."""
    shift_mm: float = 14.0
    elastic_mm: float = 5.0
    """Largest displacement of the smooth random field, in each of x, y, z."""
    elastic_nodes: int = 6
    """Control points of the field along each picture side."""
    square_share: float = 0.6
    """Share of square pictures; the others have a side ratio down to `side_ratio`."""
    side_ratio: float = 0.8
    min_area_px: int = 64
    """A structure counts as present from this area on (0.25 % of a square picture)."""


@dataclass(frozen=True)
class Slice:
    """One view.

    Rows run from anterior to posterior, columns from the patient's right to left (radiological),
    before the random rotation and mirroring.
    """

    image: Tensor
    """(H, W) uint8."""
    masks: Tensor
    """(16, H, W) bool, in the order of `STRUCTURES`."""
    present: Tensor
    """(16,) bool: area of at least `min_area_px`."""


class SliceSampler:
    """Draws random views of one template.

    Args:
        template: The labelled volume.
        config: Ranges of the deformation.
    """

    def __init__(self, template: Template, config: SliceConfig) -> None:
        self.config = config
        self._intensity = torch.from_numpy(template.intensity)[None, None]
        self._bits = torch.from_numpy(template.structure_bits)
        area_by_z = [
            (template.structure_bits & (1 << index) > 0).sum(axis=(0, 1))
            for index in range(len(STRUCTURES))
        ]
        # Planes where the structure has at least a third of its largest section: drawing the
        # plane for a structure drawn first gives small structures their share of the views.
        self._planes = [np.flatnonzero(area > area.max() / 3) for area in area_by_z]

    def draw(self, rng: np.random.Generator, structure: int | None = None) -> Slice:
        """Cut, deform and light one view.

        Args:
            rng: Source of everything random.
            structure: Index of a structure that must be present; None: any at all.
        """
        while True:
            aim = int(rng.integers(len(STRUCTURES))) if structure is None else structure
            points = self._plane_points(rng, aim)
            masks = self._masks_at(points)
            present = masks.sum(dim=(1, 2)) >= self.config.min_area_px
            if present.any() if structure is None else present[structure]:
                return Slice(_light(self._intensity_at(points), rng), masks, present)

    def rarity(self, seed: int, views: int = 200) -> Tensor:
        """How seldom each structure is seen: views drawn per view that shows it, (16,) float32.

        Large structures are in nearly every view: asked for as often as they are seen, they would
        crowd out the small ones. Weights to choose by, where that matters.
        """
        rng = np.random.default_rng(seed)
        seen = torch.stack([self.draw(rng).present for _ in range(views)]).sum(dim=0)
        return views / seen.clamp(min=1)

    def _plane_points(self, rng: np.random.Generator, structure: int) -> Tensor:
        """World coordinates (H, W, 3), mm RAS, of a random view near a structure."""
        cfg = self.config
        height = width = cfg.long_side
        if rng.random() > cfg.square_share:
            short = round(cfg.long_side * rng.uniform(cfg.side_ratio, 1.0))
            height, width = (short, width) if rng.random() < 0.5 else (height, short)
        pixel_mm = rng.uniform(*cfg.field_of_view_mm) / cfg.long_side
        stretch = np.exp(rng.uniform(-cfg.anisotropy, cfg.anisotropy) / 2)
        mirror = rng.choice([-1.0, 1.0])

        z_mm = float(rng.choice(self._planes[structure])) + GRID_START_MM[2]
        rows = (np.arange(height) - (height - 1) / 2) * pixel_mm * stretch
        columns = (np.arange(width) - (width - 1) / 2) * pixel_mm / stretch * mirror
        # Row 0 is anterior (+y); column 0 is the patient's right (+x) in radiological display.
        y, x = np.meshgrid(-rows, -columns, indexing="ij")
        flat = np.stack([x, y, np.zeros_like(x)], axis=-1)

        angles = np.deg2rad(
            rng.uniform(-1, 1, 3) * [cfg.tilt_deg, cfg.tilt_deg, cfg.in_plane_rotation_deg]
        )
        points = flat @ _rotation(angles).T
        # The brain's centre in the atlas frame lies about 18 mm behind the anterior commissure.
        points += [0.0, -18.0, z_mm]
        points[..., :2] += rng.uniform(-cfg.shift_mm, cfg.shift_mm, 2)

        nodes = torch.from_numpy(rng.uniform(-1, 1, (1, 3, cfg.elastic_nodes, cfg.elastic_nodes)))
        field = F.interpolate(nodes, (height, width), mode="bicubic", align_corners=True)
        return torch.from_numpy(points) + cfg.elastic_mm * field[0].permute(1, 2, 0)

    def _intensity_at(self, points: Tensor) -> Tensor:
        voxels = points - torch.tensor(GRID_START_MM)
        # grid_sample wants the coordinates of the last axis first: (z, y, x) of an (X, Y, Z) array.
        scaled = 2 * voxels / (torch.tensor(GRID_SHAPE) - 1) - 1
        grid = scaled.flip(-1)[None, None].float()
        sampled = F.grid_sample(self._intensity, grid, align_corners=True)
        return sampled[0, 0, 0]

    def _masks_at(self, points: Tensor) -> Tensor:
        voxels = (points - torch.tensor(GRID_START_MM)).round().long()
        inside = ((voxels >= 0) & (voxels < torch.tensor(GRID_SHAPE))).all(dim=-1)
        x, y, z = voxels.clamp(min=0).minimum(torch.tensor(GRID_SHAPE) - 1).unbind(-1)
        bits = torch.where(inside, self._bits[x, y, z], 0)
        return torch.stack([(bits >> index) & 1 == 1 for index in range(len(STRUCTURES))])


def _light(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Random blur, bias field, gamma, contrast and noise; (H, W) float in [0, 1] -> uint8."""
    brain = image > 0.02
    if rng.random() < 0.6:
        image = _gaussian_blur(image, sigma_px=float(rng.uniform(0.3, 1.1)))
    image = image.clamp(0, 1) ** float(np.exp(rng.uniform(-0.4, 0.4)))
    nodes = torch.from_numpy(rng.uniform(-1, 1, (1, 1, 3, 3))).float()
    bias = F.interpolate(nodes, image.shape, mode="bicubic", align_corners=True)[0, 0]
    image = image * (1 + 0.15 * bias) * float(rng.uniform(0.75, 1.15))
    image = image + brain * float(rng.uniform(-0.05, 0.05))
    noise = torch.from_numpy(rng.standard_normal(image.shape).astype(np.float32))
    image = image + noise * float(rng.uniform(0, 0.04))
    return (image.clamp(0, 1) * 255).round().byte()


def _rotation(angles: np.ndarray) -> np.ndarray:
    """Rotation matrix of the angles about x, y and z, in radians, applied in this order."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def _gaussian_blur(image: Tensor, sigma_px: float) -> Tensor:
    offsets = torch.arange(-3, 4, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma_px) ** 2)
    kernel = (kernel / kernel.sum())[None, None]
    padded = F.pad(image[None, None], (3, 3, 3, 3), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel[..., None]), kernel[:, :, None])[0, 0]
