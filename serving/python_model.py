"""The one base class of all Python models: it carries tensors between Triton and a pipeline.

A model's `1/model.py` names a class and nothing else:

    class TritonPythonModel(PythonModel):
        pipeline = MedsamImageEmbedding

The pipeline is plain Python, so that it runs in a plain test. Its `__init__` may declare

- `version_folder` (Path): the model's version folder, where its artifacts lie,
- `call` (Callable): runs another served model, see `PythonModel.call`,
- `sequence_idle_s` (float): `max_sequence_idle_microseconds` of its sequence batching, in seconds,
- any key of the configuration's `parameters`; values are converted to int, float or bool where the
  annotation says so, and are strings otherwise.

Its `__call__` takes tensors as keyword arguments named as in `config.pbtxt` and returns a dict of
arrays, also named so. An optional input that a request leaves out keeps the parameter's default. A
parameter annotated `str` receives the text of a BYTES (1) tensor. A parameter named `is_cancelled`
receives a function without arguments that says whether the client has given up; a pipeline that
asks it raises `serving.errors.Cancelled`. One named `sequence`, of a model with sequence batching,
receives a `serving.sequence_control.SequenceControl`: to which sequence the request belongs, and
whether it starts or ends it. A decoupled model's `__call__` is a generator of such
dicts, one for each response. `close()`, if there is one, runs at unload.

A pipeline that does not ask answers a cancelled request, too. It must: where a step of an ensemble
fails while others of it are being started, Triton 24.10 may crash (docs/architecture.md), and a
cancelled ensemble would let several fail at once.

Requests overlap in threads, at most `max_in_flight` (parameter, default 64) at a time; one more is
refused as UNAVAILABLE. So do requests of one sequence: Triton hands on the next one as soon as
`execute` has returned. Whole batches are for backends, see `serving.backends.onnxruntime`.
"""

import locale

# The stub starts in the C locale, where open() decodes files as ASCII.
locale.setlocale(locale.LC_CTYPE, "C.UTF-8")

import threading  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterator, Sequence  # noqa: E402
from concurrent.futures import ThreadPoolExecutor  # noqa: E402
from contextvars import ContextVar  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, ClassVar  # noqa: E402

import numpy as np  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402

from serving import model_config  # noqa: E402
from serving.environment import check_stub  # noqa: E402
from serving.error_text import untag  # noqa: E402
from serving.errors import Cancelled, Unavailable, error_of  # noqa: E402
from serving.pipeline_signature import (  # noqa: E402
    asks_cancellation,
    asks_sequence,
    check_signature,
    constructor_arguments,
    text_parameters,
)
from serving.responses import response_of  # noqa: E402
from serving.sequence_control import SequenceControl  # noqa: E402
from serving.tensors import array_of, text_of  # noqa: E402
from serving.triton_error import error_response, kind_of_code  # noqa: E402

MAX_IN_FLIGHT = 64
"""Requests one model instance works on at a time unless its `max_in_flight` says otherwise."""

CANCEL_POLL_S = 0.05
"""Least time between two questions to the server about one request: each costs a round trip."""

_request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Id of the request that the current thread answers."""


class PythonModel:
    """Triton's Python model interface over one pipeline object."""

    pipeline: ClassVar[type]

    def initialize(self, args: dict[str, str]) -> None:
        """Build the pipeline; called once by Triton."""
        check_stub()
        self._config = model_config.from_json(args["model_config"])
        self._max_in_flight = int(self._config.parameters.get("max_in_flight", MAX_IN_FLIGHT))
        if self._max_in_flight < 1:
            raise ValueError(f"max_in_flight is {self._max_in_flight}, expected at least 1")
        version_folder = Path(args["model_repository"]) / args["model_version"]
        check_signature(self.pipeline, self._config)
        offered = {
            "version_folder": version_folder,
            "call": self.call,
            "sequence_idle_s": self._config.sequence_idle_s,
        }
        self._pipeline = self.pipeline(
            **constructor_arguments(self.pipeline, self._config, offered)
        )
        self._texts = text_parameters(self.pipeline)
        self._asks_cancelled = asks_cancellation(self.pipeline)
        self._asks_sequence = asks_sequence(self.pipeline)
        self._slots = threading.BoundedSemaphore(self._max_in_flight)
        self._threads = ThreadPoolExecutor(self._max_in_flight, self._config.name)

    def execute(self, requests: Sequence[Any]) -> None:
        """Start each request in a thread of its own, or refuse it; answers come by sender."""
        for request in requests:
            sender = request.get_response_sender()
            if not self._slots.acquire(blocking=False):
                refusal = Unavailable(
                    f"model {self._config.name!r} is working on {self._max_in_flight} requests, "
                    "its max_in_flight; try again later"
                )
                _finish(sender, error_response(refusal, request.request_id()))
                continue
            self._threads.submit(self._answer, request, sender)

    def finalize(self) -> None:
        """Wait for the requests in flight, then close the pipeline."""
        self._threads.shutdown(wait=True)
        close = getattr(self._pipeline, "close", None)
        if close is not None:
            close()

    def call(
        self, model_name: str, inputs: dict[str, Any], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Run another model of this server and wait for its one response.

        Args:
            model_name: A model that this one's parameter `calls` lists, so that the launcher loads
                it too.
            inputs: Arrays by tensor name; str and bytes become BYTES (1).
            outputs: Names of the tensors to return.

        Returns:
            Arrays by name; BYTES tensors are object arrays of bytes.

        Raises:
            ValueError, LookupError, Unavailable, Cancelled, CalleeFailed: The callee's error, of
                the same kind, its text preceded by the callee's name.
        """
        if model_name not in self._config.listed_parameter("calls"):
            raise RuntimeError(
                f"model {self._config.name!r} calls {model_name!r} without declaring it: add it to "
                'parameters { key: "calls" } of its config.pbtxt'
            )
        request = pb_utils.InferenceRequest(
            model_name=model_name,
            request_id=_request_id.get(),
            inputs=[pb_utils.Tensor(name, _wire_array(value)) for name, value in inputs.items()],
            requested_output_names=list(outputs),
        )
        response = request.exec()
        if response.has_error():
            error = response.error()
            message, kind = untag(error.message(), kind_of_code(error.code()))
            raise error_of(kind, f"{model_name}: {message}")
        tensors = {tensor.name(): tensor for tensor in response.output_tensors()}
        return {name: tensors[name].as_numpy() for name in outputs}

    def _answer(self, request: Any, sender: Any) -> None:
        last = None
        _request_id.set(request.request_id())
        try:
            cancelled = _cancellation(sender)
            arguments = self._arguments(request)
            if self._asks_cancelled:
                arguments["is_cancelled"] = cancelled
            if self._asks_sequence:
                arguments["sequence"] = _sequence_control(request)
            result = self._pipeline(**arguments)
            wanted = request.requested_output_names()
            if isinstance(result, Iterator):
                self._stream(result, sender, wanted, cancelled)
            else:
                last = self._response(result, wanted)
        except BaseException as error:  # nothing above this frame would answer the client
            last = error_response(error, request.request_id())
        finally:
            # Before the answer: a client that has it may ask again at once.
            self._slots.release()
            _finish(sender, last)

    def _stream(
        self,
        results: Iterator,
        sender: Any,
        wanted: Sequence[str],
        cancelled: Callable[[], bool],
    ) -> None:
        try:
            for result in results:
                sender.send(self._response(result, wanted))
                if cancelled():
                    raise Cancelled
        finally:
            close = getattr(results, "close", None)
            if close is not None:
                close()

    def _arguments(self, request: Any) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        for tensor in request.inputs():
            name = tensor.name()
            array = tensor.as_numpy()
            arguments[name] = text_of(array, name) if name in self._texts else array
        return arguments

    def _response(self, result: Any, wanted: Sequence[str]) -> Any:
        if not isinstance(result, dict):
            raise TypeError(f"the pipeline gave a {type(result).__name__}, expected a dict")
        unknown = set(result) - set(self._config.output_names)
        missing = set(self._config.output_names) - set(result)
        # A streamed increment may leave outputs to the last response.
        if unknown or (missing and not self._config.decoupled):
            raise TypeError(
                f"the pipeline gave outputs {sorted(result)}, config.pbtxt says "
                f"{sorted(self._config.output_names)}"
            )
        batched = self._config.max_batch_size > 0
        arrays = {
            name: array_of(value, self._config.output(name), batched)
            for name, value in result.items()
        }
        return response_of(arrays, wanted)


def _wire_array(value: Any) -> np.ndarray:
    if isinstance(value, str | bytes):
        encoded = value.encode("utf-8") if isinstance(value, str) else value
        return np.array([encoded], dtype=np.object_)
    return np.ascontiguousarray(value)


def _sequence_control(request: Any) -> SequenceControl:
    # Triton 24.10 could hand these over as input tensors, too, but not an id that is a string: it
    # comes in a buffer of 132 bytes, and the Python backend takes the zeros behind it for more
    # strings and refuses the request.
    flags = request.flags()
    return SequenceControl(
        correlation_id=str(request.correlation_id()),
        start=bool(flags & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START),
        end=bool(flags & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END),
    )


def _cancellation(sender: Any) -> Callable[[], bool]:
    """Function that asks the server, at most every `CANCEL_POLL_S`, if a request is cancelled."""
    state = {"asked": -CANCEL_POLL_S, "cancelled": False}

    def is_cancelled() -> bool:
        now = time.monotonic()
        if not state["cancelled"] and now - state["asked"] >= CANCEL_POLL_S:
            state["asked"] = now
            state["cancelled"] = sender.is_cancelled()
        return bool(state["cancelled"])

    return is_cancelled


def _finish(sender: Any, response: Any) -> None:
    """Send the one final flag of a request, with its last response if there is one."""
    final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
    if response is None:
        sender.send(flags=final)
        return
    try:
        sender.send(response, flags=final)
    except Exception as error:  # such as a full /dev/shm: an error still fits
        sender.send(error_response(error), flags=final)
