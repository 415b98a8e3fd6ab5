"""Reads one picture from a file: PNG and JPEG, NIfTI, DICOM.

Chooses the reader and keeps what all share; the formats are in `_read_picture`, `_read_nifti` and
`_read_dicom`. Nothing here talks to a server.
"""

import hashlib
import os
from pathlib import Path

from saymask.errors import InvalidArgument
from saymask.source_image import SourceImage

__all__ = ["PLANES", "read_image"]

PLANES = ("axial", "coronal", "sagittal")
"""Planes a volume can be cut in."""

NIFTI_ENDINGS = (".nii", ".nii.gz")
DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def read_image(
    path: str | Path,
    *,
    plane: str | None = None,
    slice_index: int | None = None,
    frame_number: int | None = None,
    window: tuple[float, float] | None = None,
    ct_window: tuple[float, float] | None = None,
) -> SourceImage:
    """Read one picture.

    Args:
        path: a PNG or JPEG (and what else Pillow opens; EXIF orientation is applied), a NIfTI
            file (`.nii`, `.nii.gz`), or a DICOM file.
        plane: of a NIfTI volume: `axial`, `coronal` or `sagittal`; None is axial.
        slice_index: of a NIfTI volume: voxel index from 0 along the axis nearest to the plane's
            normal; None is the middle one.
        frame_number: of a multi-frame DICOM file or a NIfTI series (x, y, z, t): from 1, as DICOM
            counts; None is the first.
        window: (low, high) values shown black and white; None takes the file's own window, and
            where it names none, percentiles 0.5 and 99.5.
        ct_window: the window of CT where `window` is None, whatever the file says; CT is a DICOM
            file of that modality, or a NIfTI volume with values below 0. None makes no difference.

    Raises:
        InvalidArgument: if there is no such file, part of it, or the file is not an image.
        MissingExtra: if the format's package is not installed.
    """
    path = Path(path)
    if path.is_dir():
        raise InvalidArgument(f"{path} is a folder; name one file in it")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InvalidArgument(f"there is no file {path}") from None
    except OSError as error:
        raise InvalidArgument(f"{path}: cannot be read: {error.strerror}") from error
    if not content:
        raise InvalidArgument(f"{path} is empty")
    if window is not None and not window[1] > window[0]:
        raise InvalidArgument(f"window: expected low < high, got {window[0]} and {window[1]}")
    digest = hashlib.sha256(content).hexdigest()
    name = path.name.lower()
    if name.endswith(NIFTI_ENDINGS):
        from saymask._read_nifti import read_nifti

        return read_nifti(
            path, content, digest, plane, slice_index, frame_number, window, ct_window
        )
    if plane is not None or slice_index is not None:
        raise InvalidArgument(
            f"{path.name} is no NIfTI volume, so it has no planes to cut; leave plane and slice out"
        )
    if content[128:132] == b"DICM" or name.endswith(DICOM_ENDINGS):
        from saymask._read_dicom import read_dicom

        return read_dicom(path, content, digest, frame_number, window, ct_window)
    if frame_number is not None:
        raise InvalidArgument(f"{path.name} is a single picture; leave the frame out")
    from saymask._read_picture import read_picture

    return read_picture(path, content, digest, window)


def check_index(what: str, value: int, first: int, count: int, name: str | os.PathLike[str]) -> int:
    """Return `value` if it is one of `count` numbers from `first` on."""
    if not first <= value < first + count:
        raise InvalidArgument(
            f"{what} {value}: {name} has {first}..{first + count - 1}"
            if count > 1
            else f"{what} {value}: {name} has only {first}"
        )
    return value
