"""Writes the masks of a track to files, in the geometry or under the names of their source.

The JSON report's fields are documented in docs/client.md.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

import saymask
from saymask.errors import InvalidArgument
from saymask.frames import Frames
from saymask.results import ModelInfo
from saymask.tracks import Track, TrackedFrame
from saymask.writers import save_nifti

__all__ = ["TRACK_SCHEMA", "track_report", "write_track_nifti", "write_track_pngs"]

TRACK_SCHEMA = "saymask.track/1"
"""Name and version of the report's fields."""


def write_track_nifti(path: Path, frames: Frames, track: Track) -> None:
    """Write the masks as one NIfTI file of the source's shape and affine: 1 in a mask, else 0.

    Frames that were not tracked are 0. A slice followed through the times of a series becomes a
    series (x, y, z, t), 0 in its other slices.

    Raises:
        InvalidArgument: if the source has no place in a volume, or the masks are not of it.
        MissingExtra: if nibabel is not installed.
    """
    track.check_belongs_to(frames)
    geometry = frames.geometry
    if geometry is None:
        raise InvalidArgument(
            f"{frames.path.name} does not say where its frames lie in the patient, so its masks "
            "cannot be NIfTI; write PNG"
        )
    volume = np.zeros((*geometry.first.shape, geometry.times), np.uint8)
    for tracked in track:
        time = tracked.index if geometry.times > 1 else 0
        voxels = geometry.of_frame(tracked.index).voxels_of(*np.nonzero(tracked.mask))
        volume[(*voxels, time)] = 1
    if geometry.times == 1:
        volume = volume[..., 0]
    save_nifti(path, volume, geometry.first, geometry.time_step_s)


def write_track_pngs(folder: Path, frames: Frames, track: Track) -> list[Path]:
    """Write each mask as an 8-bit grey PNG, 255 in the mask, named as its frame.

    The folder is made if it is not there; frames that were not tracked get no file.

    Returns:
        The files, by index of the frame.

    Raises:
        InvalidArgument: if the masks are not of these frames.
    """
    track.check_belongs_to(frames)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for tracked in track:
        written.append(folder / f"{frames.name_of(tracked.index)}.png")
        PIL.Image.fromarray(tracked.mask.astype(np.uint8) * 255).save(written[-1], format="PNG")
    return written


def track_report(
    frames: Frames,
    track: Track,
    *,
    server: str | None = None,
    models: Iterable[ModelInfo] = (),
    files: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the report of a track, ready for `saymask.writers.write_json`.

    Args:
        frames: the sequence that was tracked through.
        track: its masks.
        server: name and version of the server, as `Health.server`; None where unknown.
        models: models of the server, of which names and versions are kept.
        files: names of the files written, by what they hold.

    Raises:
        InvalidArgument: if the masks are not of these frames.
    """
    track.check_belongs_to(frames)
    rate = frames.frames_per_second
    names = sorted({(model.name, model.version) for model in models})
    return {
        "schema": TRACK_SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "prompt": track.prompt,
        "source": {
            "file": frames.path.name,
            "kind": frames.kind,
            "part": frames.description or None,
            "frame_count": frames.count,
            "size_hw": list(frames.size_hw),
            "spacing_mm": None if frames.spacing_mm is None else _rounded(frames.spacing_mm),
            "frames_per_second": None if rate is None else round(rate, 3),
            "intensity": frames.intensity or None,
        },
        "frames": [_of_frame(frames, tracked) for tracked in track],
        "server": server,
        "models": [{"name": name, "version": version} for name, version in names],
        "client": f"saymask {saymask.__version__}",
        "files": dict(files or {}),
    }


def _of_frame(frames: Frames, tracked: TrackedFrame) -> dict[str, Any]:
    rate, geometry = frames.frames_per_second, frames.geometry
    return {
        "index": tracked.index,
        "name": frames.name_of(tracked.index),
        "time_s": None if rate is None else round(tracked.index / rate, 6),
        "first_pixel_ras_mm": (
            None if geometry is None else _rounded(geometry.of_frame(tracked.index).world_ras(0, 0))
        ),
        "found": tracked.found,
        "score": round(tracked.score, 6),
        "box_xyxy": None if tracked.box_xyxy is None else _rounded(tracked.box_xyxy),
        "area_px": int(tracked.mask.sum()),
    }


def _rounded(numbers: Iterable[float]) -> list[float]:
    return [round(float(number), 3) for number in numbers]
