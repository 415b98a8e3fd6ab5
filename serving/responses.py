"""Triton responses from arrays; for the stub, where alone Triton's Python API exists."""

# The stub adds the classes of its API after it has imported the model; annotations would look
# them up now.
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import triton_python_backend_utils as pb_utils


def response_of(arrays: dict[str, np.ndarray], wanted: Sequence[str]) -> pb_utils.InferenceResponse:
    """Response with the outputs that the request asked for, and no others.

    Triton 24.10 would drop the others itself, but frees them without Python's lock where a response
    is sent by sender. That is the likely cause of a corrupted heap of which `mllm`, whose pipeline
    wants one output of four, died twice under load.

    Args:
        arrays: Output name -> array as it goes on the wire; BYTES are object arrays of bytes.
        wanted: Names that the request asked for; none: all.
    """
    return pb_utils.InferenceResponse(
        output_tensors=[
            pb_utils.Tensor(name, array)
            for name, array in arrays.items()
            if not wanted or name in wanted
        ]
    )
