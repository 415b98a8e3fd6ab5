"""Triton entry of the `mllm` backend: tensors in, one engine, tensors out.

A model without the parameter `attached_to` owns the engine and starts it from its version folder;
one with it uses the engine of the model named there. Either may be decoupled: then every text
increment is a response, and the last carries the rest.
"""

# The stub adds the classes of its API after it has imported the model.
from __future__ import annotations

import locale

# The stub starts in the C locale, where open() decodes files as ASCII.
locale.setlocale(locale.LC_CTYPE, "C.UTF-8")

import asyncio  # noqa: E402
import os  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from concurrent.futures import ThreadPoolExecutor  # noqa: E402
from contextlib import ExitStack, aclosing  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402

from serving import model_config  # noqa: E402
from serving.environment import check_stub  # noqa: E402
from serving.mllm.cancellation import CancellationWatch  # noqa: E402
from serving.mllm.counters import Counters  # noqa: E402
from serving.mllm.engine import MllmEngine  # noqa: E402
from serving.mllm.loop_thread import LoopThread  # noqa: E402
from serving.mllm.messages import Completion, GenerateRequest  # noqa: E402
from serving.mllm.metrics import MetricsFlusher  # noqa: E402
from serving.mllm.model_folder import read_model_folder  # noqa: E402
from serving.mllm.relay import Engine, RelayClient, RelayServer  # noqa: E402
from serving.mllm.runtime_folder import (  # noqa: E402
    open_runtime_folder,
    remove_runtime_folder,
)
from serving.responses import response_of  # noqa: E402
from serving.tensors import text_of  # noqa: E402
from serving.triton_error import error_response  # noqa: E402

ATTACH_TIMEOUT_S = 600.0
"""Seconds an attached model waits for its owner at load; parameter `attach_timeout_s`."""

SENDING_THREADS = 4


class TritonPythonModel:
    """One model of the backend `mllm`."""

    def initialize(self, args: dict[str, str]) -> None:
        """Start the engine, or wait for the owner's; called once by Triton."""
        check_stub()
        config = model_config.from_json(args["model_config"])
        self._decoupled = config.decoupled
        # The engine's processes compute; here rows are only gathered.
        torch.set_num_threads(1)
        self._loop = LoopThread("mllm-loop")
        self._senders = ThreadPoolExecutor(SENDING_THREADS, "mllm-send")
        self._cancellations = CancellationWatch()
        self._owned: _Owned | None = None
        owner = config.parameters.get("attached_to")
        runtime_folder = open_runtime_folder(os.getppid())
        path = runtime_folder / f"{owner or config.name}.sock"
        if owner:
            client = RelayClient(path, owner)
            timeout_s = float(config.parameters.get("attach_timeout_s", ATTACH_TIMEOUT_S))
            self._loop.run(client.wait_for_owner(timeout_s))
            self._engine: Engine = client
        else:
            folder = Path(args["model_repository"]) / args["model_version"]
            self._owned = _Owned(folder, path, self._loop)
            self._engine = self._owned.engine

    def execute(self, requests: Sequence[Any]) -> None:
        """Start each request on the event loop; answers come by sender."""
        for request in requests:
            sender = request.get_response_sender()
            request_id = request.request_id()
            try:
                asked = read_request(request)
            except Exception as error:
                _finish(sender, error_response(error, request_id))
                continue
            wanted = request.requested_output_names()
            self._loop.submit(self._answer(asked, sender, wanted, request_id))

    def is_ready(self) -> bool:
        """Whether the engine accepts requests; asked by Triton 26.03 and newer."""
        return self._owned is None or self._owned.engine.ready

    def finalize(self) -> None:
        """End the engine, its processes, and our threads."""
        if self._owned is not None:
            self._owned.close()
        self._cancellations.close()
        self._loop.stop()
        self._senders.shutdown()

    async def _answer(
        self, request: GenerateRequest, sender: Any, wanted: Sequence[str], request_id: str
    ) -> None:
        # Cancelling ends the inner task only, and at any time, so that an answer always leaves.
        replying = asyncio.create_task(self._reply(request, sender, wanted))
        cancel = partial(asyncio.get_running_loop().call_soon_threadsafe, replying.cancel)
        # A prompt alone is soon computed, and belongs to an ensemble whose other steps may still
        # run: Triton 24.10 never frees an ensemble's request when one of its steps fails then.
        watched = self._cancellations.add(sender, cancel) if request.max_tokens > 0 else None
        try:
            last = await replying
        except BaseException as error:  # nothing above this frame would answer the client
            last = error_response(error, request_id)
        if watched is not None:
            watched.close()
        await self._in_thread(_finish, sender, last)

    async def _reply(self, request: GenerateRequest, sender: Any, wanted: Sequence[str]) -> Any:
        """Send increments, if the model is decoupled, and return the last response."""
        texts: list[str] = []
        async with aclosing(self._engine.generate(request)) as replies:
            async for reply in replies:
                if isinstance(reply, Completion):
                    text = "".join([*texts, reply.text])
                    return response_of(_final_arrays(reply, text), wanted)
                if self._decoupled:
                    increment = response_of({"text": _text_array(reply.text)}, wanted)
                    await self._in_thread(sender.send, increment)
                else:
                    texts.append(reply.text)
        raise RuntimeError("the engine ended its replies without a completion")

    async def _in_thread(self, send: Callable[..., None], *arguments: Any) -> None:
        # Sending waits for the server, and the loop must not.
        await asyncio.get_running_loop().run_in_executor(self._senders, send, *arguments)


class _Owned:
    """The engine with what only its owner has: relay and metrics."""

    def __init__(self, folder: Path, path: Path, loop: LoopThread) -> None:
        self._loop = loop
        self._closing = ExitStack()
        with ExitStack() as closing:
            closing.callback(remove_runtime_folder, path.parent)
            counters = Counters()
            self.engine = MllmEngine(read_model_folder(folder), counters, path.parent)
            closing.callback(lambda: loop.run(self.engine.close()))
            loop.run(self.engine.open())
            relay = RelayServer(self.engine, path)
            closing.callback(lambda: loop.run(relay.close()))
            loop.run(relay.open())
            closing.callback(MetricsFlusher(pb_utils, counters).close)
            self._closing = closing.pop_all()

    def close(self) -> None:
        self._closing.close()


def read_request(request: Any) -> GenerateRequest:
    """The request in Triton's tensors.

    Raises:
        ValueError: if a tensor that holds one value holds another number of them.
    """
    tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
    optional: dict[str, Any] = {}
    if "adapter" in tensors:
        optional["adapter"] = text_of(tensors["adapter"], "adapter")
    if "max_tokens" in tensors:
        optional["max_tokens"] = int(_one(tensors["max_tokens"], "max_tokens"))
    if "temperature" in tensors:
        optional["temperature"] = float(_one(tensors["temperature"], "temperature"))
    for name in ("embeddings", "embedding_lengths", "hidden_positions"):
        if name in tensors:
            optional[name] = tensors[name].copy()
    return GenerateRequest(token_ids=tensors["token_ids"].copy(), **optional)


def _one(array: np.ndarray, name: str) -> Any:
    if array.size != 1:
        raise ValueError(f"{name} has shape {array.shape}: expected one value, shape (1,)")
    return array.reshape(-1)[0]


def _final_arrays(completion: Completion, text: str) -> dict[str, np.ndarray]:
    return {
        "hidden_states": completion.hidden_states[np.newaxis],
        "text": _text_array(text),
        "cached_tokens": np.array([completion.cached_tokens], np.int32),
        "computed_tokens": np.array([completion.computed_tokens], np.int32),
    }


def _text_array(text: str) -> np.ndarray:
    return np.array([text.encode("utf-8")], dtype=np.object_)


def _finish(sender: Any, response: Any) -> None:
    final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
    try:
        sender.send(response, flags=final)
    except Exception as error:  # such as a full /dev/shm: an error still fits
        sender.send(error_response(error), flags=final)
