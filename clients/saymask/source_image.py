"""One picture cut from a file, with what it takes to put an answer back where it belongs.

Holds data and arithmetic; files are read in `readers` and written in `writers`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["MM_PER_UNIT", "Geometry", "SourceImage"]

MM_PER_UNIT = {"mm": 1.0, "meter": 1e3, "micron": 1e-3}
"""Millimetres in each unit of length that NIfTI knows, by nibabel's names."""

_AXIS_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))  # per RAS axis: towards -, towards +


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where the pixels of a picture lie in a volume, and the volume in the patient."""

    affine_ras: NDArray[np.float64]
    """(4, 4): voxel index (i, j, k, 1) to (x, y, z, 1) mm, x to the patient's right, y to the
    front, z to the head, as NIfTI has it."""
    shape: tuple[int, int, int]
    """Voxels along i, j and k."""
    pixel_to_voxel: NDArray[np.int64]
    """(3, 3): (row, column, 1) of the picture to the voxel index (i, j, k); exact, each pixel is
    one voxel."""
    file_unit: str = "mm"
    """Unit of lengths in the file, one of `MM_PER_UNIT`; a mask is written back in it."""

    def voxels_of(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the voxel indices (3, n) of n pixels."""
        return self.pixel_to_voxel @ np.stack([rows, columns, np.ones_like(rows)])

    def world_ras(self, row: float, column: float) -> NDArray[np.float64]:
        """Return where a pixel's centre lies: (x, y, z) mm, RAS."""
        voxel = self.pixel_to_voxel @ np.array([row, column, 1.0])
        return self.affine_ras[:3, :3] @ voxel + self.affine_ras[:3, 3]

    def pixel_edges_mm(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the steps (3,) mm, RAS, to the next row and to the next column."""
        steps = self.affine_ras[:3, :3] @ self.pixel_to_voxel[:, :2]
        return steps[:, 0], steps[:, 1]

    def edge_letters(self) -> tuple[str, str, str, str]:
        """Return the patient's side at the picture's left, right, top and bottom, as "R" or "A"."""
        down, right = self.pixel_edges_mm()
        return _side(-right), _side(right), _side(-down), _side(down)


@dataclass(frozen=True, eq=False)
class SourceImage:
    """The picture that is asked about, and where it comes from."""

    pixels: NDArray[np.uint8]
    """(H, W, C), C in {1, 3} (RGB), as it is shown and sent."""
    path: Path
    """File it was read from."""
    sha256: str
    """SHA-256 of the whole file, hexadecimal."""
    kind: str
    """`picture`, `nifti` or `dicom`."""
    part: str = ""
    """Which part of the file it is, for file names, as `axial42`; empty for the whole file."""
    description: str = ""
    """The same for people, as `axial slice 42 (0 to 90)`."""
    intensity: str = ""
    """How values became 8 bits, as `-160..240 -> 0..255`, and where they are
    from where nobody chose them; empty where the file has 8 bits."""
    geometry: Geometry | None = None
    """Place in the volume and the patient; None where the file does not say."""
    spacing_mm: tuple[float, float] | None = None
    """Distance of pixel centres between rows and between columns; None if unknown."""

    @property
    def pixel_area_mm2(self) -> float | None:
        """Area of one pixel; None if unknown."""
        if self.geometry is not None:
            return float(np.linalg.norm(np.cross(*self.geometry.pixel_edges_mm())))
        return None if self.spacing_mm is None else self.spacing_mm[0] * self.spacing_mm[1]

    @property
    def case(self) -> str:
        """Start of the names of files written about it: the file's name without its ending."""
        name = self.path.name
        for ending in (".nii.gz", self.path.suffix):
            if ending and name.lower().endswith(ending.lower()):
                name = name[: -len(ending)]
                break
        return f"{name}_{self.part}" if self.part else name


def _side(direction_ras: NDArray[np.float64]) -> str:
    axis = int(np.argmax(np.abs(direction_ras)))
    return _AXIS_LETTERS[axis][int(direction_ras[axis] > 0)]
