"""NIfTI volumes, cut in a plane and turned as radiologists look at them.

Axial: the patient's right at the left, the front on top. Coronal: right at the left, head on top.
Sagittal: front at the left, head on top. Slices are cut along the voxel axes nearest to these
directions, so nothing is interpolated and each pixel is one voxel.
"""

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saymask.errors import InvalidArgument, MissingExtra
from saymask.readers import PLANES, check_index
from saymask.source_image import MM_PER_UNIT, Geometry, SourceImage
from saymask.windowing import range_to_show, window_to_uint8

# Per plane: RAS axis of the normal, then RAS axis and sign of "down" and of "right" in the picture.
_DISPLAY = {
    "axial": (2, (1, -1), (0, -1)),
    "coronal": (1, (2, -1), (0, -1)),
    "sagittal": (0, (2, -1), (1, -1)),
}

# Codes in the lowest three bits of the header's `xyzt_units`; any other is taken for mm, code 2.
_UNITS = {1: "meter", 3: "micron"}


def read_nifti(
    path: Path,
    content: bytes,
    digest: str,
    plane: str | None,
    slice_index: int | None,
    frame_number: int | None,
    window: tuple[float, float] | None,
    ct_window: tuple[float, float] | None,
) -> SourceImage:
    """Read one slice; arguments as `saymask.read_image` has them."""
    plane = plane or "axial"
    if plane not in PLANES:
        raise InvalidArgument(f"plane: expected one of {', '.join(PLANES)}, got {plane!r}")
    volume, affine_ras, unit = _read_volume(path, content, frame_number)
    if window is None and (volume < 0).any():  # as Hounsfield units are, down to -1000 in air
        window = ct_window
    low, high, shown = range_to_show(volume, window)
    mapping, axis = _slice_mapping(affine_ras, volume.shape, plane, slice_index, path.name)
    count, index = volume.shape[axis], int(mapping[axis, 2])
    i_count, j_count, k_count = volume.shape
    geometry = Geometry(affine_ras, (i_count, j_count, k_count), mapping, unit)
    height, width = (volume.shape[np.flatnonzero(mapping[:, side])[0]] for side in (0, 1))
    rows, columns = np.indices((height, width)).reshape(2, -1)
    values = volume[tuple(geometry.voxels_of(rows, columns))].reshape(height, width)
    down, right = geometry.pixel_edges_mm()
    frame = f"_frame{frame_number}" if frame_number is not None else ""
    return SourceImage(
        pixels=window_to_uint8(values, low, high)[:, :, np.newaxis],
        path=path,
        sha256=digest,
        kind="nifti",
        part=f"{plane}{index}{frame}",
        description=f"{plane} slice {index} (0 to {count - 1})",
        intensity=f"{shown} -> 0..255",
        geometry=geometry,
        spacing_mm=(float(np.linalg.norm(down)), float(np.linalg.norm(right))),
    )


def _read_volume(
    path: Path, content: bytes, frame_number: int | None
) -> tuple[NDArray[Any], NDArray[np.float64], str]:
    """Return voxel values (i, j, k), scaled as the header says, the RAS affine, the file's unit.

    The affine is in mm, whatever the file's unit.
    """
    try:
        import nibabel
    except ImportError as error:
        raise MissingExtra(
            f"reading {path.name} needs nibabel: pip install 'nibabel>=5.2'"
        ) from error
    try:
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        two = int.from_bytes(content[:4], "little") == 540 or int.from_bytes(content[:4]) == 540
        image = (nibabel.Nifti2Image if two else nibabel.Nifti1Image).from_bytes(content)
        data = np.asanyarray(image.dataobj)
    except (
        nibabel.filebasedimages.ImageFileError,
        nibabel.spatialimages.HeaderDataError,
        nibabel.wrapstruct.WrapStructError,
        OSError,
        EOFError,
        ValueError,
        zlib.error,
    ) as error:
        raise InvalidArgument(f"{path.name}: not a whole NIfTI file: {error}") from error
    if data.dtype.fields is not None or np.iscomplexobj(data):
        raise InvalidArgument(
            f"{path.name}: expected one number a voxel, got {data.dtype}; split it into channels"
        )
    if _is_singular(image.affine):
        raise InvalidArgument(f"{path.name}: its affine is singular, so it has no orientation")
    if data.ndim == 2:
        data = data[:, :, np.newaxis]
    frames = 1 if data.ndim == 3 else int(np.prod(data.shape[3:]))
    if data.ndim < 2 or data.size == 0:
        raise InvalidArgument(f"{path.name}: expected a volume (x, y, z), got {data.shape}")
    number = check_index("frame", 1 if frame_number is None else frame_number, 1, frames, path.name)
    unit = _UNITS.get(int(image.header["xyzt_units"]) & 7, "mm")
    affine_ras = np.array(image.affine, np.float64)
    affine_ras[:3] *= MM_PER_UNIT[unit]
    return data.reshape(*data.shape[:3], frames, order="F")[..., number - 1], affine_ras, unit


def _is_singular(affine_ras: NDArray[np.float64]) -> bool:
    """Return whether an affine (4, 4), of any unit, gives voxels no volume."""
    steps = affine_ras[:3, :3]
    # Against a brick of the same edges; float32, which files hold, is exact to 1e-7.
    brick = np.prod(np.linalg.norm(steps, axis=0))
    return not (np.isfinite(affine_ras).all() and abs(np.linalg.det(steps)) > 1e-6 * brick)


def _slice_mapping(
    affine_ras: NDArray[np.float64],
    shape: tuple[int, ...],
    plane: str,
    slice_index: int | None,
    name: str,
) -> tuple[NDArray[np.int64], int]:
    """Return (row, column, 1) -> (i, j, k) as (3, 3), and the voxel axis across the slice."""
    import nibabel

    # Per voxel axis: the RAS axis it runs along best, and its sign.
    directions = nibabel.io_orientation(affine_ras).astype(int)
    normal, down, right = _DISPLAY[plane]
    mapping = np.zeros((3, 3), np.int64)
    for column, (ras_axis, sign) in enumerate((down, right)):
        axis = int(np.flatnonzero(directions[:, 0] == ras_axis)[0])
        step = int(directions[axis, 1]) * sign
        mapping[axis, column] = step
        if step < 0:
            mapping[axis, 2] = shape[axis] - 1
    axis = int(np.flatnonzero(directions[:, 0] == normal)[0])
    count = shape[axis]
    index = count // 2 if slice_index is None else slice_index
    mapping[axis, 2] = check_index(f"{plane} slice", index, 0, count, name)
    return mapping, axis
