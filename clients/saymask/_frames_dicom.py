"""DICOM series and multi-frame files as frames: slices in the order in which they lie.

Slices are ordered along their normal (PS3.3 C.7.6.2.1.1), pictures of one place by InstanceNumber,
which counts them in time. Each is shown as `_read_dicom` does, but with one window for all.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saymask._read_dicom import (
    dicom_errors,
    first_number,
    frame_pixels,
    functional_group,
    geometry_of_frame,
    is_color,
    is_picture,
    open_dicom,
    rescaled_values,
    spacing_of_frame,
    stored_values,
)
from saymask.errors import InvalidArgument
from saymask.frames import Frames, SequenceGeometry, check_names, choose_run, read_bytes, stem_of
from saymask.source_image import Geometry
from saymask.windowing import range_to_show

_SAME_PLACE_MM = 0.01  # slices nearer than this lie in one place
_SAME_DIRECTION = 1e-3  # of a pixel: how far its edges may differ between slices of one volume
_UNEVEN = 0.1  # of a step: how far a slice may lie from its place in an even stack
_SAMPLES = 16  # frames spread over the sequence, from which a common range of values is taken


@dataclass(frozen=True, eq=False)
class _Picture:
    """One frame of one file."""

    file: Path
    header: Any
    """Data set of the file, without its pixels."""
    frame: int
    """In the file, from 0."""
    geometry: Geometry | None

    @property
    def size_hw(self) -> tuple[int, int]:
        return int(self.header.Rows), int(self.header.Columns)

    @property
    def in_time(self) -> tuple[int, int]:
        return int(self.header.get("InstanceNumber") or 0), self.frame


def dicom_frames(
    path: Path,
    files: list[Path],
    series: str | None,
    slice_index: int | None,
    frame_number: int | None,
    window: tuple[float, float] | None,
    ct_window: tuple[float, float] | None,
) -> Frames:
    """Open a series or a multi-frame file; arguments as `saymask.read_frames` has them.

    Headers are read here, pixels of one file at a time when frames are.
    """
    pictures = _chosen_series(path, _pictures(path, files), series)
    _check_sizes(path, pictures)
    slices = _slices(path, pictures)
    run = choose_run(len(slices), len(slices[0]), slice_index, frame_number, path.name)
    pictures = [slices[slice_][time] for slice_, time in run]
    first = pictures[0]
    window, shown = _common_window(pictures, window, ct_window)
    _, intensity = next(_shown(pictures[:1], window))
    over_time = len({slice_ for slice_, _ in run}) == 1 and len(run) > 1
    rate = _frames_per_second(first.header) if over_time else None
    part = ""
    if len(slices[0]) > 1 and len(slices) > 1:
        part = f"slice {slice_index}, " if over_time else f"frame {frame_number}, "
    return Frames(
        path=path,
        kind="dicom",
        size_hw=first.size_hw,
        count=len(pictures),
        open_at=lambda start: (
            picture if picture.shape[2] == 3 else picture[:, :, 0]
            for picture, _ in _shown(pictures[start:], window)
        ),
        names=_names(path, pictures),
        description=f"{part}{_told(first.header, len(pictures))}",
        intensity=shown or intensity,
        frames_per_second=rate,
        spacing_mm=spacing_of_frame(first.header, first.frame),
        geometry=_geometry(pictures, over_time, rate),
    )


def _pictures(path: Path, files: list[Path]) -> list[_Picture]:
    found = []
    for file in files:
        with dicom_errors(file.name):
            header = open_dicom(read_bytes(file), pixels=False)
            if "Rows" not in header:  # a report, a list of the folder's files
                continue
            count = int(header.get("NumberOfFrames") or 1)
            found += [
                _Picture(file, header, frame, geometry_of_frame(header, frame, count))
                for frame in range(count)
            ]
    if not found:
        raise InvalidArgument(f"{path.name}: no DICOM file here holds a picture")
    return found


def _chosen_series(path: Path, pictures: list[_Picture], series: str | None) -> list[_Picture]:
    by_uid = defaultdict(list)
    for picture in pictures:
        by_uid[str(picture.header.get("SeriesInstanceUID", ""))].append(picture)
    chosen = [
        of_series
        for uid, of_series in by_uid.items()
        if series is None or series in (uid, str(of_series[0].header.get("SeriesNumber", "")))
    ]
    if len(chosen) == 1:
        return chosen[0]
    listed = "".join(
        f"\n  {_told(of_series[0].header, len(of_series))}, SeriesInstanceUID {uid or 'unsaid'}"
        for uid, of_series in by_uid.items()
    )
    problem = (
        f"{path.name} holds {len(by_uid)} DICOM series"
        if series is None
        else f"{len(chosen)} of the series in {path.name} have the number or UID {series!r}"
    )
    raise InvalidArgument(
        f"{problem}; choose one with series=, its SeriesInstanceUID or its number:{listed}"
    )


def _told(header: Any, count: int) -> str:
    """Return a series in a few words."""
    number, name = header.get("SeriesNumber"), str(header.get("SeriesDescription") or "")
    said = "series" if number is None else f"series {number}"
    return f"{said}{f' ({name})' if name else ''}, {header.get('Modality', 'OT')}, {count} frames"


def _check_sizes(path: Path, pictures: list[_Picture]) -> None:
    by_size: dict[tuple[int, int], list[str]] = defaultdict(list)
    for picture in pictures:
        by_size[picture.size_hw].append(picture.file.name)
    if len(by_size) > 1:
        told = "; ".join(
            f"{height} x {width}: {names[0]}" + (f" and {len(names) - 1} more" * (len(names) > 1))
            for (height, width), names in by_size.items()
        )
        raise InvalidArgument(
            f"{path.name} holds frames of different sizes ({told}); a sequence has one: put each "
            "into a folder of its own"
        )


def _slices(path: Path, pictures: list[_Picture]) -> list[list[_Picture]]:
    """Return pictures by place, then by time; each place has as many."""
    placed = [picture for picture in pictures if picture.geometry is not None]
    if not placed:
        _check_one_cine(path, pictures)
        return [_in_time(path, pictures)]
    if len(placed) < len(pictures):
        raise InvalidArgument(
            f"{path.name}: {len(pictures) - len(placed)} of {len(pictures)} frames do not say "
            "where they lie; put them into a folder of their own"
        )
    edges = np.array([_edges(picture) for picture in placed])
    largest_mm = np.linalg.norm(edges[0], axis=0).max()
    if np.abs(edges - edges[0]).max() > _SAME_DIRECTION * largest_mm:
        raise InvalidArgument(
            f"{path.name} holds slices of several directions or pixel sizes, such as "
            f"{placed[0].file.name} and "
            f"{placed[int(np.abs(edges - edges[0]).max(axis=(1, 2)).argmax())].file.name}; put "
            "each stack into a folder of its own"
        )
    normal = np.cross(edges[0, :, 0], edges[0, :, 1])
    along_mm = [float(_origin(picture) @ normal / np.linalg.norm(normal)) for picture in placed]
    slices: list[list[_Picture]] = []
    last_mm = -np.inf
    for index in np.argsort(along_mm, kind="stable"):
        if along_mm[index] - last_mm > _SAME_PLACE_MM:
            slices.append([])
        slices[-1].append(placed[index])
        last_mm = along_mm[index]
    counts = [len(of_slice) for of_slice in slices]
    if len(set(counts)) > 1:
        raise InvalidArgument(
            f"{path.name}: of {len(slices)} places some have {min(counts)} frames, some "
            f"{max(counts)}; put each time, or each stack, into a folder of its own"
        )
    slices = [_in_time(path, of_slice) for of_slice in slices]
    _check_even(path, [_origin(of_slice[0]) for of_slice in slices])
    return slices


def _check_one_cine(path: Path, pictures: list[_Picture]) -> None:
    files = sorted({picture.file for picture in pictures})
    if len(files) > 1 and len(files) < len(pictures):
        raise InvalidArgument(
            f"{path.name} holds {len(files)} multi-frame files ({', '.join(f.name for f in files)})"
            ", each a sequence of its own; name one of them"
        )


def _in_time(path: Path, pictures: list[_Picture]) -> list[_Picture]:
    ordered = sorted(pictures, key=lambda picture: picture.in_time)
    for one, next_one in itertools.pairwise(ordered):
        if one.header.get("InstanceNumber") == next_one.header.get("InstanceNumber") and (
            one.file != next_one.file
        ):
            raise InvalidArgument(
                f"{path.name}: {one.file.name} and {next_one.file.name} have neither places nor "
                "InstanceNumbers that differ, so their order is unknown; name one file, or save "
                "the frames as PNG, whose names give the order"
            )
    return ordered


def _check_even(path: Path, origins: list[NDArray[np.float64]]) -> None:
    if len(origins) < 3:
        return
    places = np.linspace(origins[0], origins[-1], len(origins))
    step_mm = np.linalg.norm(places[1] - places[0])
    if np.linalg.norm(origins - places, axis=1).max() > _UNEVEN * step_mm:
        steps_mm = np.linalg.norm(np.diff(origins, axis=0), axis=1)
        widest = int(steps_mm.argmax())
        raise InvalidArgument(
            f"{path.name}: its slices are {steps_mm.min():g} to {steps_mm.max():g} mm apart, the "
            f"most after slice {widest} of 0..{len(origins) - 1}, so they make no even volume; add "
            "a missing slice, or resample to NIfTI"
        )


def _edges(picture: _Picture) -> NDArray[np.float64]:
    """Return (3, 2): the steps in mm, RAS, to the next column and to the next row."""
    assert picture.geometry is not None
    return picture.geometry.affine_ras[:3, :2]


def _origin(picture: _Picture) -> NDArray[np.float64]:
    assert picture.geometry is not None
    return picture.geometry.affine_ras[:3, 3]


def _geometry(
    pictures: list[_Picture], over_time: bool, rate: float | None
) -> SequenceGeometry | None:
    """Return the volume (columns, rows, slices) that the frames make up, if they say where."""
    first = pictures[0].geometry
    if first is None:
        return None
    if over_time:
        return SequenceGeometry(first, (0, 0, 0), len(pictures), 1 / rate if rate else None)
    affine_ras = first.affine_ras.copy()
    if len(pictures) > 1:
        affine_ras[:3, 2] = (_origin(pictures[-1]) - _origin(pictures[0])) / (len(pictures) - 1)
    shape = (*first.shape[:2], len(pictures))
    return SequenceGeometry(Geometry(affine_ras, shape, first.pixel_to_voxel), (0, 0, 1))


def _common_window(
    pictures: list[_Picture],
    window: tuple[float, float] | None,
    ct_window: tuple[float, float] | None,
) -> tuple[tuple[float, float] | None, str]:
    """Return the window of all frames and where it is from; None is what the files all name."""
    first = pictures[0].header
    if window is not None or is_color(first):
        return window, ""
    if first.get("Modality") == "CT" and ct_window is not None:
        return ct_window, ""
    named = {_named_window(picture) for picture in pictures}
    if len(named) == 1 and named != {None}:
        return None, ""
    values = [np.zeros(0)]
    for file, of_file in _by_file(pictures[:: -(-len(pictures) // _SAMPLES)]):
        with dicom_errors(file.name):
            ds = open_dicom(read_bytes(file))
            for picture in of_file:
                stored = stored_values(ds, picture.frame, file.name)
                rescaled = rescaled_values(ds, stored, picture.frame)
                values.append(rescaled[is_picture(ds, stored)].ravel())
    low, high, shown = range_to_show(np.concatenate(values), None)
    inverted = ", inverted" if first.PhotometricInterpretation == "MONOCHROME1" else ""
    return (low, high), f"{shown}{inverted} -> 0..255"


def _named_window(picture: _Picture) -> Any:
    """Return what the file says on how to show a frame, in a form to compare; None for nothing."""
    with dicom_errors(picture.file.name):
        voi = functional_group(picture.header, picture.frame, "FrameVOILUTSequence")
        if voi.get("VOILUTSequence"):
            table = voi.VOILUTSequence[0]
            return tuple(table.LUTDescriptor), bytes(table["LUTData"].value)
        if voi.get("WindowCenter") is None or voi.get("WindowWidth") is None:
            return None
        return (
            first_number(voi.WindowCenter),
            first_number(voi.WindowWidth),
            str(voi.get("VOILUTFunction") or "LINEAR"),
        )


def _shown(
    pictures: list[_Picture], window: tuple[float, float] | None
) -> Iterator[tuple[NDArray[np.uint8], str]]:
    """Yield (H, W, 1) or (H, W, 3) of each picture, and how its values became 8 bits."""
    for file, of_file in _by_file(pictures):
        with dicom_errors(file.name):
            ds = open_dicom(read_bytes(file))
            if "PixelData" not in ds:
                raise InvalidArgument(f"{file.name}: this DICOM file holds no picture")
            for picture in of_file:
                yield frame_pixels(ds, picture.frame, window, file.name)


def _by_file(pictures: list[_Picture]) -> Iterator[tuple[Path, list[_Picture]]]:
    """Yield runs of pictures that lie in one file, which is opened once for them."""
    run: list[_Picture] = []
    for picture in pictures:
        if run and run[-1].file != picture.file:
            yield run[0].file, run
            run = []
        run.append(picture)
    if run:
        yield run[0].file, run


def _names(path: Path, pictures: list[_Picture]) -> tuple[str, ...]:
    digits = len(str(max(picture.frame for picture in pictures) + 1))
    names = []
    for picture in pictures:
        multi_frame = int(picture.header.get("NumberOfFrames") or 1) > 1
        parts = [stem_of(picture.file)] if path.is_dir() or not multi_frame else []
        parts += [f"frame{picture.frame + 1:0{digits}d}"] if multi_frame else []
        names.append("_".join(parts))
    return check_names(names, [picture.file for picture in pictures], path)


def _frames_per_second(header: Any) -> float | None:
    """Return how fast frames follow one another (PS3.3 C.7.6.5), if the file says."""
    if header.get("FrameTime"):  # in ms
        return 1000.0 / float(header.FrameTime)
    rate = header.get("CineRate") or header.get("RecommendedDisplayFrameRate")
    return float(rate) if rate else None
