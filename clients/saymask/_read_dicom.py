"""DICOM images: one frame, shown as the file says (PS3.3 C.7.6.3, C.11.1, C.11.2).

Grey values go through the modality transformation, then the VOI LUT or the window, then
MONOCHROME1 is inverted; colour becomes RGB. Of multi-frame files with functional groups, each
value comes from the frame's own group, then the shared one.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saymask.errors import InvalidArgument, MissingExtra, SaymaskError
from saymask.readers import check_index
from saymask.source_image import Geometry, SourceImage
from saymask.windowing import range_to_show, window_to_uint8


def read_dicom(
    path: Path,
    content: bytes,
    digest: str,
    frame_number: int | None,
    window: tuple[float, float] | None,
    ct_window: tuple[float, float] | None,
) -> SourceImage:
    """Read one frame; arguments as `saymask.read_image` has them."""
    with dicom_errors(path.name):
        ds = open_dicom(content)
        if window is None and ds.get("Modality") == "CT":
            window = ct_window
        return _interpret(ds, path, digest, frame_number, window)


def open_dicom(content: bytes, *, pixels: bool = True) -> Any:
    """Return the data set of a file's bytes, with or without its pixels."""
    import pydicom

    return pydicom.dcmread(
        io.BytesIO(content), force=content[128:132] != b"DICM", stop_before_pixels=not pixels
    )


@contextmanager
def dicom_errors(name: str) -> Iterator[None]:
    """Turn what goes wrong with a DICOM file into `InvalidArgument`, with pydicom at hand.

    pydicom parses a value when it is first used, so a broken one may show anywhere.
    """
    try:
        import pydicom
    except ImportError as error:
        raise MissingExtra(f"reading {name} needs pydicom: pip install 'pydicom>=3.0'") from error
    try:
        yield
    except SaymaskError:
        raise
    except (
        pydicom.errors.BytesLengthException,
        pydicom.errors.InvalidDicomError,
        ArithmeticError,
        AttributeError,
        LookupError,
        NotImplementedError,
        OSError,
        TypeError,
        ValueError,
    ) as error:
        raise InvalidArgument(
            f"{name}: not a whole DICOM image: {type(error).__name__}: {error}"
        ) from error


def _interpret(
    ds: Any,
    path: Path,
    digest: str,
    frame_number: int | None,
    window: tuple[float, float] | None,
) -> SourceImage:
    if "PixelData" not in ds:
        raise InvalidArgument(f"{path.name}: this DICOM file holds no picture (no PixelData)")
    frames = int(ds.get("NumberOfFrames") or 1)
    number = check_index("frame", 1 if frame_number is None else frame_number, 1, frames, path.name)
    pixels, intensity = frame_pixels(ds, number - 1, window, path.name)
    return SourceImage(
        pixels=np.ascontiguousarray(pixels),
        path=path,
        sha256=digest,
        kind="dicom",
        part=f"frame{number}" if frames > 1 else "",
        description=f"frame {number} of {frames}" if frames > 1 else "",
        intensity=intensity,
        geometry=geometry_of_frame(ds, number - 1, frames),
        spacing_mm=spacing_of_frame(ds, number - 1),
    )


def is_color(ds: Any) -> bool:
    """Return whether the pictures of a file have colour."""
    return bool(ds.SamplesPerPixel == 3 or ds.PhotometricInterpretation == "PALETTE COLOR")


def frame_pixels(
    ds: Any, frame: int, window: tuple[float, float] | None, name: str
) -> tuple[NDArray[np.uint8], str]:
    """Return frame `frame`, from 0, as (H, W, 1) or (H, W, 3) uint8, and how it became 8 bits."""
    if is_color(ds):
        if window is not None:
            raise InvalidArgument(f"{name} is a colour image; leave the window out")
        return _color(ds, stored_values(ds, frame, name)), ""
    return _grey(ds, stored_values(ds, frame, name), frame, window)


def stored_values(ds: Any, frame: int, name: str) -> NDArray[Any]:
    """Decode one frame, from 0: (H, W), or (H, W, 3) in RGB."""
    import pydicom.pixels

    try:
        return pydicom.pixels.pixel_array(ds, index=frame)
    except RuntimeError as error:
        syntax = ds.file_meta.TransferSyntaxUID.name if "TransferSyntaxUID" in ds.file_meta else ""
        raise InvalidArgument(
            f"{name}: its pixels ({syntax or 'unknown encoding'}) need a decoder that is not "
            f"installed or failed: pip install pylibjpeg pylibjpeg-openjpeg pylibjpeg-libjpeg "
            f"({' '.join(str(error).split())})"
        ) from error


def _color(ds: Any, stored: NDArray[Any]) -> NDArray[np.uint8]:
    """Return RGB (H, W, 3) uint8."""
    import pydicom.pixels

    if ds.PhotometricInterpretation == "PALETTE COLOR":
        entry_bits = int(ds.RedPaletteColorLookupTableDescriptor[2])
        stored = pydicom.pixels.apply_color_lut(stored, ds)[..., :3]
    else:
        entry_bits = int(ds.BitsStored)
    return (stored.astype(np.uint32) * 255 // (2**entry_bits - 1)).astype(np.uint8)


def _grey(
    ds: Any, stored: NDArray[Any], frame: int, window: tuple[float, float] | None
) -> tuple[NDArray[np.uint8], str]:
    """Return (H, W, 1) uint8, and how values became 8 bits."""
    import pydicom.pixels

    values = rescaled_values(ds, stored, frame)
    voi = functional_group(ds, frame, "FrameVOILUTSequence")
    if window is not None:
        shown, intensity = window_to_uint8(values, *window), f"{window[0]:g}..{window[1]:g}"
    elif voi.get("VOILUTSequence"):
        bits = int(voi.VOILUTSequence[0].LUTDescriptor[2])
        table = pydicom.pixels.apply_voi(values.astype(np.int64), voi)
        shown, intensity = window_to_uint8(table, 0, 2**bits - 1), "the file's VOI LUT"
    elif voi.get("WindowCenter") is not None and voi.get("WindowWidth") is not None:
        center, width = first_number(voi.WindowCenter), first_number(voi.WindowWidth)
        function = str(voi.get("VOILUTFunction") or "LINEAR")
        shown = apply_window(values, center, width, function)
        intensity = f"window center {center:g}, width {width:g}"
    else:
        low, high, intensity = range_to_show(values[is_picture(ds, stored)], None)
        shown = window_to_uint8(values, low, high)
    if ds.PhotometricInterpretation == "MONOCHROME1":
        shown, intensity = np.invert(shown), f"{intensity}, inverted"
    return shown[:, :, np.newaxis], f"{intensity} -> 0..255"


def rescaled_values(ds: Any, stored: NDArray[Any], frame: int) -> NDArray[Any]:
    """Apply the modality transformation to what `stored_values` gave for a grey frame."""
    import pydicom.pixels

    rescale = functional_group(ds, frame, "PixelValueTransformationSequence")
    return pydicom.pixels.apply_modality_lut(stored, rescale)


def is_picture(ds: Any, stored: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which stored values are no padding."""
    return np.asarray(stored != ds.get("PixelPaddingValue", np.nan))


def apply_window(
    values: NDArray[Any], center: float, width: float, function: str
) -> NDArray[np.uint8]:
    """Apply a window as PS3.3 C.11.2.1.2 and C.11.2.1.3 define it.

    Args:
        values: any shape, after the modality transformation.
        center: WindowCenter.
        width: WindowWidth; at least 1 for LINEAR, above 0 otherwise.
        function: VOILUTFunction: `LINEAR`, `LINEAR_EXACT` or `SIGMOID`.

    Returns:
        Same shape, uint8.
    """
    if function == "SIGMOID":
        steps = np.clip(-4.0 * (values.astype(np.float64) - center) / width, -100, 100)
        return np.rint(255.0 / (1.0 + np.exp(steps))).astype(np.uint8)
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    # A width of 0, which LINEAR makes of the smallest it allows, is a threshold.
    width = max(width, 1e-6)
    return window_to_uint8(values, center - width / 2, center + width / 2)


def geometry_of_frame(ds: Any, frame: int, frames: int) -> Geometry | None:
    """Return the frame's place in a volume (columns, rows, 1) of its own; None if unsaid."""
    position = functional_group(ds, frame, "PlanePositionSequence").get("ImagePositionPatient")
    orientation = functional_group(ds, frame, "PlaneOrientationSequence").get(
        "ImageOrientationPatient"
    )
    spacing = functional_group(ds, frame, "PixelMeasuresSequence").get("PixelSpacing")
    if not (position and orientation and spacing) or (frames > 1 and _is_root(ds, position)):
        return None
    if "MOSAIC" in (ds.get("ImageType") or ()):  # Siemens: many slices side by side in one picture
        return None
    measures = functional_group(ds, frame, "PixelMeasuresSequence")
    along_row, along_column = np.array(orientation, float).reshape(2, 3)
    thickness = measures.get("SliceThickness") or measures.get("SpacingBetweenSlices") or 1.0
    affine_lps = np.eye(4)
    affine_lps[:3, 0] = along_row * float(spacing[1])  # PixelSpacing: between rows, then columns
    affine_lps[:3, 1] = along_column * float(spacing[0])
    affine_lps[:3, 2] = np.cross(along_row, along_column) * float(thickness)
    affine_lps[:3, 3] = np.array(position, float)
    affine_ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine_lps
    # Voxel i runs along columns, j along rows: picture (row, column) is voxel (column, row, 0).
    mapping = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    return Geometry(affine_ras, (int(ds.Columns), int(ds.Rows), 1), mapping)


def _is_root(ds: Any, position: Any) -> bool:
    """Return whether a position is the file's, not a frame's: it then says nothing of a frame."""
    return ds.get("ImagePositionPatient") is position


def spacing_of_frame(ds: Any, frame: int) -> tuple[float, float] | None:
    """Return mm between rows and between columns; None if unsaid."""
    spacing = functional_group(ds, frame, "PixelMeasuresSequence").get("PixelSpacing")
    return (float(spacing[0]), float(spacing[1])) if spacing else None


def functional_group(ds: Any, frame: int, keyword: str) -> Any:
    """Return the data set that holds a functional group's elements for one frame."""
    for groups, index in (
        (ds.get("PerFrameFunctionalGroupsSequence"), frame),
        (ds.get("SharedFunctionalGroupsSequence"), 0),
    ):
        if groups and len(groups) > index and groups[index].get(keyword):
            return groups[index][keyword].value[0]
    return ds


def first_number(value: Any) -> float:
    """Return the first of possibly several values."""
    try:
        return float(value)
    except TypeError:
        return float(value[0])
