"""Asks any served model, component models too, in numpy arrays."""

from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import np_to_triton_dtype

Tensors = dict[str, np.ndarray]


def infer(
    client: triton.InferenceServerClient, model: str, inputs: Tensors, request_id: str = ""
) -> Tensors:
    """Outputs of one request, by name."""
    tensors = []
    for name, array in inputs.items():
        tensor = triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
        tensors.append(tensor.set_data_from_numpy(np.ascontiguousarray(array)))
    result = client.infer(model, tensors, request_id=request_id)
    response: Any = result.get_response()
    return {output.name: result.as_numpy(output.name) for output in response.outputs}
