"""Asks the models of a running server one by one, as tensors."""

from dataclasses import dataclass

import numpy as np
import tritonclient.grpc as grpc
from torch import Tensor

from serving import model_config


@dataclass(frozen=True)
class InSequence:
    """Place of a request in a sequence."""

    id: str
    start: bool
    end: bool


class ServedModels:
    """Models of one server; their tensors are those of this checkout's configurations.

    Args:
        client: Connection to the server.
    """

    def __init__(self, client: grpc.InferenceServerClient) -> None:
        self._client = client

    def ask(
        self,
        model: str,
        place: InSequence | None = None,
        **inputs: np.ndarray | Tensor | str,
    ) -> dict[str, np.ndarray]:
        """All outputs of a model, by name; texts are BYTES tensors of one element."""
        config = model_config.read(model)
        tensors = []
        for name, value in inputs.items():
            if isinstance(value, str):
                array = np.array([value.encode()], np.object_)
            else:
                array = value.numpy() if isinstance(value, Tensor) else value
            tensor = grpc.InferInput(name, list(array.shape), config.input(name).wire_type)
            tensors.append(tensor.set_data_from_numpy(array))
        result = self._client.infer(
            model,
            tensors,
            sequence_id=place.id if place else 0,
            sequence_start=place is not None and place.start,
            sequence_end=place is not None and place.end,
        )
        return {name: result.as_numpy(name) for name in config.output_names}
