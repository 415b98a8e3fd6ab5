"""Slices of a NIfTI volume as frames, or one slice of a series (x, y, z, t) through time.

Slices are cut and turned as `_read_nifti` does, and follow one another by voxel index.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saymask._read_nifti import (
    NiftiSeries,
    axis_across,
    plane_across,
    read_series,
    slice_geometry,
    slice_values,
)
from saymask.errors import InvalidArgument
from saymask.frames import Frames, SequenceGeometry, choose_run, read_bytes
from saymask.readers import PLANES
from saymask.windowing import range_to_show, window_to_uint8

_THICKER = 1.2  # times the next spacing, from which on the widest one is taken for the slices'


def nifti_frames(
    path: Path,
    plane: str | None,
    slice_index: int | None,
    frame_number: int | None,
    window: tuple[float, float] | None,
    ct_window: tuple[float, float] | None,
) -> Frames:
    """Open a volume; arguments as `saymask.read_frames` has them. Its values stay in memory."""
    series = read_series(path, read_bytes(path))
    plane = plane or plane_across(series.affine_ras, _acquired_axis(series))
    if plane not in PLANES:
        raise InvalidArgument(f"plane: expected one of {', '.join(PLANES)}, got {plane!r}")
    axis = axis_across(series.affine_ras, plane)
    slices, times = series.values.shape[axis], series.values.shape[3]
    run = choose_run(slices, times, slice_index, frame_number, path.name)
    over_time = len({time for _, time in run}) > 1
    first_slice, first_time = run[0]
    first = slice_geometry(series, plane, first_slice)
    step = [0, 0, 0]
    step[axis] = 0 if over_time else 1
    geometry = SequenceGeometry(
        first,
        (step[0], step[1], step[2]),
        times if over_time else 1,
        series.time_step_s if over_time else None,
    )
    shown_values = (
        np.take(series.values, first_slice, axis) if over_time else series.values[..., first_time]
    )
    if window is None and (shown_values < 0).any():  # as Hounsfield units are, down to -1000 in air
        window = ct_window
    low, high, shown = range_to_show(shown_values, window)

    def open_at(start: int) -> Iterator[NDArray[np.uint8]]:
        for index, (_, time) in enumerate(run[start:], start):
            values = slice_values(series.values[..., time], geometry.of_frame(index))
            yield window_to_uint8(values, low, high)

    height, width = slice_values(series.values[..., 0], first).shape
    down, right = first.pixel_edges_mm()
    if over_time:
        names = [f"frame{time + 1:0{len(str(times))}d}" for _, time in run]
        description = f"{plane} slice {first_slice}, frames 1 to {times}"
    else:
        names = [f"{plane}{slice_:0{len(str(slices - 1))}d}" for slice_, _ in run]
        description = f"{plane} slices {first_slice} to {run[-1][0]}"
        description += f", frame {first_time + 1}" if times > 1 else ""
    return Frames(
        path=path,
        kind="nifti",
        size_hw=(height, width),
        count=len(run),
        open_at=open_at,
        names=tuple(names),
        description=description,
        intensity=f"{shown} -> 0..255",
        frames_per_second=1 / geometry.time_step_s if geometry.time_step_s else None,
        spacing_mm=(float(np.linalg.norm(down)), float(np.linalg.norm(right))),
        geometry=geometry,
    )


def _acquired_axis(series: NiftiSeries) -> int:
    """Return the voxel axis across the slices as the scanner made them."""
    if series.slice_axis is not None:
        return series.slice_axis
    spacing_mm = np.linalg.norm(series.affine_ras[:3, :3], axis=0)
    thinnest_first = np.argsort(spacing_mm)
    second, widest = spacing_mm[thinnest_first[1:]]
    return int(thinnest_first[2]) if widest > _THICKER * second else 2
