"""A real ultrasound film of 30 frames, which the package `pydicom` carries among its test files.

An epicardial cine without labels: input to look at, not to train or to score on.
"""

import numpy as np
import pydicom
from pydicom.data import get_testdata_file

from training.data.sequences.sequence import ImageSequence

_FILE = "examples_ybr_color.dcm"


def read_example_cine() -> ImageSequence:
    """Read the film; frames (30, 240, 320, 3) RGB, masks (30, 0, 240, 320).

    Raises:
        FileNotFoundError: if this installation of `pydicom` does not carry the file.
    """
    path = get_testdata_file(_FILE, download=False)
    if path is None:
        raise FileNotFoundError(
            f"{_FILE}: not in the installed pydicom; install it from its wheel: pip install pydicom"
        )
    ds = pydicom.dcmread(str(path))
    frames = ds.pixel_array  # in RGB, whatever the file's colour space
    region = ds.SequenceOfUltrasoundRegions[0]
    # PS3.3 C.8.5.5: this file's regions are in centimetres.
    spacing_cm = abs(region.PhysicalDeltaY), abs(region.PhysicalDeltaX)
    return ImageSequence(
        frames,
        np.zeros((len(frames), 0, *frames.shape[1:3]), np.bool_),
        names=(),
        modality="ultrasound",
        pixel_spacing_mm=(10 * spacing_cm[0], 10 * spacing_cm[1]),
    )
