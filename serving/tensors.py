"""Conversion between a pipeline's Python values and the arrays that cross Triton's boundary.

Pure functions on arrays and tensor specs; no Triton API.
"""

from typing import Any

import numpy as np

from serving.model_config import TensorSpec


def text_of(array: np.ndarray, name: str) -> str:
    """The one string of a BYTES tensor.

    Args:
        array: (1,) or any shape of one element, dtype object, UTF-8 bytes.
        name: Tensor name, for the error.

    Raises:
        ValueError: Not exactly one element, invalid UTF-8, or a NUL character.
    """
    if array.size != 1:
        raise ValueError(f"{name} has shape {array.shape}: expected one string, shape (1,)")
    value = array.reshape(-1)[0]
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{name} is not UTF-8: byte 0x{error.object[error.start]:02x} at {error.start}"
            ) from None
    if "\0" in value:
        raise ValueError(f"{name} has a NUL character at {value.index(chr(0))}")
    return value


def array_of(value: Any, spec: TensorSpec, batched: bool = False) -> np.ndarray:
    """Array a pipeline's value becomes on the wire, checked against the configuration.

    Args:
        value: An array, or str or bytes for a BYTES tensor of shape (1,).
        spec: The tensor as `config.pbtxt` states it.
        batched: True when the array carries a batch axis that `spec.dims` leaves out.

    Returns:
        C-contiguous array of `spec.numpy_dtype`.

    Raises:
        TypeError: The value is no array, has another dtype or other dimensions: the model's fault.
    """
    if isinstance(value, str | bytes):
        encoded = value.encode("utf-8") if isinstance(value, str) else value
        value = np.array([encoded], dtype=np.object_)
    if not isinstance(value, np.ndarray):
        raise TypeError(f"output {spec.name!r} is a {type(value).__name__}, expected an array")
    expected = spec.numpy_dtype
    if value.dtype.kind in "SU" and expected == np.object_:
        value = value.astype(np.object_)
    if value.dtype != expected:
        raise TypeError(
            f"output {spec.name!r} is {value.dtype}, config.pbtxt says {spec.data_type}"
        )
    dims = (-1, *spec.dims) if batched else spec.dims
    fits = len(dims) == value.ndim and all(
        want in (-1, have) for want, have in zip(dims, value.shape, strict=True)
    )
    if not fits:
        raise TypeError(f"output {spec.name!r} has shape {value.shape}, config.pbtxt says {dims}")
    return np.ascontiguousarray(value)
