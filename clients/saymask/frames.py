"""A sequence of pictures read one at a time: a volume's slices, a cine, a video.

Chooses the reader and keeps what all share; the formats are in `_frames_nifti`, `_frames_dicom`,
`_frames_pictures` and `_frames_video`. Nothing here talks to a server.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saymask.errors import InvalidArgument
from saymask.readers import DICOM_ENDINGS, NIFTI_ENDINGS, PICTURE_ENDINGS, check_index
from saymask.source_image import Geometry
from saymask.windowing import SOFT_TISSUE_HU

__all__ = ["Frames", "SequenceGeometry", "read_frames"]

VIDEO_ENDINGS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".gif")

_BACKWARDS_FRAMES = 64  # read ahead at a time, and kept, where a sequence is gone through backwards


@dataclass(frozen=True, eq=False)
class SequenceGeometry:
    """Where the frames of a sequence lie in a volume; each pixel is one voxel."""

    first: Geometry
    """Of frame 0."""
    voxel_step: tuple[int, int, int]
    """Voxels along i, j and k from one frame to the next; zeros where frames follow in time."""
    times: int = 1
    """Volumes of a series (x, y, z, t) of which the frames are one slice, in order; 1 where the
    frames are slices of one volume."""
    time_step_s: float | None = None
    """Seconds from one volume to the next; None if there is one, or the file does not say."""

    def of_frame(self, index: int) -> Geometry:
        """Return the geometry of one frame, from 0."""
        mapping = self.first.pixel_to_voxel.copy()
        mapping[:, 2] += np.array(self.voxel_step) * index
        return Geometry(self.first.affine_ras, self.first.shape, mapping, self.first.file_unit)


@dataclass(frozen=True, eq=False)
class Frames:
    """Pictures of one size in order. Each iteration reads them anew, one at a time."""

    path: Path
    """File or folder they are read from."""
    kind: str
    """`nifti`, `dicom`, `pictures` (a folder of them) or `video`."""
    size_hw: tuple[int, int]
    """Rows and columns of every frame."""
    count: int | None
    """Frames in the sequence; of a video what its header says, which may be off; None if unsaid."""
    open_at: Callable[[int], Iterator[NDArray[np.uint8]]] = field(repr=False)
    """Reads from a frame on, unchecked; `read_from` is for callers."""
    names: tuple[str, ...] | None = field(default=None, repr=False)
    """Per frame, what to call it and files about it; None: `frame00001` and so on."""
    description: str = ""
    """Which part of the file or folder it is, for people, as `axial slices 0 to 90`."""
    intensity: str = ""
    """How values became 8 bits, as `-160..240 -> 0..255`; empty where the files have 8 bits."""
    frames_per_second: float | None = None
    """None where frames do not follow in time, or the file does not say how fast."""
    spacing_mm: tuple[float, float] | None = None
    """Distance of pixel centres between rows and between columns; None if unknown."""
    geometry: SequenceGeometry | None = None
    """Place in a volume and the patient; None where the files do not say."""

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Yield every frame, (H, W) or (H, W, 3) RGB uint8."""
        return self.read_from(0)

    def read_from(self, start: int) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames from `start`, counted from 0, to the last.

        Raises:
            InvalidArgument: if there is no such frame, or when one cannot be read or has another
                size.
        """
        self._check_index(start)
        index = start - 1
        for index, pixels in enumerate(self.open_at(start), start):
            if pixels.shape[:2] != self.size_hw:
                (height, width), (rows, columns) = self.size_hw, pixels.shape[:2]
                raise InvalidArgument(
                    f"{self.path.name}: {self.name_of(index)} has {rows} x {columns} pixels, the "
                    f"first one {height} x {width}; split the sequence where its size changes"
                )
            yield pixels
        if index < start:
            raise InvalidArgument(f"frame {start}: {self.path.name} ends before it")

    def read_backwards_from(self, start: int) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames from `start` down to frame 0; errors as `read_from` has them.

        A video, which can only be read forwards, is read from its beginning again for each 64
        frames.
        """
        self._check_index(start)
        for stop in range(start + 1, 0, -_BACKWARDS_FRAMES):
            first = max(0, stop - _BACKWARDS_FRAMES)
            yield from reversed(list(itertools.islice(self.read_from(first), stop - first)))

    def name_of(self, index: int) -> str:
        """Return what to call a frame, from 0, and files about it."""
        return f"frame{index + 1:05d}" if self.names is None else self.names[index]

    def _check_index(self, index: int) -> None:
        if self.names is not None:
            check_index("frame", index, 0, len(self.names), self.path.name)
        elif index < 0:
            raise InvalidArgument(f"frame {index}: {self.path.name} has them from 0 on")


def read_frames(
    path: str | Path,
    *,
    plane: str | None = None,
    slice_index: int | None = None,
    frame_number: int | None = None,
    series: str | None = None,
    window: tuple[float, float] | None = None,
    ct_window: tuple[float, float] | None = SOFT_TISSUE_HU,
) -> Frames:
    """Open a sequence: what is wrong with it as a whole is said here, before any frame is used.

    Args:
        path: a NIfTI file, a multi-frame DICOM file, a folder with a DICOM series or with pictures
            (PNG, JPEG; other files in it are left alone, folders in it too), or a video (MP4, AVI,
            GIF and what else FFmpeg reads).
        plane: of NIfTI: `axial`, `coronal` or `sagittal`, whose slices are the frames; None is the
            scanner's own: as the header says, else across the thickest spacing, else across k.
        slice_index: where there are slices at several times, goes through the times of this slice,
            from 0.
        frame_number: where there are slices at several times, goes through the slices at this time,
            from 1.
        series: of a folder that holds several DICOM series: SeriesInstanceUID or SeriesNumber.
        window: (low, high) values shown black and white, the same for every frame; None takes the
            files' own window where all name one and the same, else percentiles 0.5 and 99.5.
        ct_window: the window of CT where `window` is None, whatever the file says; None makes no
            difference. CT is as `saymask.read_image` has it.

    Returns:
        The frames in order: slices by where they lie, not by the names of files; pictures by name,
        with numbers in names counted (`frame9` before `frame10`).

    Raises:
        InvalidArgument: if there is no such file, no frame in it, or frames differ in size; if it
            cannot be read; if it holds several sequences, which the message names.
        MissingExtra: if the format's package is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise InvalidArgument(f"there is no file or folder {path}")
    if window is not None and not window[1] > window[0]:
        raise InvalidArgument(f"window: expected low < high, got {window[0]} and {window[1]}")
    kind, files = _kind_of(path)
    if kind != "nifti" and plane is not None:
        raise InvalidArgument(f"{path.name} is no NIfTI volume; leave the plane out")
    if kind in ("pictures", "video") and not (slice_index is None and frame_number is None):
        raise InvalidArgument(
            f"{path.name} has no slices at several times; leave slice and frame out"
        )
    if series is not None and not (kind == "dicom" and path.is_dir()):
        raise InvalidArgument(f"{path.name} is no folder of DICOM series; leave the series out")
    if kind == "nifti":
        from saymask._frames_nifti import nifti_frames

        return nifti_frames(path, plane, slice_index, frame_number, window, ct_window)
    if kind == "dicom":
        from saymask._frames_dicom import dicom_frames

        return dicom_frames(path, files, series, slice_index, frame_number, window, ct_window)
    if kind == "pictures":
        from saymask._frames_pictures import picture_frames

        return picture_frames(path, files, window)
    if window is not None:
        raise InvalidArgument(f"{path.name} has 8 bits a channel already; leave the window out")
    from saymask._frames_video import gif_frames, video_frames

    return (gif_frames if path.suffix.lower() == ".gif" else video_frames)(path)


def read_bytes(path: Path) -> bytes:
    """Return a file's content.

    Raises:
        InvalidArgument: if it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidArgument(f"{path}: cannot be read: {error.strerror}") from error


def stem_of(path: Path) -> str:
    """Return a file's name without an ending this client knows; a dot may be part of a name."""
    name = path.name
    known = (*DICOM_ENDINGS, *PICTURE_ENDINGS)
    return name[: -len(path.suffix)] if path.suffix.lower() in known else name


def check_names(names: list[str], files: list[Path], folder: Path) -> tuple[str, ...]:
    """Return the names of frames if all differ."""
    first_of: dict[str, Path] = {}
    for name, file in zip(names, files, strict=True):
        if name in first_of:
            raise InvalidArgument(
                f"{folder.name}: {first_of[name].name} and {file.name} would have masks of one "
                "name; rename one, or take it out"
            )
        first_of[name] = file
    return tuple(names)


def choose_run(
    slices: int, times: int, slice_index: int | None, frame_number: int | None, name: str
) -> list[tuple[int, int]]:
    """Return (slice, time), both from 0, of each frame: of all slices at one time, or the reverse.

    Raises:
        InvalidArgument: if there are several of both and nobody chose, or the choice is not there.
    """
    if slices > 1 and times > 1 and (slice_index is None) == (frame_number is None):
        raise InvalidArgument(
            f"{name} holds {slices} slices at {times} times; name either a slice, 0..{slices - 1}, "
            f"to follow it through time, or a frame, 1..{times}, to go through the slices then"
        )
    if slice_index is not None:
        check_index("slice", slice_index, 0, slices, name)
    if frame_number is not None:
        check_index("frame", frame_number, 1, times, name)
    return [
        (slice_, time)
        for slice_ in (range(slices) if slice_index is None else [slice_index])
        for time in (range(times) if frame_number is None else [frame_number - 1])
    ]


def _kind_of(path: Path) -> tuple[str, list[Path]]:
    """Return the kind of a sequence and, of DICOM and pictures, its files."""
    name = path.name.lower()
    if path.is_dir():
        return _kind_of_folder(path)
    if name.endswith(NIFTI_ENDINGS):
        return "nifti", [path]
    if name.endswith(VIDEO_ENDINGS):
        return "video", [path]
    if _is_dicom(path):
        return "dicom", [path]
    if name.endswith(PICTURE_ENDINGS):
        raise InvalidArgument(
            f"{path.name} is a single picture; name the folder that holds the sequence"
        )
    raise InvalidArgument(
        f"{path.name}: not a sequence this client reads: NIfTI (.nii, .nii.gz), multi-frame DICOM, "
        f"video ({', '.join(VIDEO_ENDINGS)}), or a folder of DICOM files or pictures"
    )


def _kind_of_folder(folder: Path) -> tuple[str, list[Path]]:
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name[0] != ".")
    pictures = [file for file in files if file.name.lower().endswith(PICTURE_ENDINGS)]
    dicom = [file for file in files if file not in set(pictures) and _is_dicom(file)]
    if pictures and dicom:
        raise InvalidArgument(
            f"{folder} holds {len(dicom)} DICOM files and {len(pictures)} pictures; put the "
            "sequence into a folder of its own"
        )
    if not pictures and not dicom:
        raise InvalidArgument(
            f"{folder} holds no DICOM file and no picture ({', '.join(PICTURE_ENDINGS)}); name the "
            "folder they lie in, or a volume or video itself"
        )
    return ("dicom", dicom) if dicom else ("pictures", pictures)


def _is_dicom(path: Path) -> bool:
    if path.name.lower().endswith(DICOM_ENDINGS):
        return True
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError as error:
        raise InvalidArgument(f"{path}: cannot be read: {error.strerror}") from error
