"""Requests and responses of the public pipelines, as the KServe v2 messages that carry them.

The tensors are those of `docs/protocol.md`. Both clients, blocking and asyncio, build and read
their messages here; sending is theirs.
"""

import math
import struct
import time
import uuid
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from saymask import mask_codec
from saymask.errors import InvalidArgument, ServerError
from saymask.results import ModelInfo, Segmentation, TensorInfo

MASK_PIPELINE = "medisee"
EXPLANATION_PIPELINE = "medisee_explain"
ORGAN_PIPELINE = "organseg"
CONVERSATION_PIPELINE = "mediround"
PIPELINES = (MASK_PIPELINE, EXPLANATION_PIPELINE, ORGAN_PIPELINE, CONVERSATION_PIPELINE)

_HEADROOM_BYTES = 64 * 2**10  # what a message carries beside the pixels and the prompt


def infer_request(
    model_name: str, image: NDArray[np.uint8], prompt: str, *, max_message_bytes: int
) -> Any:
    """Build the request of one prompt about one image.

    Args:
        model_name: one of the public pipelines that take an image and a prompt.
        image: (H, W, C) uint8, C in {1, 3}, contiguous.
        prompt: the user's text.
        max_message_bytes: limit of the channel.

    Returns:
        A `ModelInferRequest` with an id of its own.

    Raises:
        InvalidArgument: if the message would not pass the channel's limit.
    """
    text = prompt.encode()
    if image.nbytes + len(text) + _HEADROOM_BYTES > max_message_bytes:
        raise InvalidArgument(
            f"image: {image.shape} takes {image.nbytes:,} bytes, more than the channel's limit of "
            f"{max_message_bytes:,}; send a smaller image or pass Client(max_message_bytes=...)"
        )
    return service_pb2.ModelInferRequest(
        model_name=model_name,
        id=uuid.uuid4().hex,
        inputs=[
            service_pb2.ModelInferRequest.InferInputTensor(
                name="image", datatype="UINT8", shape=image.shape
            ),
            service_pb2.ModelInferRequest.InferInputTensor(
                name="prompt", datatype="BYTES", shape=[1]
            ),
        ],
        raw_input_contents=[image.tobytes(), struct.pack("<I", len(text)) + text],
    )


def segmentation_of(response: Any, prompt: str, image_shape: tuple[int, ...]) -> Segmentation:
    """Read the answer of the mask pipeline.

    Args:
        response: a `ModelInferResponse`.
        prompt: what was asked.
        image_shape: (H, W, C) of the image that was sent.

    Raises:
        ServerError: if the tensors are not those of the protocol.
    """
    height, width = image_shape[:2]
    packed_shape = (1, height, mask_codec.packed_width(width))
    packed = _tensor(response, "masks", "UINT8", np.uint8, packed_shape)
    boxes_xyxy = _tensor(response, "boxes_xyxy", "FP32", "<f4", (1, 4))
    scores = _tensor(response, "scores", "FP32", "<f4", (1,))
    mask = mask_codec.decode(packed, width)[0]
    mask.flags.writeable = False
    return Segmentation(
        prompt=prompt,
        mask=mask,
        box_xyxy=boxes_xyxy[0],
        score=float(scores[0]),
        model_name=response.model_name,
        model_version=response.model_version,
        request_id=response.id,
    )


def explanation_request(image: NDArray[np.uint8], prompt: str, *, max_message_bytes: int) -> Any:
    """Build the request of an explanation: as `infer_request`, and asking to mark the last piece.

    The caller keeps its side of the stream open until that mark, or an error, and does not ask
    for errors as a status (`triton_grpc_error`): both crash Triton 2.51 now and then.
    """
    request = infer_request(
        EXPLANATION_PIPELINE, image, prompt, max_message_bytes=max_message_bytes
    )
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    return request


def is_last(streamed: Any) -> bool:
    """Return whether a `ModelStreamInferResponse` is the last; it may carry text all the same."""
    return bool(streamed.infer_response.parameters["triton_final_response"].bool_param)


def text_of(streamed: Any) -> str:
    """Read one increment of an explanation from a `ModelStreamInferResponse`; "" if it has none.

    Raises:
        ServerError: if the tensors are not those of the protocol.
    """
    response = streamed.infer_response
    if not response.outputs:
        return ""
    raw = _raw(response, "text", "BYTES")
    if len(raw) < 4 or len(raw) != 4 + struct.unpack_from("<I", raw)[0]:
        raise _unexpected(response, "text: expected one BYTES element")
    return raw[4:].decode("utf-8", errors="replace")


def model_info_of(version: str, ready: bool, metadata: Any) -> ModelInfo:
    """Join what `ModelReady` and `ModelMetadata` say about one version of a model."""
    return ModelInfo(
        name=metadata.name,
        version=version,
        state="READY" if ready else "UNAVAILABLE",
        inputs=_tensor_infos(metadata.inputs),
        outputs=_tensor_infos(metadata.outputs),
    )


def _tensor_infos(tensors: Any) -> tuple[TensorInfo, ...]:
    return tuple(TensorInfo(t.name, t.datatype, tuple(t.shape)) for t in tensors)


def _tensor(
    response: Any, name: str, datatype: str, dtype: Any, shape: tuple[int | None, ...]
) -> NDArray[Any]:
    """Return one output as a read-only array of exactly this type and shape; None is any size."""
    raw = _raw(response, name, datatype)
    found = next(tuple(o.shape) for o in response.outputs if o.name == name)
    fits = len(found) == len(shape) and all(
        want in (None, have) for want, have in zip(shape, found, strict=True)
    )
    if not fits or len(raw) != math.prod(found) * np.dtype(dtype).itemsize:
        raise _unexpected(response, f"{name}: expected {shape}, got {found}, {len(raw)} bytes")
    return np.frombuffer(raw, dtype).reshape(found)


def _texts(response: Any, name: str) -> list[str]:
    """Return the strings of one output, each of which follows its length."""
    raw = _raw(response, name, "BYTES")
    texts, start = [], 0
    while start + 4 <= len(raw):
        end = start + 4 + struct.unpack_from("<I", raw, start)[0]
        texts.append(raw[start + 4 : end].decode("utf-8", errors="replace"))
        start = end
    if start != len(raw):
        raise _unexpected(response, f"{name}: its {len(raw)} bytes are not whole strings")
    return texts


def _raw(response: Any, name: str, datatype: str) -> bytes:
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=False):
        if output.name == name and output.datatype == datatype:
            return raw
    found = ", ".join(f"{o.name} {o.datatype}" for o in response.outputs) or "no output"
    raise _unexpected(response, f"expected an output {name} {datatype}, got {found}")


def _unexpected(response: Any, what: str) -> ServerError:
    return ServerError(
        f"{response.model_name} answered outside the protocol: {what}; client and server may be "
        f"of different versions (request id {response.id})",
        code="OK",
        request_id=response.id,
    )


class Stopwatch:
    """Wall times of the stages of one call, for `Segmentation.timings_ms`."""

    def __init__(self) -> None:
        self._start_s = self._last_s = time.perf_counter()
        self._laps_ms: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """Book the time since the last lap, or the start, under `name`."""
        now_s = time.perf_counter()
        self._laps_ms[name] = (now_s - self._last_s) * 1e3
        self._last_s = now_s

    def timings_ms(self) -> dict[str, float]:
        """Return the laps and, as `total`, the time since the start."""
        return self._laps_ms | {"total": (time.perf_counter() - self._start_s) * 1e3}
