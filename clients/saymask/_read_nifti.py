"""NIfTI volumes, cut in a plane and turned as radiologists look at them.

Axial: the patient's right at the left, the front on top. Coronal: right at the left, head on top.
Sagittal: front at the left, head on top. Slices are cut along the voxel axes nearest to these
directions, so nothing is interpolated and each pixel is one voxel.
"""

import gzip
import zlib
from dataclasses import dataclass
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

# Codes in the next three bits: seconds, milliseconds, microseconds.
_SECONDS_PER_UNIT = {8: 1.0, 16: 1e-3, 24: 1e-6}


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
    series = read_series(path, content)
    frames = series.values.shape[3]
    number = check_index("frame", 1 if frame_number is None else frame_number, 1, frames, path.name)
    volume, affine_ras = series.values[..., number - 1], series.affine_ras
    if window is None and (volume < 0).any():  # as Hounsfield units are, down to -1000 in air
        window = ct_window
    low, high, shown = range_to_show(volume, window)
    axis = axis_across(affine_ras, plane)
    count = volume.shape[axis]
    index = count // 2 if slice_index is None else slice_index
    check_index(f"{plane} slice", index, 0, count, path.name)
    geometry = slice_geometry(series, plane, index)
    values = slice_values(volume, geometry)
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


@dataclass(frozen=True, eq=False)
class NiftiSeries:
    """Volumes of one file, with what its header says of them."""

    values: NDArray[Any]
    """(i, j, k, t), scaled as the header says; t is 1 for a volume."""
    affine_ras: NDArray[np.float64]
    """(4, 4), in mm whatever the file's unit."""
    unit: str
    """The file's unit of length, one of `MM_PER_UNIT`."""
    slice_axis: int | None
    """Voxel axis that the scanner's slices follow one another along; None where unsaid."""
    time_step_s: float | None
    """Seconds from one volume to the next; None where unsaid."""


def read_series(path: Path, content: bytes) -> NiftiSeries:
    """Read all volumes of a file.

    Raises:
        InvalidArgument: if it is not whole, has no orientation or no single number a voxel.
        MissingExtra: if nibabel is not installed.
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
    units = int(image.header["xyzt_units"])
    unit = _UNITS.get(units & 7, "mm")
    affine_ras = np.array(image.affine, np.float64)
    affine_ras[:3] *= MM_PER_UNIT[unit]
    step_s = float(image.header["pixdim"][4]) * _SECONDS_PER_UNIT.get(units & 56, 0.0)
    return NiftiSeries(
        values=data.reshape(*data.shape[:3], frames, order="F"),
        affine_ras=affine_ras,
        unit=unit,
        slice_axis=image.header.get_dim_info()[2],
        time_step_s=step_s if np.isfinite(step_s) and step_s > 0 else None,
    )


def _is_singular(affine_ras: NDArray[np.float64]) -> bool:
    """Return whether an affine (4, 4), of any unit, gives voxels no volume."""
    steps = affine_ras[:3, :3]
    # Against a brick of the same edges; float32, which files hold, is exact to 1e-7.
    brick = np.prod(np.linalg.norm(steps, axis=0))
    return not (np.isfinite(affine_ras).all() and abs(np.linalg.det(steps)) > 1e-6 * brick)


def axis_across(affine_ras: NDArray[np.float64], plane: str) -> int:
    """Return the voxel axis that runs best along a plane's normal."""
    return int(np.flatnonzero(_directions(affine_ras)[:, 0] == _DISPLAY[plane][0])[0])


def plane_across(affine_ras: NDArray[np.float64], axis: int) -> str:
    """Return the plane whose normal a voxel axis runs best along."""
    normal = _directions(affine_ras)[axis, 0]
    return next(plane for plane, (across, _, _) in _DISPLAY.items() if across == normal)


def slice_geometry(series: NiftiSeries, plane: str, index: int) -> Geometry:
    """Return where the pixels of slice `index` lie, turned as this module's docstring says."""
    i_count, j_count, k_count = shape = series.values.shape[:3]
    directions = _directions(series.affine_ras)
    _, down, right = _DISPLAY[plane]
    mapping = np.zeros((3, 3), np.int64)
    for column, (ras_axis, sign) in enumerate((down, right)):
        axis = int(np.flatnonzero(directions[:, 0] == ras_axis)[0])
        step = int(directions[axis, 1]) * sign
        mapping[axis, column] = step
        if step < 0:
            mapping[axis, 2] = shape[axis] - 1
    mapping[axis_across(series.affine_ras, plane), 2] = index
    return Geometry(series.affine_ras, (i_count, j_count, k_count), mapping, series.unit)


def slice_values(volume: NDArray[Any], geometry: Geometry) -> NDArray[Any]:
    """Return the values (H, W) that a picture of this geometry shows of a volume (i, j, k)."""
    height, width = (
        volume.shape[np.flatnonzero(geometry.pixel_to_voxel[:, side])[0]] for side in (0, 1)
    )
    rows, columns = np.indices((height, width)).reshape(2, -1)
    values: NDArray[Any] = volume[tuple(geometry.voxels_of(rows, columns))]
    return values.reshape(height, width)


def _directions(affine_ras: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return (3, 2): per voxel axis the RAS axis it runs along best, and its sign."""
    import nibabel

    directions: NDArray[np.int64] = nibabel.io_orientation(affine_ras).astype(np.int64)
    return directions
