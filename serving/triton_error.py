"""Turns exceptions into Triton's errors, for every Python model and Python-based backend alike.

Imports Triton's Python API, which exists inside the stub only.
"""

# The stub adds the classes of its API after it has imported the model, hence this module: they
# must not be looked up here at import, and annotations would.
from __future__ import annotations

import asyncio
import traceback

import triton_python_backend_utils as pb_utils

from serving.error_text import tag
from serving.errors import INTERNAL, KINDS, kind_of, message_of


def kind_of_code(code: int) -> str:
    """Kind, as in `serving.errors`, of a Triton error code; `INTERNAL` for an unknown one."""
    return next((kind for kind in KINDS if getattr(pb_utils.TritonError, kind) == code), INTERNAL)


def triton_error(error: BaseException, request_id: str = "") -> pb_utils.TritonError:
    """Error that a client may see for an exception.

    Planned kinds carry the exception's own text. Anything else is a fault of ours: its traceback
    goes to the server's log, and the client gets the request id, the type and the message.

    Args:
        error: What the pipeline or the backend raised.
        request_id: Id the client gave the request, or "".
    """
    kind = kind_of(error)
    message = message_of(error)
    if kind == INTERNAL:
        where = f"request {request_id or 'without id'}"
        pb_utils.Logger.log_error(f"{where} failed:\n{''.join(traceback.format_exception(error))}")
        message = f"{where} failed: {type(error).__name__}: {message}"
    elif not message:
        cancelled = isinstance(error, asyncio.CancelledError)
        message = "the request was cancelled" if cancelled else type(error).__name__
    return pb_utils.TritonError(tag(message, kind), getattr(pb_utils.TritonError, kind))


def error_response(error: BaseException, request_id: str = "") -> pb_utils.InferenceResponse:
    """Response without tensors that carries `triton_error(error, request_id)`."""
    return pb_utils.InferenceResponse(output_tensors=[], error=triton_error(error, request_id))
