"""Triton backend `onnxruntime` in Python: serves any ONNX model from its `config.pbtxt` alone.

Takes the place of NVIDIA's C++ backend where a server has none. `serving.onnx_session` builds the
session; here requests become batches: those of one `execute` whose shapes agree are concatenated
along the batch axis, run once, and split again.
"""

from __future__ import annotations  # the stub adds the API's classes after this import

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

import serving.python_model  # noqa: F401  # first of ours: it sets the stub's locale
from serving import model_config
from serving.environment import check_stub
from serving.onnx_session import build_session, run_options
from serving.tensors import array_of
from serving.triton_error import error_response

DEFAULT_FILE = "model.onnx"


class TritonPythonModel:
    """One instance of one ONNX model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the session and check its graph; called once by Triton."""
        check_stub()
        self._config = model_config.from_json(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        on_gpu = args["model_instance_kind"] == "GPU"
        self._session = build_session(
            folder / (self._config.proto.default_model_filename or DEFAULT_FILE),
            self._config,
            int(args["model_instance_device_id"]) if on_gpu else None,
        )
        self._run_options = run_options(self._config)
        self._batched = self._config.max_batch_size > 0

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Run the requests, together where their shapes agree; one response each, in order."""
        feeds = [self._feed(request) for request in requests]
        responses: list[Any] = [None] * len(requests)
        for members in self._groups(feeds):
            results = self._run([feeds[index] for index in members])
            for index, result in zip(members, results, strict=True):
                responses[index] = self._response(requests[index], result)
        return responses

    def _feed(self, request: Any) -> dict[str, np.ndarray]:
        return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}

    def _groups(self, feeds: list[dict[str, np.ndarray]]) -> list[list[int]]:
        """Indices of requests that can run as one batch."""
        if not self._batched:
            return [[index] for index in range(len(feeds))]
        groups: dict[tuple, list[int]] = {}
        for index, feed in enumerate(feeds):
            key = tuple(sorted((name, array.shape[1:]) for name, array in feed.items()))
            groups.setdefault(key, []).append(index)
        return list(groups.values())

    def _run(self, feeds: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray] | Exception]:
        """Outputs of each feed, or the error it met."""
        if len(feeds) == 1:
            try:
                return [self._outputs(feeds[0])]
            except Exception as error:  # becomes the response of this request
                return [error]
        try:
            batch = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
            outputs = self._outputs(batch)
        except Exception:  # one request's values must not fail its neighbours
            return [self._run([feed])[0] for feed in feeds]
        sizes = [next(iter(feed.values())).shape[0] for feed in feeds]
        ends = np.cumsum(sizes)
        for name, array in outputs.items():
            if array.shape[:1] != (ends[-1],):
                fault = RuntimeError(
                    f"output {name!r} has shape {array.shape} for a batch of {ends[-1]}: the graph "
                    "does not keep the batch axis, set max_batch_size 0"
                )
                return [fault] * len(feeds)
        parts = {name: np.split(array, ends[:-1]) for name, array in outputs.items()}
        return [{name: parts[name][index] for name in parts} for index in range(len(feeds))]

    def _outputs(self, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = self._config.output_names
        try:
            arrays = self._session.run(names, _decoded(feed), self._run_options)
        except InvalidArgument as error:  # ONNX Runtime's word for inputs the graph refuses
            raise ValueError(str(error)) from error
        return dict(zip(names, arrays, strict=True))

    def _response(self, request: Any, result: dict[str, np.ndarray] | Exception) -> Any:
        if isinstance(result, Exception):
            return error_response(result, request.request_id())
        try:
            wanted = set(request.requested_output_names())
            tensors = [
                pb_utils.Tensor(name, array_of(array, self._config.output(name), self._batched))
                for name, array in result.items()
                if name in wanted
            ]
        except TypeError as error:
            return error_response(error, request.request_id())
        return pb_utils.InferenceResponse(output_tensors=tensors)


def _decoded(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The feed with BYTES tensors as ONNX Runtime takes strings: object arrays of str."""
    return {
        name: _text(array) if array.dtype == np.object_ else array for name, array in feed.items()
    }


def _text(array: np.ndarray) -> np.ndarray:
    flat = [value.decode("utf-8") for value in array.reshape(-1)]
    return np.array(flat, dtype=np.object_).reshape(array.shape)
